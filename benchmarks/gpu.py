"""All that only a GPU can show, in one command and within minutes: a Markdown table, and JSON with every figure.

    .venv/bin/python -m benchmarks.gpu [--json FILE] [--markdown FILE] [--scratch FOLDER] [--section NAME ...]

Full-size SD1.5 and SDXL of random weights are written for it and removed again; nothing is downloaded. The sections:

- speed: SD1.5 at 512x512 in 20 steps, 1 and 8 pictures at once, beside stock diffusers in fp16, in turn; it/s, and the
  share of the measured ceiling of a matrix product.
- weights: the same with the UNet's weights in eight bits, one picture at once: it/s, peak, and how the picture differs.
- graphs: how long it takes to record a UNet for a size, and that a recorded one answers as a plain one.
- waits: how often the processor waits for the GPU in 20 steps, by torch's own count.
- job: where the time of a whole job goes, files included, and what a further picture of it takes.
- memory: the peak of SD1.5 at 512x512 and SDXL at 1024x1024, with all memory modes, against their limits.
- attention: every backend on the shapes of SD1.5 and SDXL, against the plain formula in fp32, with times.
- operations: which kernels a UNet step spends its time in.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import webui
from benchmarks.bench import RANDOM, PeerError, PeerProcess, Row, counted, measured, tell_differences
from benchmarks.cases import Case, given, planned
from benchmarks.measuring import cost
from benchmarks.peers import PROMPT, quiet_environment
from webui import settings as stored
from webui.cli.bench import ASKED_FOR, CaseKind, PeerKind
from webui.engine import Engine
from webui.engine.checkpoints.loader import Target, fill, import_libraries, use_attention
from webui.engine.compute.attention import Attention, sdpa, sliced
from webui.engine.compute.device import DeviceChoice, choose_device
from webui.engine.compute.graphs import Recorder, plain, recorder_for
from webui.engine.compute.kernels import kernels_for
from webui.engine.compute.layers import use_kernels
from webui.engine.memory.usage import give_back
from webui.events import Failed, Finished
from webui.params import make_params
from webui.paths import Paths
from webui.settings import Attention as Backend
from webui.settings import MemoryMode, Settings

GB = 1e9
STEPS, ROUNDS, BATCHES = 20, 3, (1, 8)
MODEL_SIDES = {"sd15": 512, "sdxl": 1024}
LIMITS_GB = {
    "sd15": {"normal": 2.7, "medvram": 2.0, "lowvram": 1.2},
    "sdxl": {"normal": 7.5, "medvram": 4.5, "lowvram": 2.2},
}
MEMORY_STEPS = 4
RECORDED = ((1.0, 1), (1.5, 1), (1.0, 8))  # share of the model's own size, pictures
RECORD_SECONDS = 2
HEADS = {"sd15": ((8, 4096, 40), (8, 1024, 80), (8, 256, 160)), "sdxl": ((10, 4096, 64), (20, 1024, 64))}
PROMPT_TOKENS = 77
FAR_OFF = 5e-2  # greatest error of attention in fp16 on numbers of size 1
IN_TURN = 4  # pictures, one after the other
SECTIONS = ("speed", "weights", "graphs", "waits", "job", "memory", "attention", "operations")


@dataclass
class Line:
    """One figure: what was measured, on what, and whether it is what was promised (None: nothing was)."""

    section: str
    what: str
    value: float
    unit: str
    promised: str = ""
    kept: bool | None = None
    note: str = ""


@dataclass
class Report:
    """All that was measured, and on which machine."""

    machine: dict[str, str]
    lines: list[Line] = field(default_factory=list)
    missed: dict[str, str] = field(default_factory=dict)  # section -> why it has no figures


def main(words: Sequence[str] | None = None) -> int:
    """0, or 1 where there is no GPU or a section failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write every figure into this file")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    parser.add_argument("--scratch", type=Path, help="where the models are written; the system's folder if not given")
    parser.add_argument("--section", action="append", choices=SECTIONS, help="measure this alone; may be repeated")
    options = parser.parse_args(words)
    device = choose_device(Settings().device)
    if device.kind != "cuda":
        print("There is no CUDA GPU on this machine.", file=sys.stderr)
        return 1
    quiet_environment()
    with tempfile.TemporaryDirectory(prefix="latent-gpu-", dir=options.scratch) as folder:
        report = measure(options.section or SECTIONS, Models(Path(folder)), device, print)
    table = markdown(report)
    print(table)
    for path, text in ((options.json, json.dumps(asdict(report), indent=2)), (options.markdown, table)):
        if path is not None:
            path.write_text(text, encoding="utf-8")
    return int(bool(report.missed))


