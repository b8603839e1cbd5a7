"""Command 2: the autoencoder. Pixels (B, 3, H, W) in -1..1 <-> latents (B, 4, H/8, W/8).

    .venv/bin/python -m training.vae --work WORK --minutes 15                    # the VAE
    .venv/bin/python -m training.vae --work WORK --minutes 15 --like CHECKPOINT  # one with the latents of another
    .venv/bin/python -m training.vae --work WORK --minutes 8 --decoder           # its decoder, with MSE: the second VAE

On a GPU, where there is one (give it `--batch 256`), else on all CPU cores.
The first two write WORK/vae.pt, the third reads it (or the VAE in `--like`) and writes WORK/vae_ft_mse.pt. Each goes on
when its file is there.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from training.model import SCALE_FACTOR, open_checkpoint
from training.muon import Muon, split
from training.parallel import Replicas, device_of, here
from training.precision import mixed
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
LIKE_WEIGHT = 4.0
NOISE = 0.03  # on latents while the decoder learns, in shares of their deviation
STATISTICS = 256  # pictures from which the latents' means and deviations are taken
WARM_UP = 40
SAVE_EVERY = 120  # seconds

Loss = Callable[[AutoencoderKL, Tensor], tuple[Tensor, Tensor]]
"""`loss(vae, pixels) -> what is differentiated, the mean squared error`."""


def new_vae() -> AutoencoderKL:
    """Untrained, warm-started."""
    torch.manual_seed(0)
    vae = AutoencoderKL(**CONFIG)
    warm_start(vae)
    return vae


def load_vae(path: Path) -> AutoencoderKL:
    """A VAE as training saved it."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    vae = AutoencoderKL(**state["config"])
    vae.load_state_dict(state["vae"])
    return vae.eval()


