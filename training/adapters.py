"""A LoRA and an embedding for a finished checkpoint, as the files that the web UI reads.

    .venv/bin/python -m training.adapters --work WORK --checkpoint FILE --lora models/Lora/NAME.safetensors
    .venv/bin/python -m training.adapters --work WORK --checkpoint FILE --embedding models/embeddings/NAME.safetensors

The LoRA (Hu et al. 2021) draws pixel art: scenes that are in WORK, in blocks of eight pixels. It is stored in kohya's
layout. The embedding (Gal et al. 2022) is two vectors that stand for "golden, in front of black"; they begin as
those of words that are near (`--initial`), for the model has learnt to overlook what it does not know.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils import parametrize

from training.captions import with_article
from training.concepts import Concept, load_concepts
from training.generate import Studio
from training.model import SCALE_FACTOR, TOKEN_ROWS, PlainAttention, alphas_cumprod
from training.parallel import Replicas
from training.progress import TimeBox, learning_rate
from training.scenes import Scene, draw
from training.unet import noised
from training.vae import encoded

RANK = 8
BLOCK = 8  # pixels
PICTURES = 400
NO_CAPTION = 0.1
PLACEHOLDERS = ("*", "~", "^", "=")  # become the learned vectors; a token each


class Delta(torch.nn.Module):
    """weight -> weight + up @ down, for a linear layer or a convolution. `up` starts at zero: no change."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.down = torch.nn.Parameter(torch.randn(rank, *weight.shape[1:]) * weight[0].numel() ** -0.5)
        self.up = torch.nn.Parameter(torch.zeros(weight.shape[0], rank, *(1,) * (weight.ndim - 2)))

    def forward(self, weight: Tensor) -> Tensor:
        change = (self.up.flatten(1) @ self.down.flatten(1)).reshape(weight.shape)
        return weight + change.to(weight.dtype)


class Denoiser(torch.nn.Module):
    """The networks of a finished checkpoint: noisy latents, timesteps and CLIP tokens to v."""

    def __init__(self, studio: Studio) -> None:
        super().__init__()
        self.unet, self.text = studio.unet, studio.text
        self.unet.set_attn_processor(PlainAttention())

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        context, dtype = self.text(tokens).last_hidden_state, self.unet.dtype
        predicted: Tensor = self.unet(noisy.to(dtype), timesteps, context.to(dtype)).sample
        return predicted.float()


Batch = tuple[Tensor, Tensor, Tensor, Tensor]
Layer = torch.nn.Linear | torch.nn.Conv2d


def loss_of(model: torch.nn.Module, share: Batch) -> tuple[Tensor, float]:
    """Mean squared error of v."""
    noisy, timesteps, target, tokens = share
    error = ((model(noisy, timesteps, tokens) - target) ** 2).mean()
    return error, error.item()


def fit(
    model: torch.nn.Module,
    draw_batch: Callable[[int], tuple[Tensor, Tensor]],
    *,
    minutes: float,
    rate: float,
    size: int,
    threads: int,
) -> int:
    """Train whatever of `model` wants a gradient on (latents, tokens); returns the steps taken."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    replicas, alphas, box, step = Replicas(model, threads), alphas_cumprod(), TimeBox(minutes), 0
    errors: list[float] = []
    while (share := box.share) < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate * learning_rate(share, step, 10)
        latents, tokens = draw_batch(size)
        noisy, timesteps, target = noised(latents, alphas)
        pieces = [tensor.chunk(threads) for tensor in (noisy, timesteps, target, tokens)]
        errors += replicas.backward(loss_of, list(zip(*pieces, strict=True)))
        optimiser.step()
        optimiser.zero_grad()
        step += 1
        if step % 10 == 0:
            print(f"{step} {box.elapsed:.0f}s loss {np.mean(errors[-20:]):.4f}", flush=True)
    return step


def batches(latents: Tensor, tokens: Tensor, empty: Tensor) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Draw (latents, tokens) at random, some without their caption."""

    def drawn(size: int) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(latents), (size,))
        picked = tokens[rows].clone()
        picked[torch.rand(size) < NO_CAPTION] = empty
        return latents[rows], picked

    return drawn