class Models:
    """Checkpoints of random weights in a folder of models, written when they are first asked for."""

    def __init__(self, folder: Path, makers: Mapping[str, Callable[[Path], Path]] = RANDOM) -> None:
        self.paths = Paths.under(folder)
        self._makers = makers
        self._made: dict[str, str] = {}

    def name(self, family: str) -> str:
        """The file's name, as the catalog knows it."""
        if family not in self._made:
            self._made[family] = self._makers[family](self.paths.models / "Stable-diffusion").name
        return self._made[family]


def measure(sections: Sequence[str], models: Models, device: DeviceChoice, tell: Callable[[str], None]) -> Report:
    """All sections in turn; one that fails is told and does not keep the others from running."""
    makers: dict[str, Callable[[Models, DeviceChoice], Iterator[Line]]] = {
        "speed": speed,
        "weights": weights,
        "graphs": recordings,
        "waits": waits,
        "job": job,
        "memory": memory,
        "attention": attention,
        "operations": operations,
    }
    report = Report(machine_of(device))
    for section in sections:
        started = time.perf_counter()
        try:
            for line in makers[section](models, device):
                report.lines.append(line)
                tell(row(line))
        except Exception as error:  # whatever it is: the figures of the others are worth having
            report.missed[section] = f"{type(error).__name__}: {error}"[:300]
            tell(f"{section}: {report.missed[section]}")
        give_back(device.device)
        tell(f"({section}: {time.perf_counter() - started:.0f} s)")
    return report


def machine_of(device: DeviceChoice) -> dict[str, str]:
    """Names and versions that belong to the figures."""
    return {
        "name": device.name,
        "precision": device.precision,
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "system": platform.platform(),
        "python": platform.python_version(),
        "product": webui.__version__,
    }


def speed(models: Models, device: DeviceChoice) -> Iterator[Line]:
    """Whole runs and UNet steps of SD1.5 beside stock diffusers, each in a process of its own."""
    name = models.name("sd15")
    with _peers((PeerKind.diffusers, PeerKind.tuned, PeerKind.ours), models, device) as peers:
        ceiling = peers[PeerKind.ours.value].ask("ceiling")
        yield Line("speed", "matrix product, the ceiling", ceiling / 1e12, "TFLOP/s")
        for case in _speed_cases(BATCHES):
            yield from compared(case, peers, counted(case, models.paths, name), ceiling)


def weights(models: Models, device: DeviceChoice) -> Iterator[Line]:
    """The same beside itself, with the UNet's weights kept in fewer bits."""
    with _peers((PeerKind.ours, *ASKED_FOR), models, device) as peers:
        for case in _speed_cases((1,)):
            rows = _measured(case, peers)
            if case.kind is CaseKind.picture:
                tell_differences(rows, peers)
            for kind, one in rows.items():
                away = f", {one.difference:.1f} dB from exact" if one.difference else ""
                note = f"{one.seconds:.3f} s, peak {one.peak_bytes / GB:.2f} GB{away}"
                yield Line("weights", f"{case.name}: {kind}", (case.steps or 1) / one.seconds, "it/s", note=note)


@contextmanager
def _peers(kinds: Sequence[PeerKind], models: Models, device: DeviceChoice) -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        peers = {}
        for kind in kinds:
            peers[kind.value] = PeerProcess(kind, models.paths, models.name("sd15"), device.kind == "cpu", 0)
            stack.callback(peers[kind.value].close)
        yield peers


def _speed_cases(batches: Sequence[int]) -> list[Case]:
    side = MODEL_SIDES["sd15"]
    both = (CaseKind.unet, 0), (CaseKind.picture, STEPS)
    return [Case(kind, side, batch, steps) for batch in batches for kind, steps in both]


