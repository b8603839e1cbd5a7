"""A LoRA for every attention and feed-forward layer of a full-size SD1.5, on mapped fp16 weights: time and memory.

    .venv/bin/python -m benchmarks.lora FOLDER [--rank 32]

FOLDER is where `benchmarks.make_sd15` wrote its checkpoint; the LoRA (36 MB at rank 32) is written beside it. Seconds
are for the whole set on UNet and text encoder; memory is what the process holds beyond the mapped files.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.make_sd15 import NAME, TEXT, UNET
from webui.engine.checkpoints.loader import Target, fill, import_libraries, plan_text_encoder, plan_unet
from webui.engine.files.safefile import write_safetensors
from webui.engine.files.weights import Weights
from webui.engine.networks.lora import CheckpointAdapters, Strength
from webui.engine.networks.lora_file import LoraFile

LORA = "random-lora.safetensors"
UNET_LAYERS = (".to_q", ".to_k", ".to_v", ".to_out.0", ".net.0.proj", ".net.2", ".proj_in", ".proj_out")
TEXT_LAYERS = (".q_proj", ".k_proj", ".v_proj", ".out_proj", ".fc1", ".fc2")


def layers(networks: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """kohya's names, and the layers."""
    for network, prefix, ends in (("unet", "lora_unet_", UNET_LAYERS), ("te1", "lora_te_text_model_", TEXT_LAYERS)):
        for path, layer in networks[network].named_modules():
            if path.endswith(ends):
                yield prefix + path.removeprefix("text_model.").replace(".", "_"), layer


def write_lora(networks: dict[str, Any], path: Path, rank: int) -> None:
    generator = torch.Generator().manual_seed(1)
    specs: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for name, layer in layers(networks):
        kernel = tuple(layer.weight.shape[2:])
        specs[f"{name}.lora_up.weight"] = (torch.float16, (layer.weight.shape[0], rank, *([1] * len(kernel))))
        specs[f"{name}.lora_down.weight"] = (torch.float16, (rank, layer.weight.shape[1], *kernel))
        specs[f"{name}.alpha"] = (torch.float16, ())

    def tensor(name: str) -> Tensor:
        _, shape = specs[name]
        if not shape:
            return torch.tensor(float(rank), dtype=torch.float16)
        return (torch.randn(shape, generator=generator) * 0.02).half()

    with path.open("wb") as file:
        write_safetensors(file, specs, tensor, {"format": "pt"})


def anonymous_memory() -> int:
    """What the process holds besides mapped files, in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def sums(networks: dict[str, Any]) -> dict[str, int]:
    """A checksum of every parameter."""
    return {
        f"{network}.{name}": int(p.data.view(torch.int16).long().sum())
        for network, module in networks.items()
        for name, p in module.named_parameters()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rank", type=int, default=32)
    arguments = parser.parse_args()
    import_libraries()
    weights = Weights(arguments.folder / NAME)
    target = Target(torch.device("cpu"), torch.float16, channels_last=False)
    networks = {
        "unet": fill(plan_unet(weights, UNET), target),
        "te1": fill(plan_text_encoder(weights, TEXT), target),
    }
    path = arguments.folder / LORA
    write_lora(networks, path, arguments.rank)
    before, start = sums(networks), anonymous_memory()
    adapters, file = CheckpointAdapters(networks, target.device), LoraFile(Weights(path))

    def use(what: str, *strengths: Strength) -> None:
        started = time.perf_counter()
        for network in networks:
            adapters.use(network, strengths)
        seconds = time.perf_counter() - started
        print(f"{what:34} {seconds:8.3f} s  {(anonymous_memory() - start) / 2**20:8.0f} MiB beyond the files")

    print(f"{adapters.places(file)} layers, LoRA of {path.stat().st_size / 2**20:.0f} MiB at rank {arguments.rank}")
    use("on, first time", Strength(file, 1.0))
    use("on, as it is", Strength(file, 1.0))
    use("another weight", Strength(file, 0.8))
    use("the first weight again", Strength(file, 1.0))
    use("off")
    print("weights as before, every one" if sums(networks) == before else "WEIGHTS CHANGED")


if __name__ == "__main__":
    main()
