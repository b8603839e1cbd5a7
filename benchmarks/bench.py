"""Speed and memory of this machine with one checkpoint, beside peers: a table, and JSON where it is asked for.

    python3 app.py bench [--checkpoint NAME | --random sd15|sd2|sdxl] [--side 512] [--batch 1 --batch 4] [--json FILE]
    python3 app.py bench --quick

The peers run on the same weights, each in a process of its own, and are asked in turn, case by case and round by round,
so that whatever else the machine does meets all of them alike. Of the rounds the best counts. On a CPU the seconds are
the processor's, of all threads; on a GPU the clock's. "Of the ceiling" is how near a peer comes to the speed of one
large matrix product in its own number format. docs/performance.md tells how to read it all.

A full-size model of random weights (--random) is as fast as a trained one: no operation looks at the values.
"""

from __future__ import annotations

import io
import json
import math
import multiprocessing
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import webui
from benchmarks import make_sd15, make_sdxl
from benchmarks.cases import Case, given, model_file, planned
from benchmarks.measuring import Cost, operations
from benchmarks.peers import OTHER_PICTURES, quiet_environment, serve
from webui.cli.bench import LIBRARIES, CaseKind, Options, PeerKind
from webui.console import size
from webui.engine.compute.device import choose_device
from webui.errors import WebUIError
from webui.paths import REPO_ROOT, Paths
from webui.settings import Settings

RANDOM: dict[str, Callable[[Path], Path]] = {
    "sd15": make_sd15.make,
    "sd2": lambda folder: make_sdxl.make(folder, "sd2"),
    "sdxl": lambda folder: make_sdxl.make(folder, "sdxl"),
}
QUICK_STEPS = 2
ABLE = {  # the cases of peers that cannot do all of them
    PeerKind.fast: (CaseKind.picture,),
    PeerKind.openvino: (CaseKind.unet, CaseKind.decode),
    PeerKind.sdcpp: (CaseKind.picture,),
}
ANSWER_SECONDS = 3600.0  # a full-size fp32 model on a slow machine takes its time


@dataclass
class Row:
    """One peer in one case. `error` instead of figures where it cannot do it."""

    case: str
    peer: str
    seconds: float = 0.0
    wall: float = 0.0
    ratio: float = 0.0  # how many times as fast as the first peer
    of_ceiling: float = 0.0
    peak_bytes: int = 0  # of the peer's process or, on a GPU, of its tensors
    difference: float = 0.0  # of the picture from the exact one of the same seed: PSNR in dB, higher is nearer
    error: str = ""


@dataclass
class Report:
    """All that was measured."""

    machine: dict[str, Any]
    checkpoint: str
    ceilings: dict[str, float] = field(default_factory=dict)  # floating-point operations a second, by peer
    rows: list[Row] = field(default_factory=list)


class PeerProcess:
    """A peer at the other end of a pipe."""

    def __init__(self, kind: str, paths: Paths, checkpoint: str, use_cpu: bool, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, kind, paths, checkpoint, use_cpu, threads)
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, message: Any) -> Any:
        """Raises `PeerError` with the peer's reason."""
        try:
            self._connection.send(message)
            if not self._connection.poll(ANSWER_SECONDS):
                raise PeerError(f"no answer within {ANSWER_SECONDS:.0f} s")
            good, answer = self._connection.recv()
        except (EOFError, OSError):
            raise PeerError("its process ended") from None
        if not good:
            raise PeerError(answer)
        return answer

    def close(self) -> None:
        if self._process.is_alive():
            try:
                self._connection.send("stop")
            except OSError:
                self._process.kill()
        self._process.join(10)
        self._process.kill()
        self._connection.close()


class PeerError(Exception):
    """Why a peer has no figure."""