def _measured(case: Case, peers: dict[str, Any]) -> dict[str, Row]:
    """Raises `PeerError` where one of them cannot do it."""
    rows = measured(case, peers, ROUNDS)
    for kind, one in rows.items():
        if one.error:
            raise PeerError(f"{kind}: {one.error}")
    return rows


def compared(case: Case, peers: dict[str, Any], work: int, ceiling: float) -> Iterator[Line]:
    """The rows of one case as lines: it/s of each peer, times as fast as the first, share of the ceiling."""
    rows = _measured(case, peers)
    first = next(iter(rows.values()))
    for kind, one in rows.items():
        yield _speed_line(case, kind, one, first, work / one.seconds / ceiling)


def _speed_line(case: Case, kind: str, one: Row, first: Row, share: float) -> Line:
    ratio = first.seconds / one.seconds
    peak = f"peak {one.peak_bytes / GB:.2f} GB"
    note = f"{one.seconds:.3f} s, {ratio:.2f} times stock, {share:.0%} of the ceiling, {peak}"
    steps = case.steps or 1
    line = Line("speed", f"{case.name}: {kind}", steps / one.seconds, "it/s", note=note)
    if kind == PeerKind.ours and case.kind is CaseKind.picture and case.batch == 1:
        line.promised, line.kept = "2 times stock", ratio >= 2
    if kind == PeerKind.ours and case.kind is CaseKind.unet and case.batch > 1:
        line.promised, line.kept = "45% of the ceiling", share > 0.45
    return line


def recordings(models: Models, device: DeviceChoice, recorder: Recorder | None = None) -> Iterator[Line]:
    """Seconds to record a UNet for a size, and how far a repeated answer is from a plain one."""
    recorder = recorder or recorder_for(device.device, wanted=True)
    if recorder is None:
        raise ValueError("nothing can be recorded on this device")
    unet = _unet(models, "sd15", device)
    for share, batch in RECORDED:
        side = int(MODEL_SIDES["sd15"] * share)
        sample, t, named = _call_of(unet, Case(CaseKind.unet, side, batch), device)
        with torch.inference_mode():
            expected = plain(unet, sample, t, **named)
            recording = None

            def record(sample: Tensor = sample, t: Tensor = t, named: dict[str, Any] = named) -> None:
                nonlocal recording
                recording = recorder.record(lambda: plain(unet, sample, t, **named))

            seconds = cost(record, device.device).wall
            if recording is None:
                raise ValueError("the recorder gave nothing")
            recording.repeat()
            error = (recording.answer.float() - expected.float()).abs().max().item()
        note = f"{recording.nbytes / GB:.2f} GB, greatest difference to a plain call {error:.2g}"
        what = f"record {side}x{side}, batch {batch}"
        yield Line(
            "graphs",
            what,
            seconds,
            "s",
            f"under {RECORD_SECONDS} s, equal",
            seconds < RECORD_SECONDS and error < FAR_OFF,
            note,
        )


def waits(models: Models, device: DeviceChoice) -> Iterator[Line]:
    """How often 20 steps wait for the GPU, beyond what is allowed: a look for NaN at every eighth call."""
    name, side = models.name("sd15"), MODEL_SIDES["sd15"]
    with closing(_engine(models.paths, MemoryMode.normal, device.kind == "cpu")) as engine:
        picture(engine, name, side, STEPS)
        is_cuda = device.kind == "cuda"
        if is_cuda:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                picture(engine, name, side, STEPS)
        finally:
            if is_cuda:
                torch.cuda.set_sync_debug_mode("default")
    told = [str(one.filename).rpartition("/")[2] + f":{one.lineno}" for one in seen if "synchron" in str(one.message)]
    note = ", ".join(f"{place} {told.count(place)}" for place in dict.fromkeys(told))
    yield Line("waits", f"waits in a picture of {STEPS} steps, with its decode", len(told), "", note=note)


