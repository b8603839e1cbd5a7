"""LoRAs, embeddings and hypernetworks that fit the embedded model whatever its size, with random numbers in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from webui.engine import Engine


def loaded(engine: Engine) -> Any:
    """The embedded checkpoint as the engine has it in memory."""
    store = engine._tools.store
    file = engine._tools.catalog.checkpoints[0]
    with torch.inference_mode():
        return store.checkpoint(file, lambda _event: None)


def lora_tensors(checkpoint: Any, *, seed: int = 1, size: float = 0.3, rank: int = 4) -> dict[str, Tensor]:
    """A LoRA in kohya's names for every attention of the UNet and every text encoder layer."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}

    def pair(name: str, weight: Tensor) -> None:
        tensors[f"{name}.lora_up.weight"] = torch.randn(weight.shape[0], rank, generator=generator) * size
        tensors[f"{name}.lora_down.weight"] = torch.randn(rank, weight.shape[1], generator=generator) * size
        tensors[f"{name}.alpha"] = torch.tensor(float(rank))

    for path, layer in checkpoint.unet.named_modules():
        if path.endswith((".to_q", ".to_k", ".to_v")):
            pair(f"lora_unet_{path.replace('.', '_')}", layer.weight)
    for path, layer in checkpoint.text_encoder.named_modules():
        if path.endswith(("fc1", "fc2")):
            pair(f"lora_te_text_model_{path.removeprefix('text_model.').replace('.', '_')}", layer.weight)
    return tensors


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


def write_lora(engine: Engine, name: str = "film", metadata: dict[str, str] | None = None, **options: Any) -> Path:
    """models/Lora/NAME.safetensors for the embedded model."""
    folder = engine._tools.paths.loras[-1]
    path = write(folder / f"{name}.safetensors", lora_tensors(loaded(engine), **options), metadata)
    notice(engine)
    return path


def notice(engine: Engine) -> None:
    """Have the engine look at its folders: by itself it does so for an unknown name every two seconds at most."""
    engine._tools.catalog.refresh()


def vectors(checkpoint: Any, count: int = 2, seed: int = 2) -> Tensor:
    """(count, width) vectors of the size that the text encoder's own ones have."""
    table = checkpoint.text_encoder.get_input_embeddings().weight.float()
    return torch.randn(count, table.shape[1], generator=torch.Generator().manual_seed(seed)) * table.std() * 4


def write_embedding(engine: Engine, name: str = "badhands", **options: Any) -> Path:
    """models/embeddings/NAME.safetensors for the embedded model."""
    folder = engine._tools.paths.embeddings[-1]
    return write(folder / f"{name}.safetensors", {"emb_params": vectors(loaded(engine), **options)})
