"""What a picture costs beside its networks: the processor's seconds of the engine, by part.

    .venv/bin/python -m benchmarks.overheads [--checkpoint NAME] [--side 128] [--steps 20] [--pictures 5]

Text encoder, UNet and VAE are timed by hooks around them; the rest is everything else that a job does, from its params
to its file: sampler, guidance, events, previews, PNG, checksum. Each run is done with and without live previews.
Processor seconds (user and system, all threads) hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from webui import settings as stored
from webui.catalog import Catalog
from webui.engine import Engine
from webui.events import Failed, Preview
from webui.params import make_params
from webui.paths import REPO_ROOT, Paths
from webui.settings import Settings

NETWORKS = ("text encoder", "UNet", "VAE")


class Meter:
    """Seconds of the processor by network, measured around its calls."""

    def __init__(self, networks: dict[str, Any]) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._started = 0.0
        self._handles = []
        for name, network in networks.items():
            self._handles.append(network.register_forward_pre_hook(self._begin))
            self._handles.append(network.register_forward_hook(self._ender(name)))

    def _begin(self, _network: Any, _inputs: Any) -> None:
        self._started = time.process_time()

    def _ender(self, name: str) -> Any:
        def end(_network: Any, _inputs: Any, _outputs: Any) -> None:
            self.seconds[name] += time.process_time() - self._started

        return end

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def main(words: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="", help="title, name or hash; the first one if not given")
    parser.add_argument("--data-dir", type=Path, default=REPO_ROOT, help="the folder of models/")
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=5)
    options = parser.parse_args(words)
    with closing(Catalog(Paths.under(options.data_dir))) as catalog:
        name = options.checkpoint or next(file.name for file in catalog.checkpoints if not file.reason)
    print(f"{'':<14}{'total':>9}" + "".join(f"{part:>14}" for part in (*NETWORKS, "the rest")) + f"{'share':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        kept = Paths.under(options.data_dir, outputs=Path(scratch))
        for previews in (False, True):
            seconds = measured(kept, name, options, previews=previews)
            rest = seconds["total"] - sum(seconds[part] for part in NETWORKS)
            figures = (*(seconds[part] for part in NETWORKS), rest)
            head = f"{'with previews' if previews else 'without':<14}{seconds['total']:>9.3f}"
            share = f"{rest / seconds['total']:>8.1%}"
            print(head + "".join(f"{one:>14.3f}" for one in figures) + share, flush=True)
    return 0


def measured(paths: Paths, checkpoint: str, options: argparse.Namespace, *, previews: bool) -> defaultdict[str, float]:
    """Seconds a picture: of each network, and "total"."""
    settings = stored.changed(Settings(), {"device.use_cpu": True, "preview.enabled": previews})
    wanted = {"prompt": "a red apple", "checkpoint": checkpoint, "steps": options.steps, "seed": 1, "sampler": "Euler"}
    wanted |= {"width": options.side, "height": options.side}
    with closing(Engine(settings, paths)) as engine:
        run(engine, wanted)
        loaded = next(iter(engine._tools.store._checkpoints.values()))
        networks = {"text encoder": loaded.text_encoder, "UNet": loaded.unet}
        if loaded.baked is not None:
            networks["VAE"] = loaded.baked.module.decoder
        with closing(Meter(networks)) as meter:
            started = time.process_time()
            shown = sum(run(engine, {**wanted, "prompt": f"apple {i}", "seed": i}) for i in range(options.pictures))
            meter.seconds["total"] = time.process_time() - started
    if previews:
        print(f"({shown / options.pictures:.1f} previews a picture)")
    return defaultdict(float, {part: seconds / options.pictures for part, seconds in meter.seconds.items()})


def run(engine: Engine, wanted: dict[str, Any]) -> int:
    """Make it; how many previews were shown."""
    shown = 0
    for event in engine.generate(make_params(wanted)):
        if isinstance(event, Failed):
            raise RuntimeError(event.error["message"])
        shown += isinstance(event, Preview)
    return shown


if __name__ == "__main__":
    torch.set_num_threads(1)  # threads that wait for each other would count as work
    sys.exit(main())