def job(models: Models, device: DeviceChoice) -> Iterator[Line]:
    """Where the time of a whole job goes, files included, what each further picture of it takes, and what a job takes
    once beside them. Its prompt is new, and its UNet recorded.
    """
    name, side = models.name("sd15"), MODEL_SIDES["sd15"]
    numbers = itertools.count()

    def made(engine: Engine, count: int) -> dict[str, float]:
        prompt = f"{PROMPT}, {next(numbers)}"
        return picture(engine, name, side, STEPS, prompt=prompt, batch_count=count, save=True).seconds

    with closing(_engine(models.paths, MemoryMode.normal, device.kind == "cpu")) as engine:
        made(engine, 1)
        one, several = (
            min((made(engine, count) for _ in range(ROUNDS)), key=lambda seconds: seconds["total"])
            for count in (1, IN_TURN)
        )
    for count, seconds in ((1, one), (IN_TURN, several)):
        parts = ", ".join(f"{part} {1e3 * took:.0f}" for part, took in seconds.items())
        yield Line("job", f"pictures in turn: {count}", seconds["total"], "s", note=f"milliseconds: {parts}")
    further = (several["total"] - one["total"]) / (IN_TURN - 1)
    yield Line("job", "each further picture", further, "s", note=f"{1e3 * (one['total'] - further):.0f} ms once a job")


def memory(models: Models, device: DeviceChoice) -> Iterator[Line]:
    """The peak of a picture in each memory mode, weights included, as torch counts what is in use.

    Each has a process of its own, for libraries keep memory for themselves, and more the more they were asked for. All
    of them start at once, since that takes longest.
    """
    with ExitStack() as stack:
        processes = {
            (family, mode): stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
            for family, limits in LIMITS_GB.items()
            for mode in limits
        }
        for process in processes.values():
            process.submit(import_libraries)
        for (family, mode), process in processes.items():
            limit, side = LIMITS_GB[family][mode], MODEL_SIDES[family]
            asked = (models.paths, models.name(family), side, mode, MEMORY_STEPS, device.kind == "cpu")
            peak, seconds = process.submit(peak_of, *asked).result()
            process.shutdown()
            what = f"{family} {side}x{side}, {mode}"
            note = f"{seconds:.2f} s a step"
            yield Line("memory", what, peak / GB, "GB", f"under {limit} GB", peak / GB < limit, note)


def peak_of(paths: Paths, checkpoint: str, side: int, mode: str, steps: int, cpu: bool) -> tuple[int, float]:
    """Bytes at the peak of two pictures in a process that did nothing before, and seconds a step of the second: in the
    first one weights are pinned, and it is learnt which layer follows which.
    """
    with closing(_engine(paths, MemoryMode(mode), cpu)) as engine:
        done = [picture(engine, checkpoint, side, steps) for _ in range(2)]
    return max(one.peak_memory for one in done), done[1].seconds["sample"] / steps


def attention(_models: Models, device: DeviceChoice) -> Iterator[Line]:
    """Every backend that passes its probe, on the shapes of the models."""
    backends: dict[str, Any] = {"sdpa": sdpa, "sliced": sliced}
    chosen = Attention(device.device, device.dtype, Backend.xformers)
    if chosen.name == "xformers":
        backends = {"xformers": chosen, **backends}
    generator = torch.Generator().manual_seed(0)
    for family, shapes in HEADS.items():
        for heads, tokens, width in shapes:
            for other in (tokens, PROMPT_TOKENS):
                q, k, v = (torch.randn(2, heads, n, width, generator=generator) for n in (tokens, other, other))
                q, k, v = (one.to(device.device, device.dtype) for one in (q, k, v))
                expected = sliced(q.float(), k.float(), v.float())
                for name, backend in backends.items():
                    yield _attention_line(name, backend, (q, k, v), expected, family, device)


def _attention_line(
    name: str, backend: Any, qkv: tuple[Tensor, Tensor, Tensor], expected: Tensor, family: str, device: DeviceChoice
) -> Line:
    with torch.inference_mode():
        error = (backend(*qkv).float() - expected).abs().max().item()
        seconds = min(cost(lambda: backend(*qkv), device.device).wall for _ in range(ROUNDS))
    _, heads, tokens, width = qkv[0].shape
    what = f"{family}, {heads} heads of {width}, {tokens} to {qkv[1].shape[2]}: {name}"
    return Line("attention", what, seconds * 1e3, "ms", f"error under {FAR_OFF}", error < FAR_OFF, f"error {error:.2g}")


