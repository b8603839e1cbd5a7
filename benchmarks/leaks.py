"""Whether anything stays behind: pictures made one after the other, with another checkpoint, LoRA and VAE each time.

    .venv/bin/python -m benchmarks.leaks [--switches 100] [--pictures 500] [--side 64]

The embedded model under two names, its VAE as a file of its own and a LoRA of random numbers take turns, in the default
precision of this machine. First `--switches` pictures with a switch before each, then `--pictures` with the last set.
After a warm-up, memory may grow by 5 % (F11, F12 of the catalogue of faults), open files, threads, tensors and networks
by none at all. The exit code is 1 where that does not hold.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.lora import write_lora
from webui.engine import Engine
from webui.engine.files.safefile import write_safetensors
from webui.engine.files.weights import Weights
from webui.engine.memory.usage import resident_set, trim
from webui.engine.networks.library import networks_of
from webui.events import Finished
from webui.params import GenerationParams, make_params
from webui.paths import REPO_ROOT, Paths
from webui.settings import Settings

NAMES, VAE, LORA = ("first", "second"), "own-vae", "film"
ROUND = 4  # pictures until checkpoint, LoRA and VAE are together what they were at first
PREFIX = "first_stage_model."
GROWTH = 1.05


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process holds after so many pictures, with nothing running."""

    pictures: int
    resident: int  # bytes
    files: int  # open
    mapped: int  # model files in the address space
    threads: int
    tensors: int
    networks: int  # UNets that are alive

    def leaks(self, before: Sample, growth: float = GROWTH) -> list[str]:
        """What is more than it was; an empty list where all is well."""
        more = [
            f"{now - then} more {what}"
            for what, now, then in (
                ("open files", self.files, before.files),
                ("mapped files", self.mapped, before.mapped),
                ("threads", self.threads, before.threads),
                ("tensors", self.tensors, before.tensors),
                ("networks", self.networks, before.networks),
            )
            if now > then
        ]
        if self.resident > growth * before.resident:
            more.append(f"{(self.resident - before.resident) / 2**20:.0f} MiB more memory")
        return more


def sampled(pictures: int) -> Sample:
    """Now, once everything that nobody refers to is gone."""
    gc.collect()
    trim()
    tensors = networks = 0
    for thing in gc.get_objects():
        tensors += issubclass(type(thing), torch.Tensor)  # asks no object for its class: some answer with a warning
        networks += type(thing).__name__ == "UNet2DConditionModel"
    maps = Path("/proc/self/maps").read_text().splitlines()
    return Sample(
        pictures,
        resident_set(),
        len(list(Path("/proc/self/fd").iterdir())),
        sum(line.endswith(".safetensors") for line in maps),
        len(list(Path("/proc/self/task").iterdir())),
        tensors,
        networks,
    )


def write_models(root: Path, checkpoint: Path) -> None:
    """The checkpoint under two names, and its VAE as a file of its own."""
    folder = root / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    for name in NAMES:
        for file in (checkpoint, checkpoint.with_suffix(".yaml")):
            if file.exists():
                shutil.copyfile(file, folder / f"{name}{file.suffix}")
    weights = Weights(checkpoint)
    specs = {
        name.removeprefix(PREFIX): (weights.tensor(name).dtype, tuple(weights.tensor(name).shape))
        for name in weights.tensors
        if name.startswith(PREFIX)
    }
    target = root / "models" / "VAE" / f"{VAE}.safetensors"
    target.parent.mkdir(parents=True)
    with target.open("wb") as out:
        write_safetensors(out, specs, lambda name: weights.tensor(PREFIX + name), {"format": "pt"})


def add_lora(engine: Engine, root: Path) -> None:
    """A LoRA that fits the loaded model."""
    folder = root / "models" / "Lora"
    folder.mkdir(parents=True, exist_ok=True)
    list(engine.load(NAMES[0]))
    write_lora(networks_of(engine._tools.store.checkpoints[-1]), folder / f"{LORA}.safetensors", rank=4)
    engine._tools.catalog.refresh()


def switching(side: int) -> Iterator[GenerationParams]:
    """One picture each, always with another checkpoint, every second time with LoRA or VAE on or off."""
    for number in itertools.count():
        prompt = f"a red apple <lora:{LORA}:0.5>" if number % ROUND in (1, 2) else "a red apple"
        yield make_params(
            {
                "prompt": prompt,
                "checkpoint": NAMES[number % 2],
                "vae": f"{VAE}.safetensors" if number // 2 % 2 else "Automatic",
                "width": side,
                "height": side,
                "steps": 1,
                "seed": number,
                "sampler": "Euler",
            }
        )


def soak(engine: Engine, jobs: Iterable[GenerationParams], every: int) -> Iterator[Sample]:
    """Do the jobs; a sample before the first and after each `every` of them."""
    done = 0
    yield sampled(done)
    for params in jobs:
        last = list(engine.generate(params))[-1]
        if not isinstance(last, Finished):
            raise RuntimeError(f"a job failed: {last}")
        done += 1
        if done % every == 0:
            yield sampled(done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--switches", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--checkpoint", type=Path, default=None)
    arguments = parser.parse_args()
    checkpoint = arguments.checkpoint or next((REPO_ROOT / "models" / "Stable-diffusion").glob("*.safetensors"))
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_models(root, checkpoint)
        paths = Paths.under(root)
        paths.make_folders()
        engine = Engine(Settings(), paths)
        add_lora(engine, root)
        jobs = switching(arguments.side)
        same = next(itertools.islice(switching(arguments.side), 2, None))
        for what, count, wanted in (
            ("with a switch before each", arguments.switches, jobs),
            ("alike", arguments.pictures, itertools.repeat(same)),
        ):
            every = max(ROUND, count // 10 // ROUND * ROUND)
            list(soak(engine, itertools.islice(wanted, 5 * ROUND), ROUND))  # every set several times
            samples = list(soak(engine, itertools.islice(wanted, count), every))
            print(f"\n{count} pictures, {what}\n{'pictures':>9}{'MiB':>9}{'files':>7}{'threads':>9}{'tensors':>9}")
            for one in samples:
                print(f"{one.pictures:9}{one.resident / 2**20:9.1f}{one.files:7}{one.threads:9}{one.tensors:9}")
            found += samples[-1].leaks(samples[0])
        engine.close()
    print("\n" + ("; ".join(found) if found else "Nothing stays behind."))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
