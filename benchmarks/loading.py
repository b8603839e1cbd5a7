"""Loading and switching: how long, how much memory.

    .venv/bin/python -m benchmarks.loading [--checkpoint FILE] [--switches 30] [--json FILE]

Without `--checkpoint` a full-size SD1.5 file with random weights is made in a temporary folder and removed afterwards.
Each measurement runs in a process of its own with the file in the system's cache. The measures and their limits:

- load: at most 1.5 times reading the file into memory and converting its numbers to the target type;
- peak memory while loading, above what the process had before: at most the file in the target type plus 0.5 GB;
- switching back to a checkpoint that is still in memory: under 0.3 s;
- growth over thirty switches A-B-A, each with another VAE: under 200 MB.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPO_ROOT = Path(__file__).resolve().parent.parent
SMALL = REPO_ROOT / "models" / "Stable-diffusion"
MIB = 2**20
LIMITS = {"load_ratio": 1.5, "peak_over_target_mib": 512.0, "switch_back_s": 0.3, "growth_mib": 200.0}
REPEATS = 3


def baseline(path: Path) -> dict[str, float]:
    """Read the whole file into memory, then convert every tensor: what no loader of this file can avoid."""
    import torch

    from webui.engine.compute.device import choose_device
    from webui.engine.files.weights import Weights
    from webui.settings import DeviceSettings

    dtype = choose_device(DeviceSettings()).dtype
    header = Weights(path).header
    started = time.perf_counter()
    data = bytearray(header.file_size)
    with path.open("rb") as file:
        file.readinto(data)
    read = time.perf_counter()
    kept = []
    for name, info in header.tensors.items():
        if info.dtype == "F16":
            start, end = header.byte_range(name)
            tensor = torch.frombuffer(data, dtype=torch.float16, count=(end - start) // 2, offset=start)
            kept.append(tensor.to(dtype))
    converted = time.perf_counter()
    target = sum(t.nbytes for t in kept)
    return {"read_s": read - started, "convert_s": converted - read, "target_mib": target / MIB}


def load(path: Path) -> dict[str, float]:
    """Load the checkpoint with its VAE, the way a job does, imports and hash not counted."""
    from webui.engine.memory.usage import PeakMeter, resident_set

    with engine(path) as (run, device):
        run("--imports-only")
        before = resident_set()
        meter = PeakMeter(device)
        seconds = run(path.name)
        return {
            "load_s": seconds,
            "before_mib": before / MIB,
            "peak_mib": meter.peak / MIB,
            "after_mib": resident_set() / MIB,
        }


def switch_back(path: Path) -> dict[str, float]:
    """Two checkpoints in memory; how long from one to the other."""
    with engine(path, keep=2) as (run, _):
        run(path.name)
        run("small.safetensors")
        times = [run(name) for _ in range(5) for name in (path.name, "small.safetensors")]
        return {"switch_back_s": max(times), "median_s": statistics.median(times)}


def growth(path: Path, switches: int) -> dict[str, float]:
    """Checkpoint A, B, A, ... with one in memory, each time with another VAE."""
    from webui.engine.memory.usage import resident_set

    with engine(path) as (run, _):
        vaes = ("one.safetensors", "Automatic", "two.safetensors")
        names = ("small.safetensors", path.name)

        def switch(i: int) -> None:
            run(names[i % 2], vaes[i % 3] if i % 2 == 0 else "Automatic")

        for i in range(6):  # every combination once
            switch(i)
        sizes = []
        for i in range(switches):
            switch(i)
            if i % 2 == 0:  # with the small one loaded
                sizes.append(resident_set())
        return {"growth_mib": (sizes[-1] - sizes[0]) / MIB, "largest_mib": max(sizes) / MIB}


@contextmanager
def engine(path: Path, keep: int = 1) -> Iterator[tuple[Callable[..., float], Any]]:
    """A function that loads a checkpoint (and VAE) by name and tells the seconds, in a data folder of its own."""
    from webui.engine.checkpoints.loader import import_libraries
    from webui.engine.engine import Engine
    from webui.engine.files.dims import VAE_PREFIX
    from webui.engine.files.safefile import write_safetensors
    from webui.engine.files.weights import Weights
    from webui.errors import EngineFault
    from webui.events import Failed, Loaded
    from webui.paths import Paths
    from webui.settings import Settings, changed

    root = Path(tempfile.mkdtemp(prefix="loading-"))
    paths = Paths.under(root, checkpoints=(path.parent,))
    paths.make_folders()
    small = next(SMALL.glob("*.safetensors"))
    for source in (small, small.with_suffix(".yaml")):
        if source.exists():
            shutil.copyfile(source, paths.checkpoints[-1] / f"small{source.suffix}")
    weights = Weights(small)
    names = [name for name in weights.tensors if name.startswith(VAE_PREFIX)]
    specs = {name: (weights.dtype(name), weights.tensors[name].shape) for name in names}
    for vae in ("one", "two"):
        with (paths.vaes[0] / f"{vae}.safetensors").open("wb") as file:
            write_safetensors(file, specs, weights.tensor, weights.metadata)
    running = Engine(changed(Settings(), {"model.checkpoints_in_memory": keep}), paths)

    def run(checkpoint: str, vae: str = "Automatic") -> float:
        if checkpoint == "--imports-only":
            import_libraries()
            return 0.0
        started, hashing = time.perf_counter(), 0.0
        for event in running.load(checkpoint, vae):
            if isinstance(event, Failed):
                raise EngineFault(str(event.error))
            if isinstance(event, Loaded):
                hashing += event.seconds.get("calculate hash", 0.0)
        return time.perf_counter() - started - hashing

    try:
        yield run, running.device.device
    finally:
        running.close()
        shutil.rmtree(root)


def _child(connection: Any, function: Callable[..., dict[str, float]], arguments: tuple[Any, ...]) -> None:
    connection.send(function(*arguments))


def apart(function: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Run a measurement in a fresh process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_child, args=(there, function, arguments))
    process.start()
    there.close()
    try:
        result: dict[str, float] = here.recv()
    except EOFError:
        raise SystemExit(f"{function.__name__} failed; see above") from None
    process.join()
    return result


def measure(path: Path, switches: int) -> dict[str, float]:
    """All measurements of one file; the fastest of each kind of run counts, for other programs only ever slow it."""
    with path.open("rb") as file:  # into the system's cache
        while file.read(64 * MIB):
            pass
    baselines, loads = [], []
    for _ in range(REPEATS):
        baselines.append(apart(baseline, path))
        loads.append(apart(load, path))
    best = min(baselines, key=lambda r: r["read_s"] + r["convert_s"])
    fastest = min(loads, key=lambda r: r["load_s"])
    peak = max(r["peak_mib"] - r["before_mib"] for r in loads)
    back, grown = apart(switch_back, path), apart(growth, path, switches)
    return {
        "file_mib": path.stat().st_size / MIB,
        "target_mib": best["target_mib"],
        "read_s": best["read_s"],
        "convert_s": best["convert_s"],
        "load_s": fastest["load_s"],
        "load_ratio": fastest["load_s"] / (best["read_s"] + best["convert_s"]),
        "before_mib": fastest["before_mib"],
        "peak_mib": max(r["peak_mib"] for r in loads),
        "peak_over_target_mib": peak - best["target_mib"],
        "after_mib": fastest["after_mib"],
        "switch_back_s": back["switch_back_s"],
        "growth_mib": grown["growth_mib"],
        "largest_mib": grown["largest_mib"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a .safetensors checkpoint (SD1 family)")
    parser.add_argument("--switches", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write the numbers to this file, too")
    options = parser.parse_args()
    made = None if options.checkpoint else Path(tempfile.mkdtemp(prefix="sd15-"))
    try:
        if made:
            from benchmarks.make_sd15 import make

            print("making a full-size SD1.5 checkpoint with random weights ...", flush=True)
            results = measure(make(made), options.switches)
        else:
            results = measure(options.checkpoint.resolve(), options.switches)
    finally:
        if made:
            shutil.rmtree(made)
    for name, value in results.items():
        limit = LIMITS.get(name)
        verdict = "" if limit is None else f"  (limit {limit:g}: {'ok' if value <= limit else 'MISSED'})"
        print(f"{name:22} {value:10.3f}{verdict}")
    text = json.dumps({name: round(value, 4) for name, value in results.items()})
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0 if all(results[name] <= limit for name, limit in LIMITS.items()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