def operations(models: Models, device: DeviceChoice) -> Iterator[Line]:
    """The kernels that take most of a UNet step, guided."""
    unet = _unet(models, "sd15", device)
    for batch in BATCHES:
        yield from _operations(unet, batch, device)


def _operations(unet: Any, batch: int, device: DeviceChoice) -> Iterator[Line]:
    sample, t, named = _call_of(unet, Case(CaseKind.unet, MODEL_SIDES["sd15"], batch), device)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.kind == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.inference_mode():
        plain(unet, sample, t, **named)
        with torch.profiler.profile(activities=kinds) as profile:
            plain(unet, sample, t, **named)
            if device.kind == "cuda":
                torch.cuda.synchronize(device.device)
    taken = {one.key: _own_time(one, device) for one in profile.key_averages()}
    total = sum(taken.values())
    for key, microseconds in sorted(taken.items(), key=lambda item: -item[1])[:15]:
        yield Line(
            "operations", f"batch {batch}: {key[:90]}", microseconds / 1e3, "ms", note=f"{microseconds / total:.1%}"
        )


def _own_time(one: Any, device: DeviceChoice) -> float:
    return float(one.self_device_time_total if device.kind == "cuda" else one.self_cpu_time_total)


def picture(engine: Engine, checkpoint: str, side: int, steps: int, **changed: Any) -> Finished:
    """One picture by the engine; `changed` params may ask for more. Raises RuntimeError with the engine's reason."""
    size = {"width": side, "height": side, "steps": steps, "seed": 1, "save": False, "sampler": "Euler"}
    for event in engine.generate(make_params({"prompt": PROMPT, "checkpoint": checkpoint, **size, **changed})):
        if isinstance(event, Failed):
            raise RuntimeError(event.error["message"])
        if isinstance(event, Finished):
            return event
    raise RuntimeError("the job did not end")


def _engine(paths: Paths, mode: MemoryMode, cpu: bool) -> Engine:
    values = {"device.memory": mode.value, "device.use_cpu": cpu, "preview.enabled": False}
    return Engine(stored.changed(Settings(), values), paths)


def _unet(models: Models, family: str, device: DeviceChoice) -> Any:
    import_libraries()
    plans, _ = planned(models.paths, models.name(family))
    unet = fill(plans.unet, Target(device.device, device.dtype))
    use_attention(unet, Attention(device.device, device.dtype))
    use_kernels(unet, kernels_for(device.device, device.dtype, wanted=True)[0])
    return unet


def _call_of(unet: Any, case: Case, device: DeviceChoice) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """A guided call of an SD1 UNet: (sample, timestep, the rest)."""
    x, prompts, _, _ = given(unet, case)
    sample = torch.cat((x, x)).to(device.device, device.dtype, memory_format=torch.channels_last)
    context = torch.cat([tokens.expand(case.batch, -1, -1) for tokens in prompts]).to(device.device, device.dtype)
    named = {"encoder_hidden_states": context, "timestep_cond": None, "added_cond_kwargs": None, "return_dict": False}
    return sample, torch.full((2 * case.batch,), 500.0, device=device.device), named


def row(line: Line) -> str:
    """A line of the table in Markdown."""
    kept = "" if line.kept is None else "yes" if line.kept else "**no**"
    figure = f"{line.value:.4g} {line.unit}".strip()
    return f"| {line.section} | {line.what} | {figure} | {line.promised} | {kept} | {line.note} |"


def markdown(report: Report) -> str:
    """The whole report as text."""
    machine = report.machine
    lines = [
        f"Latent WebUI {machine['product']} on {machine['name']} ({machine['precision']}), torch {machine['torch']}, "
        f"CUDA {machine['cuda']}, {machine['system']}",
        "",
        "| section | what | measured | promised | kept | |",
        "|---|---|---|---|---|---|",
        *(row(line) for line in report.lines),
        *(f"| {section} | | | | **failed** | {why} |" for section, why in report.missed.items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
