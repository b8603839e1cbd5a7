"""Write full-size SDXL, SDXL refiner or SD2 checkpoints with random weights: fp16, the published single-file layout.

    .venv/bin/python -m benchmarks.make_sdxl FOLDER [--family sdxl|sdxl-refiner|sd2]
    .venv/bin/python -m benchmarks.make_sdxl --measure [--family ...]

They make noise, not pictures; they are for measuring loading and memory. `--measure` writes the file into a temporary
folder, loads it in a process of its own, prints what that took, and removes it. SDXL has 6.9 GB, and as much memory is
needed to load it in another number format.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.make_sd15 import TEXT, UNET, VAE, Specs, make_tensor
from webui.engine.checkpoints.loader import meta_text_encoder, meta_unet, meta_vae
from webui.engine.files.dims import TextDims, UnetDims
from webui.engine.files.keys import text_names, text_part, unet_names, vae_names
from webui.engine.files.safefile import write_safetensors

REPO_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Layout:
    """The networks of a published family, as their configurations say."""

    unet: UnetDims
    texts: tuple[TextDims, ...]


_SDXL_UNET = replace(
    UNET,
    channels=(320, 640, 1280),
    depths=(0, 2, 10),
    heads=(5, 10, 20),
    mid_depth=10,
    context_dim=2048,
    linear=True,
    vector_dim=2816,
    size_dim=256,
)
_REFINER_UNET = replace(
    _SDXL_UNET,
    channels=(384, 768, 1536, 1536),
    depths=(0, 4, 4, 0),
    heads=(6, 12, 24, 24),
    mid_depth=4,
    context_dim=1280,
    vector_dim=2560,
)
_CLIP_L = replace(TEXT, prefix="conditioner.embedders.0.transformer.text_model.", trained_skip=2, normed=False)
_CLIP_G = TextDims(
    hidden_size=1280,
    intermediate_size=5120,
    layers=32,
    heads=20,
    positions=77,
    vocabulary=49408,
    activation="gelu",
    prefix="conditioner.embedders.1.model.",
    open_clip=True,
    projection=1280,
    trained_skip=2,
    normed=False,
    padding=0,
)
_CLIP_H = replace(
    _CLIP_G,
    hidden_size=1024,
    intermediate_size=4096,
    layers=23,
    heads=16,
    prefix="cond_stage_model.model.",
    projection=0,
    dropped=1,
    normed=True,
)
LAYOUTS: dict[str, Layout] = {
    "sdxl": Layout(_SDXL_UNET, (_CLIP_L, _CLIP_G)),
    "sdxl-refiner": Layout(_REFINER_UNET, (replace(_CLIP_G, prefix="conditioner.embedders.0.model."),)),
    "sd2": Layout(replace(UNET, heads=(5, 10, 20, 20), context_dim=1024, linear=True), (_CLIP_H,)),
}


def specs(family: str) -> Specs:
    """Name -> type and shape of every tensor of the published single file."""
    return {name: (torch.float16, shape) for name, shape in _shapes(LAYOUTS[family])}


def make(folder: Path, family: str, seed: int = 0) -> Path:
    """Write the file into `folder`; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    path, generator, wanted = (
        folder / f"random-{family}.safetensors",
        torch.Generator().manual_seed(seed),
        specs(family),
    )
    with path.open("wb") as file:
        write_safetensors(file, wanted, lambda name: make_tensor(name, wanted[name][1], generator), {"format": "pt"})
    return path


def _shapes(layout: Layout) -> Iterator[tuple[str, tuple[int, ...]]]:
    for parameter, tensor in meta_unet(layout.unet).state_dict().items():
        yield unet_names(parameter, layout.unet)[0], tuple(tensor.shape)
    for parameter, tensor in meta_vae(VAE).state_dict().items():
        name, shape = vae_names(parameter, VAE)[0], tuple(tensor.shape)
        yield name, (*shape, 1, 1) if ".attn_1." in name and len(shape) == 2 else shape
    for dims in layout.texts:
        yield from _text_shapes(replace(dims, layers=dims.layers + dims.dropped))


def _text_shapes(dims: TextDims) -> Iterator[tuple[str, tuple[int, ...]]]:
    seen = set()
    for parameter, tensor in meta_text_encoder(dims).state_dict().items():
        name, shape, part = text_names(parameter, dims)[0], tuple(tensor.shape), text_part(parameter, dims)
        if name not in seen:
            seen.add(name)
            yield name, (3 * shape[0], *shape[1:]) if part.third is not None else shape
    if dims.open_clip:
        yield f"{dims.prefix}logit_scale", ()
        if not dims.projection:
            yield f"{dims.prefix}text_projection", (dims.hidden_size, dims.hidden_size)


def load(path: Path) -> dict[str, float]:
    """Load it as a job does; MiB and seconds."""
    from webui.engine.checkpoints.loader import import_libraries
    from webui.engine.engine import Engine
    from webui.engine.memory.usage import PeakMeter, resident_set
    from webui.events import Failed, Loaded
    from webui.paths import Paths
    from webui.settings import Settings

    mib = 2**20
    paths = Paths.under(path.parent / "data", checkpoints=(path.parent,))
    paths.make_folders()
    engine = Engine(Settings(), paths)
    import_libraries()
    before, meter = resident_set(), PeakMeter(engine.device.device)
    seconds: dict[str, float] = {}
    for event in engine.load(path.name):
        if isinstance(event, Failed):
            raise SystemExit(event.error["message"])
        if isinstance(event, Loaded):
            seconds[event.what] = event.seconds["total"]
    checkpoint = next(iter(engine._tools.store._checkpoints.values()))
    return {
        "file_mib": path.stat().st_size / mib,
        "before_mib": before / mib,
        "peak_mib": meter.peak / mib,
        "after_mib": resident_set() / mib,
        "unused_tensors": float(len(checkpoint.unused)),
        **{f"load_{what}_s": value for what, value in seconds.items()},
    }


def measure(family: str) -> None:
    """Make the file, load it in a process of its own, print what that took, remove it."""
    folder = Path(tempfile.mkdtemp(prefix="sdxl-"))
    try:
        path = make(folder, family)
        command = [sys.executable, "-m", "benchmarks.make_sdxl", "--load", str(path)]
        print(subprocess.run(command, cwd=REPO_ROOT, check=True, capture_output=True, text=True).stdout.strip())
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where to write it; made if missing")
    parser.add_argument("--family", choices=sorted(LAYOUTS), default="sdxl")
    parser.add_argument("--measure", action="store_true", help="write, load, print and remove")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load:
        print(json.dumps(load(given.load)))
    elif given.measure:
        measure(given.family)
    elif given.folder:
        print(make(given.folder, given.family))
    else:
        parser.error("give a folder, or --measure")