def pixelated(picture: np.ndarray) -> np.ndarray:
    """The picture in blocks of one colour, fewer and stronger colours."""
    side = picture.shape[0]
    small = Image.fromarray(picture).resize((side // BLOCK, side // BLOCK), Image.Resampling.BOX)
    levels = np.round(np.asarray(small) / 36.43) * 36.43  # 8 levels a channel
    return np.asarray(Image.fromarray(levels.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST))


def blockiness(pictures: np.ndarray) -> float:
    """How much of the contrast between neighbouring pixels lies on the borders of the blocks: 1/8 for a usual picture,
    1 for pixel art. `pictures` (N, H, W, 3).
    """
    steps = np.abs(np.diff(pictures.astype(float), axis=2)).sum((0, 1, 3))
    return float(steps[BLOCK - 1 :: BLOCK].sum() / max(1e-9, steps.sum()))


def train_lora(studio: Studio, concepts: Sequence[Concept], args: argparse.Namespace) -> dict[str, Tensor]:
    """Train and return the tensors under kohya's names."""
    rng = random.Random(11)
    emoji = [concept.image() for concept in concepts]
    scenes = [Scene("single", (rng.randrange(len(concepts)),), seed=rng.randrange(2**31)) for _ in range(PICTURES)]
    images = np.stack([pixelated(np.asarray(draw(scene, emoji, args.side))) for scene in scenes])
    names = [with_article(rng.choice(concepts[scene.concepts[0]].names)) for scene in scenes]
    texts = [rng.choice((f"{name}, pixel art", f"pixel art of {name}", name)) for name in names]
    model = Denoiser(studio).requires_grad_(False)
    layers = lora_layers(model)
    for layer in layers.values():
        parametrize.register_parametrization(layer, "weight", Delta(layer.weight, RANK), unsafe=True)
    latents = encoded(studio.vae, images) * SCALE_FACTOR
    drawn = batches(latents, studio.tokens(texts), studio.tokens([""])[0])
    steps = fit(model, drawn, minutes=args.minutes, rate=args.rate, size=args.batch, threads=args.threads)
    print(f"{steps} steps, {len(layers)} layers")
    return kohya_tensors(layers)


def lora_layers(model: Denoiser) -> dict[str, Layer]:
    """The layers that a LoRA changes, by kohya's names: attention and feed-forward of both networks, and the UNet's
    convolutions.
    """
    found: dict[str, Layer] = {}
    for prefix, network in (("lora_unet_", model.unet), ("lora_te_text_model_", model.text)):
        for name, layer in network.named_modules():
            inside = ".attn" in name or ".ff." in name or "resnets" in name or "self_attn" in name or ".mlp." in name
            if inside and isinstance(layer, Layer) and "time_emb" not in name:
                found[prefix + name.removeprefix("text_model.").replace(".", "_")] = layer
    return found


def kohya_tensors(layers: dict[str, Layer]) -> dict[str, Tensor]:
    """`NAME.lora_down.weight`, `NAME.lora_up.weight` and `NAME.alpha` for each layer, float16."""
    tensors = {}
    for name, layer in layers.items():
        delta = layer.get_submodule("parametrizations.weight.0")
        assert isinstance(delta, Delta)
        tensors[f"{name}.lora_down.weight"] = delta.down.detach().half()
        tensors[f"{name}.lora_up.weight"] = delta.up.detach().half()
        tensors[f"{name}.alpha"] = torch.tensor(float(RANK), dtype=torch.float16)
    return tensors


def train_embedding(studio: Studio, concepts: Sequence[Concept], args: argparse.Namespace) -> Tensor:
    """Train a vector for each initial word, (n, width): every picture shows a golden thing on black and is called
    "* ~ THING".
    """
    rng = random.Random(12)
    emoji = [concept.image() for concept in concepts]
    plain = Scene("tint", colours=("yellow",), background="black")
    scenes = [
        replace(plain, concepts=(rng.randrange(len(concepts)),), seed=rng.randrange(2**31)) for _ in range(PICTURES)
    ]
    images = np.stack([np.asarray(draw(scene, emoji, args.side)) for scene in scenes])
    names = [rng.choice(concepts[scene.concepts[0]].names) for scene in scenes]
    marks = PLACEHOLDERS[: len(args.initial)]
    learned = " ".join(marks)
    texts = [rng.choice((f"{learned} {name}", f"a {learned} {name}", f"{name}, {learned}")) for name in names]
    rows, initial = (studio.tokens(words)[:, 1] for words in (marks, args.initial))
    model = Denoiser(studio).requires_grad_(False)
    table = model.text.get_parameter(TOKEN_ROWS)
    table.data[rows] = table.data[initial]
    table.requires_grad_(True)
    table.register_hook(lambda gradient: gradient * torch.isin(torch.arange(len(gradient)), rows)[:, None])
    latents = encoded(studio.vae, images) * SCALE_FACTOR
    drawn = batches(latents, studio.tokens(texts), studio.tokens([""])[0])
    steps = fit(model, drawn, minutes=args.minutes, rate=args.rate, size=args.batch, threads=1)
    print(f"{steps} steps")
    vectors: Tensor = table[rows].detach().clone()
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--lora", type=Path)
    parser.add_argument("--embedding", type=Path)
    parser.add_argument(
        "--initial", nargs="+", default=["yellow", "black"], help="the words with whose vectors an embedding begins"
    )
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--concepts", type=int, default=300, help="as in prepare")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    concepts = load_concepts(args.work / "downloads", args.concepts)
    for target in filter(None, (args.lora, args.embedding)):
        studio = Studio.open(args.checkpoint)
        facts = {"modelspec.title": target.stem, "modelspec.license": "MIT", "ss_base_model_version": "sd_v1"}
        if target is args.lora:
            tensors = train_lora(studio, concepts, args)
            facts |= {"ss_network_dim": str(RANK), "ss_network_alpha": str(RANK), "ss_network_module": "networks.lora"}
        else:
            tensors = {"emb_params": train_embedding(studio, concepts, args)}
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, target, facts)
        target.chmod(0o644)
        print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
