"""Command 2: the autoencoder. Pixels (B, 3, H, W) in -1..1 <-> latents (B, 4, H/8, W/8).

    python -m training.vae --work WORK --minutes 15            # the VAE
    python -m training.vae --work WORK --minutes 8 --decoder   # its decoder only, with MSE: the second VAE

The first writes WORK/vae.pt, the second reads it and writes WORK/vae_ft_mse.pt. Each resumes when its file is there.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from training.muon import Muon, split
from training.parallel import Replicas
from training.progress import TimeBox, learning_rate, save, set_rate
from training.warm_start import warm_start

CHANNELS = (64, 64, 128, 128)
CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": CHANNELS,
    "norm_num_groups": 32,
    "sample_size": 128,
    "down_block_types": ("DownEncoderBlock2D",) * len(CHANNELS),
    "up_block_types": ("UpDecoderBlock2D",) * len(CHANNELS),
}
CROP = 64
WHOLE_EVERY = 6  # steps: the middle attention has to see whole pictures, too
KL_WEIGHT = 2e-4
WARM_UP = 40
SAVE_EVERY = 120  # seconds


def new_vae() -> AutoencoderKL:
    """Untrained, warm-started."""
    torch.manual_seed(0)
    vae = AutoencoderKL(**CONFIG)
    warm_start(vae)
    return vae


def load_vae(path: Path) -> AutoencoderKL:
    """A VAE as training saved it."""
    vae = AutoencoderKL(**CONFIG)
    vae.load_state_dict(torch.load(path, weights_only=True)["vae"])
    return vae.eval()


def to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) to float (B, 3, H, W) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1


def batch(images: np.ndarray, step: int, size: int, rng: np.random.Generator) -> Tensor:
    """Random crops, and every few steps a smaller batch of whole pictures; half of the batches mirrored."""
    side = images.shape[1]
    whole = side <= CROP or step % WHOLE_EVERY == WHOLE_EVERY - 1
    rows = rng.integers(0, len(images), max(2, size // 4) if whole else size)
    if whole:
        pixels = np.stack([images[row] for row in rows])
    else:
        corners = rng.integers(0, (side - CROP) // 8 + 1, (size, 2)) * 8
        crops = [images[row, y : y + CROP, x : x + CROP] for row, (y, x) in zip(rows, corners, strict=True)]
        pixels = np.stack(crops)
    tensor = to_tensor(pixels)
    return tensor.flip(-1) if rng.random() < 0.5 else tensor


def edges(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Differences between neighbours, down and to the right."""
    return pixels.diff(dim=-2), pixels.diff(dim=-1)


def perceptual_loss(restored: Tensor, pixels: Tensor) -> Tensor:
    """What the first VAE is trained with: colours, edges (they keep it sharp) and the means of 8x8 blocks."""
    error = restored - pixels
    edge = sum((a - b).abs().mean() for a, b in zip(edges(restored), edges(pixels), strict=True))
    blocks = functional.avg_pool2d(error, 8).abs().mean()
    return error.abs().mean() + (error**2).mean() + 0.7 * edge + 0.5 * blocks


def kl(posterior: Any) -> Tensor:
    """Divergence of the posterior from a unit Gaussian, per latent number."""
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()


def first_loss(vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, float]:
    """The loss of the first VAE, and the mean squared error."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(pixels).latent_dist
        restored = vae.decode(posterior.sample()).sample.float()
    loss = perceptual_loss(restored, pixels) + KL_WEIGHT * kl(posterior)
    return loss, ((restored.detach() - pixels) ** 2).mean().item()


def mse_loss(vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, float]:
    """The loss of the second VAE, whose encoder stays as it is."""
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.mean
        restored = vae.decode(latents).sample.float()
    error = ((restored - pixels) ** 2).mean()
    return error, error.item()


@torch.no_grad()
def psnr(vae: AutoencoderKL, images: np.ndarray, size: int = 16) -> Tensor:
    """Peak signal-to-noise ratio of each uint8 picture (N, H, W, 3) through encoder and decoder, in dB."""
    values = []
    for start in range(0, len(images), size):
        pixels = to_tensor(images[start : start + size])
        restored = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        error = ((restored - pixels) ** 2).mean((1, 2, 3))
        values.append(10 * torch.log10(4 / error.clamp(min=1e-8)))
    return torch.cat(values)


def train(work: Path, minutes: float, size: int, rate: float, decoder_only: bool, threads: int) -> None:
    """Train for so many minutes, or on from where the last run stopped."""
    target = work / ("vae_ft_mse.pt" if decoder_only else "vae.pt")
    images = np.load(work / "images.npy", mmap_mode="r")
    held_out = np.load(work / "held_out.npy")[:64]
    vae, spent, step = new_vae(), 0.0, 0
    parts = ("decoder.", "post_quant_conv.") if decoder_only else ("",)
    trained = [(n, p) for n, p in vae.named_parameters() if n.startswith(parts)]
    hidden, other = split(trained, ("encoder.conv_in", "decoder.conv_out", "quant_conv"))
    optimisers: list[torch.optim.Optimizer] = [
        Muon(hidden, lr=rate, weight_decay=0.0),
        torch.optim.AdamW(other, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4),
    ]
    if target.exists():
        state = torch.load(target, weights_only=True)
        vae.load_state_dict(state["vae"])
        for optimiser, values in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(values)
        spent, step = state["spent"], state["step"]
    elif decoder_only:
        vae.load_state_dict(torch.load(work / "vae.pt", weights_only=True)["vae"])
    vae.requires_grad_(False)
    for _, parameter in trained:
        parameter.requires_grad_(True)

    replicas = Replicas(vae, threads)
    box, rng = TimeBox(minutes, spent, target.with_suffix(".until")), np.random.default_rng(step)
    losses: list[float] = []
    saved = time.monotonic()

    def keep() -> None:
        optimiser_states = [optimiser.state_dict() for optimiser in optimisers]
        save({"vae": vae.state_dict(), "optimisers": optimiser_states, "spent": box.elapsed, "step": step}, target)

    while (share := box.share) < 1:
        set_rate(optimisers, rate * learning_rate(share, step, WARM_UP))
        shares = batch(images, step, size, rng).chunk(len(replicas))
        errors = replicas.backward(mse_loss if decoder_only else first_loss, shares)
        torch.nn.utils.clip_grad_norm_([p for _, p in trained], 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        step += 1
        losses.append(float(np.mean(errors)))
        if step % 20 == 0:
            decibels = 10 * np.log10(4 / np.mean(losses[-20:]))
            print(f"{step} {box.elapsed:.0f}s {share:.2f} psnr of batches {decibels:.2f}", flush=True)
        if time.monotonic() - saved > SAVE_EVERY:
            keep()
            saved = time.monotonic()
    keep()
    values = psnr(vae, held_out)
    print(f"{step} steps, {box.elapsed:.0f} s; held out: {values.mean():.2f} dB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--batch", type=int, default=8, help="crops a step")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--decoder", action="store_true", help="only the decoder, with MSE")
    args = parser.parse_args()
    train(args.work, args.minutes, args.batch, args.rate, args.decoder, args.threads)


if __name__ == "__main__":
    main()
