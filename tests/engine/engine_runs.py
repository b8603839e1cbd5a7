"""Running the real engine on the real embedded model, and looking at what came out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from webui.engine import Engine
from webui.engine.control import Control
from webui.engine.expansion import run_request
from webui.events import Event, Failed, Finished, Image, Loaded, Loading, Preview, Started, Step, Warning
from webui.params import make_params
from webui.paths import Paths
from webui.settings import Settings, changed

QUICK = {"prompt": "a red apple", "steps": 4, "seed": 7, "cfg_scale": 5.0, "sampler": "Euler"}


@dataclass
class Run:
    """All events of one job."""

    events: list[Event]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def images(self) -> list[Image]:
        return self.of(Image)

    @property
    def steps(self) -> list[Step]:
        return self.of(Step)

    @property
    def previews(self) -> list[Preview]:
        return self.of(Preview)

    @property
    def started(self) -> Started:
        return self.of(Started)[0]

    @property
    def lines(self) -> list[str]:
        return [event.line for event in self.of(Loading)]

    @property
    def loaded(self) -> list[Loaded]:
        return self.of(Loaded)

    @property
    def warnings(self) -> list[Warning]:
        return self.of(Warning)

    @property
    def finished(self) -> Finished:
        last = self.events[-1]
        assert isinstance(last, Finished), last
        return last

    @property
    def error(self) -> dict[str, str]:
        last = self.events[-1]
        assert isinstance(last, Failed), last
        return last.error

    @property
    def digests(self) -> list[str]:
        self.finished  # noqa: B018 (a failed run has no digests to compare)
        return [image.pixels_sha256 for image in self.images]


def run(engine: Engine, control: Control | None = None, **fields: Any) -> Run:
    """A quick job with some fields changed."""
    return Run(list(engine.generate(make_params({**QUICK, **fields}), control)))


def run_until(engine: Engine, act: Callable[[Event, Control], None], **fields: Any) -> Run:
    """A quick job whose events are shown to `act` before the engine goes on."""
    control, params = Control(), make_params({**QUICK, **fields})

    def work(emit: Callable[[Event], None]) -> None:
        def shown(event: Event) -> None:
            emit(event)
            act(event, control)

        run_request(engine._tools, params, control, shown)

    return Run(list(engine._stream(work, control)))


def pixels_of(image: Image) -> np.ndarray:
    """The saved file's pixels (H, W, 3)."""
    with PillowImage.open(image.path) as picture:
        return np.asarray(picture.convert("RGB"))


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def make_engine(root: Path, **settings: Any) -> Engine:
    """An engine of its own on a data folder; dots in setting names are written as two underscores.

    In fp32 unless told otherwise, so that numbers can be held against references on every processor: "auto" means bf16
    where the processor has it.
    """
    paths = Paths.under(root)
    paths.make_folders()
    values = {"device__precision": "fp32", **settings}
    return Engine(changed(Settings(), {key.replace("__", "."): value for key, value in values.items()}), paths)


def rewrite(source: Path, target: Path, change: Callable[[dict[str, Any]], Iterable[tuple[str, Any]]]) -> Path:
    """A copy of a .safetensors file with other tensors: `change` gets all of them and gives those to write."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(source, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        metadata = file.metadata()
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in change(tensors)}, target, metadata)
    return target