def measured(case: Case, peers: dict[str, PeerProcess], rounds: int) -> dict[str, Row]:
    """The case for every peer, in turn; the first run of each warms up and does not count."""
    rows = {kind: Row(case.name, kind) for kind in peers}
    for turn in range(rounds + 1):
        for kind, peer in peers.items():
            row = rows[kind]
            if row.error:
                continue
            try:
                taken: Cost = peer.ask(case)
                if turn:
                    row.seconds = min(row.seconds or taken.seconds, taken.seconds)
                    row.wall = min(row.wall or taken.wall, taken.wall)
                if turn == rounds:
                    row.peak_bytes = peer.ask("peak")
            except PeerError as error:
                row.error = str(error)
    return rows


def tell_differences(rows: dict[str, Row], peers: dict[str, PeerProcess]) -> None:
    """How far the pictures that are not exact are from the exact one."""
    if PeerKind.ours not in rows or rows[PeerKind.ours].error:
        return

    def picture(kind: str) -> Any:
        return np.asarray(Image.open(io.BytesIO(peers[kind].ask("picture"))).convert("RGB"), dtype=np.float64)

    exact = picture(PeerKind.ours)
    for kind in OTHER_PICTURES:
        if kind in rows and not rows[kind].error:
            error = float(np.mean((exact - picture(kind)) ** 2))
            rows[kind].difference = 10 * math.log10(255**2 / max(error, 1e-6))


def counted(case: Case, paths: Paths, checkpoint: str) -> int:
    """Floating-point operations of a case, by running it without numbers."""
    plans, vae_plan = planned(paths, checkpoint)
    unet, vae, meta = plans.unet.module, vae_plan.module, torch.device("meta")
    cells = case.side // 8

    def step(pictures: int) -> int:
        x, prompts, pooled, sizes = given(unet, Case(CaseKind.unet, case.side, pictures))
        x = torch.cat([x, x]).to(meta)
        context = torch.cat([tokens.expand(pictures, -1, -1) for tokens in prompts]).to(meta)
        rows, added = (2 * pictures, -1), None
        if pooled is not None and sizes is not None:
            added = {"text_embeds": pooled.expand(rows).to(meta), "time_ids": sizes.expand(rows).to(meta)}
        t = torch.zeros((), device=meta)
        return operations(lambda: unet(x, t, encoder_hidden_states=context, added_cond_kwargs=added))

    def decoding() -> int:
        latents = torch.zeros(case.batch, vae.config.latent_channels, cells, cells, device=meta)
        return operations(lambda: vae.decode(latents))

    if case.kind is CaseKind.unet:
        return step(case.batch)
    if case.kind is CaseKind.decode:
        return decoding()
    if case.kind is CaseKind.picture:
        return case.steps * step(case.batch) + decoding()
    return 0  # too little to speak of a ceiling


def cases_of(options: Options, side: int) -> list[Case]:
    """What is asked for, or what is usual."""
    sides, batches = options.side or (side,), options.batch
    steps = QUICK_STEPS if options.quick else options.steps
    chosen = []
    for kind in map(CaseKind, options.case):
        for side in sides[:1] if kind is CaseKind.text else sides:
            for batch in batches if kind is CaseKind.unet else (1,):
                chosen.append(Case(kind, side, batch, steps if kind is CaseKind.picture else 0))
    return chosen


def is_able(peer: str, kind: CaseKind) -> bool:
    """Whether a peer has something to show in a case."""
    return kind in ABLE.get(PeerKind(peer), tuple(CaseKind))


