"""`app.py bench`: this machine's speed and memory beside peers.

The work is done by `benchmarks.bench`, with torch, in a process of its own, which is given the options as JSON.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from webui.paths import REPO_ROOT


class CaseKind(Enum):
    unet = "unet"
    text = "text"
    decode = "decode"
    encode = "encode"
    picture = "picture"


class PeerKind(str, Enum):
    __str__ = str.__str__

    diffusers = "diffusers"
    tuned = "tuned"
    openvino = "openvino"  # UNet steps and decodes alone
    sdcpp = "sdcpp"  # stable-diffusion.cpp; whole runs alone
    ours = "ours"
    fast = "fast"  # ours with the options that are not exact; whole runs alone
    int8 = "int8"  # ours with the UNet's weights kept so
    float8 = "float8"


LIBRARIES = {PeerKind.openvino: "openvino", PeerKind.sdcpp: "stable_diffusion_cpp"}
"""What a peer on a CPU needs that is no part of this program: `pip install openvino stable-diffusion-cpp-python`."""

ASKED_FOR = (PeerKind.int8, PeerKind.float8)  # measured only where they are named


class RandomModel(str, Enum):
    __str__ = str.__str__

    sd15 = "sd15"
    sd2 = "sd2"
    sdxl = "sdxl"


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured, and how. Empty lists and names: what is usual."""

    quick: bool
    checkpoint: str
    random: str
    scratch: str
    data_dir: str
    case: tuple[str, ...]
    peer: tuple[str, ...]
    side: tuple[int, ...]
    batch: tuple[int, ...]
    steps: int
    rounds: int
    threads: int
    use_cpu: bool
    json: str

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Options:
        """What `to_json` wrote."""
        data: dict[str, Any] = json.loads(text)
        data |= {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
        return cls(**data)


def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="One round, few steps: whether it works, not how fast.")
    ] = False,
    checkpoint: Annotated[str, typer.Option(help="Title, name or hash; the first that can run if not given.")] = "",
    random: Annotated[
        RandomModel | None, typer.Option(help="A full-size model of random weights, made for this and removed again.")
    ] = None,
    scratch: Annotated[
        Path | None, typer.Option(help="Where that is written; the system's folder if not given.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="The folder of models/ (that of app.py).")] = None,
    case: Annotated[list[CaseKind] | None, typer.Option(help="Measure this alone; may be given several times.")] = None,
    peer: Annotated[list[PeerKind] | None, typer.Option(help="Measure this one; the first is the ratio's 1.")] = None,
    side: Annotated[list[int] | None, typer.Option(min=64, help="Pixels; the model's own if not given.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Pictures in a UNet step, each guided.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of the whole run.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count, after one to warm up.")] = 3,
    threads: Annotated[int, typer.Option(min=0, help="Of the processor; 0 = torch's choice.")] = 0,
    use_cpu: Annotated[bool, typer.Option("--use-cpu", help="Compute on the CPU, even if there is a GPU.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures into this file.")] = None,
) -> None:
    """Measure this machine's speed and memory beside diffusers, and print a table."""

    def there(path: Path | None) -> str:
        return "" if path is None else str(path.absolute())

    options = Options(
        quick=quick,
        checkpoint=checkpoint,
        random=random or "",
        scratch=there(scratch),
        data_dir=there(data_dir),
        case=tuple(kind.value for kind in case or CaseKind),
        peer=tuple(peer or _usual_peers()),
        side=tuple(side or ()),
        batch=tuple(batch or (1,)),
        steps=steps,
        rounds=rounds,
        threads=threads,
        use_cpu=use_cpu,
        json=there(json_file),
    )
    command = [sys.executable, "-m", "benchmarks.bench", options.to_json()]
    raise typer.Exit(subprocess.run(command, cwd=REPO_ROOT, check=False).returncode)


def _usual_peers() -> list[PeerKind]:
    """All that are here and need not be asked for."""
    missing = [kind for kind, library in LIBRARIES.items() if importlib.util.find_spec(library) is None]
    return [kind for kind in PeerKind if kind not in (*ASKED_FOR, *missing)]
