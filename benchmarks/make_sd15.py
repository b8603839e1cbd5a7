"""Write a full-size SD1.5 checkpoint with random weights: fp16, CompVis layout, 2.1 GB, one tensor in memory at a time.

    .venv/bin/python -m benchmarks.make_sd15 FOLDER

It makes noise, not pictures; it is for measuring loading, memory and speed. Names and shapes come from the networks
themselves and the loader's own table of names.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from webui.engine.checkpoints.loader import meta_text_encoder, meta_unet, meta_vae
from webui.engine.files.dims import TextDims, UnetDims, VaeDims
from webui.engine.files.keys import text_names, unet_names, vae_names
from webui.engine.files.safefile import write_safetensors

NAME = "random-sd15.safetensors"
UNET = UnetDims(
    in_channels=4,
    out_channels=4,
    channels=(320, 640, 1280, 1280),
    depths=(1, 1, 1, 0),
    heads=(8, 8, 8, 8),
    layers=2,
    mid_depth=1,
    context_dim=768,
    linear=False,
    groups=32,
    ldm=True,
)
VAE = VaeDims(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    channels=(128, 256, 512, 512),
    layers=2,
    groups=32,
    quant_convs=True,
    ldm=True,
    prefix="first_stage_model.",
)
TEXT = TextDims(
    hidden_size=768,
    intermediate_size=3072,
    layers=12,
    heads=12,
    positions=77,
    vocabulary=49408,
    activation="quick_gelu",
    prefix="cond_stage_model.transformer.text_model.",
)
SPREAD = 0.02  # standard deviation of the random weights

Specs = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def specs() -> Specs:
    """Name -> type and shape of every tensor of the checkpoint."""
    return {name: (torch.float16, shape) for name, shape in _tensors()}


def make_tensor(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Norms at 1, biases at 0, the rest normal: activations stay finite in fp16."""
    if name.endswith(".bias"):
        return torch.zeros(shape, dtype=torch.float16)
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.float16)
    return (torch.randn(shape, generator=generator) * SPREAD).half()


def make(folder: Path, seed: int = 0) -> Path:
    """Write the file into `folder`; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    path, generator, wanted = folder / NAME, torch.Generator().manual_seed(seed), specs()
    with path.open("wb") as file:
        write_safetensors(file, wanted, lambda name: make_tensor(name, wanted[name][1], generator), {"format": "pt"})
    return path


def _tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    networks: tuple[tuple[torch.nn.Module, Callable[[str], tuple[str, ...]]], ...] = (
        (meta_unet(UNET), lambda p: unet_names(p, UNET)),
        (meta_vae(VAE), lambda p: vae_names(p, VAE)),
        (meta_text_encoder(TEXT), lambda p: text_names(p, TEXT)),
    )
    for module, names in networks:
        for parameter, tensor in module.state_dict().items():
            name, shape = names(parameter)[0], tuple(tensor.shape)
            if name.startswith(VAE.prefix) and ".attn_1." in name and len(shape) == 2:
                shape = (*shape, 1, 1)  # in LDM these are 1x1 convolutions
            yield name, shape


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write it; made if missing")
    print(make(parser.parse_args().folder))