def bench(options: Options, paths: Paths, checkpoint: str) -> Report:
    """Measure, telling each case as it is done."""
    side = model_file(paths, checkpoint).native_size
    with ExitStack() as stack:
        peers: dict[str, PeerProcess] = {}
        on_gpu = not options.use_cpu and choose_device(Settings().device).kind != "cpu"
        asked = [kind for kind in options.peer if not on_gpu or kind not in LIBRARIES]
        for kind in [kind for kind in asked if any(is_able(kind, CaseKind(case)) for case in options.case)]:
            peers[kind] = PeerProcess(kind, paths, checkpoint, options.use_cpu, options.threads)
            stack.callback(peers[kind].close)
        facts = {kind: peer.ask("facts") for kind, peer in peers.items()}
        names = {kind: fact[0] for kind, fact in facts.items()}
        _, device, processor, threads = next(iter(facts.values()))
        machine = {
            "device": device,
            "name": processor,
            "threads": threads,
            "system": platform.platform(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "product": webui.__version__,
        }
        report = Report(machine, checkpoint, {names[kind]: peer.ask("ceiling") for kind, peer in peers.items()})
        print(heading(report), flush=True)
        for case in cases_of(options, side):
            able = {kind: peer for kind, peer in peers.items() if is_able(kind, case.kind)}
            rows = measured(case, able, 1 if options.quick else options.rounds)
            work = 0 if options.quick else counted(case, paths, checkpoint)
            if case.kind is CaseKind.picture:
                tell_differences(rows, able)
            first = next(iter(rows.values()))
            for kind, row in rows.items():
                row.peer = names[kind]
                if row.seconds:
                    row.ratio = first.seconds / row.seconds
                    row.of_ceiling = work / row.seconds / report.ceilings[row.peer]
            report.rows += rows.values()
            print("\n".join(line(row) for row in rows.values()), flush=True)
        return report


def heading(report: Report) -> str:
    """What was measured on, and the head of the table."""
    machine = report.machine
    lines = [
        f"Latent WebUI {machine['product']} on {machine['name']} ({machine['device']}, {machine['threads']} threads), "
        f"torch {machine['torch']}",
        f"Checkpoint {report.checkpoint}",
        *(f"Matrix product, {name}: {flops / 1e12:.2f} TFLOP/s" for name, flops in report.ceilings.items()),
    ]
    kind = "CPU s" if machine["device"] == "cpu" else "s"
    head = f"{'case':<34}{'peer':<31}{kind:>9}{'wall s':>9}{'ratio':>8}{'of the ceiling':>16}{'peak':>10}"
    return "\n".join([*lines, "", head, "-" * len(head)])


def line(row: Row) -> str:
    """A row of the table."""
    if row.error:
        return f"{row.case:<34}{row.peer:<31}  {row.error}"
    share = f"{row.of_ceiling:.0%}" if row.of_ceiling else ""
    figures = f"{row.seconds:>9.3f}{row.wall:>9.3f}{row.ratio:>8.2f}{share:>16}"
    away = f"  {row.difference:.1f} dB from exact" if row.difference else ""
    return f"{row.case:<34}{row.peer:<31}{figures}{size(row.peak_bytes):>10}{away}"


@contextmanager
def checkpoint_of(options: Options) -> Iterator[tuple[Paths, str]]:
    """The folders and the name of the checkpoint; one of random weights is made and removed again."""
    folder = Path(options.data_dir or REPO_ROOT)
    if not options.random:
        from webui.catalog import Catalog

        paths = Paths.under(folder)
        catalog = Catalog(paths)
        try:
            chosen = options.checkpoint or next((file.name for file in catalog.checkpoints if not file.reason), "")
            yield paths, catalog.find_checkpoint(chosen).name
        finally:
            catalog.close()
        return
    with tempfile.TemporaryDirectory(prefix="latent-bench-", dir=options.scratch or None) as scratch:
        made = RANDOM[options.random](Path(scratch) / "models" / "Stable-diffusion")
        yield Paths.under(Path(scratch)), made.name


def main(options: Options) -> int:
    """0, or 1 where ours failed in a case or nothing could be measured."""
    quiet_environment()
    try:
        with checkpoint_of(options) as (paths, checkpoint):
            report = bench(options, paths, checkpoint)
    except (WebUIError, PeerError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        Path(options.json).write_text(json.dumps(asdict(report), indent=2), encoding="utf-8")
    return int(any(row.error for row in report.rows if row.peer.startswith(PeerKind.ours)))


if __name__ == "__main__":
    sys.exit(main(Options.from_json(sys.argv[1])))