def to_tensor(pixels: np.ndarray | Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to float (B, 3, H, W) in -1..1."""
    tensor = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.array(pixels))
    return tensor.permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1


def batch(images: Tensor, step: int, size: int, rng: np.random.Generator) -> Tensor:
    """Random crops of uint8 pictures (N, H, W, 3), and every few steps a smaller batch of whole ones; half of the
    batches are mirrored.
    """
    side = images.shape[1]
    whole = side <= CROP or step % WHOLE_EVERY == WHOLE_EVERY - 1
    count = max(2, size // 4) if whole else size
    rows = torch.from_numpy(rng.integers(0, len(images), count)).to(images.device)
    if whole:
        pixels = images[rows]
    else:
        corners = torch.from_numpy(rng.integers(0, (side - CROP) // 8 + 1, (2, size, 1)) * 8)
        y, x = (corners + torch.arange(CROP)).to(images.device)
        pixels = images[rows[:, None, None], y[:, :, None], x[:, None, :]]
    tensor = to_tensor(pixels)
    return tensor.flip(-1).contiguous() if rng.random() < 0.5 else tensor


def perceptual_loss(restored: Tensor, pixels: Tensor) -> Tensor:
    """What the first VAE is trained with: colours, edges (they keep it sharp) and the means of 8x8 blocks."""
    error = restored - pixels
    edge = error.diff(dim=-2).abs().mean() + error.diff(dim=-1).abs().mean()
    blocks = functional.avg_pool2d(error, 8).abs().mean()
    return error.abs().mean() + (error**2).mean() + 0.7 * edge + 0.5 * blocks


def kl(posterior: Any) -> Tensor:
    """Divergence of the posterior from a unit Gaussian, per latent number."""
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    divergence: Tensor = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return divergence


def first_loss(vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of the first VAE, and the mean squared error."""
    with mixed(pixels.device):
        posterior = vae.encode(pixels).latent_dist
        restored = vae.decode(posterior.sample()).sample.float()
    loss = perceptual_loss(restored, pixels) + KL_WEIGHT * kl(posterior)
    return loss, _mse(restored, pixels)


def loss_like(teacher: AutoencoderKL) -> Loss:
    """The loss of a VAE whose latents are to be the teacher's, so that the teacher's UNet can go on with it."""

    def loss(vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, Tensor]:
        with mixed(pixels.device):
            with torch.no_grad():
                wanted = teacher.encode(pixels).latent_dist.mean.float()
            mean = vae.encode(pixels).latent_dist.mean.float()
            restored = vae.decode(mean + NOISE / SCALE_FACTOR * torch.randn_like(mean)).sample.float()
        away = ((mean - wanted) * SCALE_FACTOR).pow(2).mean()
        return perceptual_loss(restored, pixels) + LIKE_WEIGHT * away, _mse(restored, pixels)

    return loss


def decoder_loss(vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of the second VAE, whose encoder stays as it is."""
    with mixed(pixels.device):
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.mean
        restored = vae.decode(latents).sample.float()
    return ((restored - pixels) ** 2).mean(), _mse(restored, pixels)


def _mse(restored: Tensor, pixels: Tensor) -> Tensor:
    return ((restored.detach() - pixels) ** 2).mean()


@torch.no_grad()
def change_latents(vae: AutoencoderKL, matrix: Tensor, shift: Tensor) -> None:
    """Make the encoder's mean M z + s instead of z, and let the decoder undo it: both folded into the 1x1 convolutions.

    `matrix` (4, 4), `shift` (4,). The posterior's deviation is scaled by the matrix's diagonal.
    """
    encoder, decoder, back = vae.quant_conv, vae.post_quant_conv, torch.linalg.inv(matrix)
    channels = len(shift)
    encoder.weight[:channels] = torch.einsum("ij,jkhw->ikhw", matrix, encoder.weight[:channels])
    encoder.bias[:channels] = matrix @ encoder.bias[:channels] + shift
    encoder.bias[channels:] += 2 * matrix.diagonal().abs().clamp(min=1e-3).log()
    decoder.bias += torch.einsum("ijhw,j->i", decoder.weight, -back @ shift)
    decoder.weight.copy_(torch.einsum("ijhw,jk->ikhw", decoder.weight, back))


@torch.no_grad()
def normalise(vae: AutoencoderKL, images: np.ndarray) -> None:
    """Let each latent channel times SD1's 0.18215 have mean 0 and deviation 1 over these pictures."""
    latents = encoded(vae, images[:STATISTICS])
    gain = 1 / (latents.std((0, 2, 3)) * SCALE_FACTOR)
    change_latents(vae, torch.diag(gain), -gain * latents.mean((0, 2, 3)))


@torch.no_grad()
def align(vae: AutoencoderKL, teacher: AutoencoderKL, images: np.ndarray) -> None:
    """Bring the latents as near to the teacher's as a linear map can (least squares over these pictures)."""
    ours, theirs = (encoded(v, images[: STATISTICS // 4]).movedim(1, -1).flatten(0, 2) for v in (vae, teacher))
    known = torch.cat((ours, torch.ones(len(ours), 1)), 1).double()
    solution = torch.linalg.lstsq(known, theirs.double()).solution.float()
    change_latents(vae, solution[:-1].T.contiguous(), solution[-1])


@torch.no_grad()
def match_signs(vae: AutoencoderKL, teacher: AutoencoderKL, images: np.ndarray) -> None:
    """Turn over the latent channels that say the opposite of the teacher's on these pictures.

    Trained from the same warm start, two VAEs end with nearly the same latents but for signs, which nothing decides.
    With the signs of another's, a UNet can begin with what that one's UNet knows.
    """
    ours, theirs = (encoded(v, images).movedim(1, 0).flatten(1) for v in (vae, teacher))
    together = ((ours - ours.mean(1, keepdim=True)) * (theirs - theirs.mean(1, keepdim=True))).mean(1)
    change_latents(vae, torch.diag(torch.where(together < 0, -1.0, 1.0)), torch.zeros(len(together)))


@torch.no_grad()
def encoded(vae: AutoencoderKL, images: np.ndarray, size: int = 16) -> Tensor:
    """The encoder's means for uint8 pictures, (N, 4, h, w)."""
    parts = []
    for start in range(0, len(images), size):
        pixels = to_tensor(images[start : start + size]).to(vae.device)
        with mixed(vae.device):
            parts.append(vae.encode(pixels).latent_dist.mean.float())
    return torch.cat(parts)


@torch.no_grad()
def psnr(vae: AutoencoderKL, images: np.ndarray, size: int = 16) -> Tensor:
    """Peak signal-to-noise ratio of each uint8 picture (N, H, W, 3) through encoder and decoder, in dB."""
    values = []
    for start in range(0, len(images), size):
        pixels = to_tensor(images[start : start + size]).to(vae.device)
        restored = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        error = ((restored - pixels) ** 2).mean((1, 2, 3))
        values.append(10 * torch.log10(4 / error.clamp(min=1e-8)))
    return torch.cat(values)


def train(args: argparse.Namespace) -> None:
    """Train for so many minutes, or on from where the last run stopped."""
    work: Path = args.work
    target = work / ("vae_ft_mse.pt" if args.decoder else "vae.pt")
    images, device = np.load(work / "images.npy", mmap_mode="c"), device_of(args.device)
    spent, step = 0.0, 0
    teacher = open_checkpoint(args.like).vae.to(device) if args.like else None
    loss: Loss
    if args.decoder:
        vae, loss = teacher or load_vae(work / "vae.pt"), decoder_loss
    else:
        start = open_checkpoint(args.start).vae if args.start else new_vae()
        vae, loss = start, loss_like(teacher) if teacher else first_loss
    vae.to(device)
    parts = ("decoder.", "post_quant_conv.") if args.decoder else ("",)
    trained = [(name, weight) for name, weight in vae.named_parameters() if name.startswith(parts)]
    hidden, other = split(trained, ("encoder.conv_in", "decoder.conv_out", "quant_conv"))
    optimisers: list[torch.optim.Optimizer] = [
        Muon(hidden, lr=args.rate, weight_decay=0.0),
        torch.optim.AdamW(other, lr=args.rate, betas=(0.9, 0.99), weight_decay=1e-4),
    ]
    if target.exists():
        state = torch.load(target, map_location=device, weights_only=True)
        vae.load_state_dict(state["vae"])
        for optimiser, values in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(values)
        spent, step = state["spent"], state["step"]
    elif teacher is not None and not args.decoder:
        align(vae, teacher, images)
    vae.requires_grad_(False)
    for _, parameter in trained:
        parameter.requires_grad_(True)

    kept_apart = np.load(work / "held_out.npy")[::4]
    print(f"before: {psnr(vae, kept_apart).mean():.2f} dB on {len(kept_apart)} scenes held out", flush=True)
    replicas = Replicas(vae, args.threads)
    box, rng = TimeBox(args.minutes, spent, target.with_suffix(".until")), np.random.default_rng(step)
    lessons = here(images, device)
    errors: list[Tensor] = []
    saved = time.monotonic()

    def keep() -> None:
        state: dict[str, Any] = {"vae": vae.state_dict(), "config": {key: vae.config[key] for key in CONFIG}}
        state["optimisers"] = [optimiser.state_dict() for optimiser in optimisers]
        save(state | {"spent": box.elapsed, "step": step}, target)

    while (share := box.share) < 1:
        set_rate(optimisers, args.rate * learning_rate(share, step, WARM_UP))
        pixels = batch(lessons, step, args.batch, rng)
        errors += replicas.backward(loss, pixels.chunk(len(replicas)))
        torch.nn.utils.clip_grad_norm_([weight for _, weight in trained], 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        step += 1
        if step % 20 == 0:
            decibels = 10 * np.log10(4 / torch.stack(errors).mean().item())
            errors.clear()
            cpu = time.process_time()
            print(f"{step} {box.elapsed:.0f}s {share:.2f} cpu {cpu:.0f} psnr of batches {decibels:.2f}", flush=True)
        if time.monotonic() - saved > SAVE_EVERY:
            keep()
            saved = time.monotonic()
    if not args.decoder and teacher is None:
        normalise(vae, images)
    if args.signs_of:
        match_signs(vae, open_checkpoint(args.signs_of).vae.to(device), images[:STATISTICS])
    keep()
    print(f"{step} steps, {box.elapsed:.0f} s; after: {psnr(vae, kept_apart).mean():.2f} dB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--batch", type=int, default=8, help="crops a step")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--start", type=Path, help="begin with the VAE of this checkpoint")
    parser.add_argument("--like", type=Path, help="a checkpoint whose latents are to be met")
    parser.add_argument("--signs-of", type=Path, help="a checkpoint whose latents' signs are to be met at the end")
    parser.add_argument("--decoder", action="store_true", help="only the decoder, with MSE")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
