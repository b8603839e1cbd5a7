"""Command 3: every scene through the VAE's encoder, once.

    .venv/bin/python -m training.encode --work WORK [--like CHECKPOINT] [--device auto]

Writes WORK/latents.npy (N, 4, h, w) float16, as the UNet sees them, and WORK/latents.ready, the number of rows that are
done: the UNet's training may begin before all are.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from training.model import SCALE_FACTOR, open_checkpoint
from training.parallel import device_of
from training.precision import mixed
from training.vae import load_vae, to_tensor

BATCH = 16
BATCH_GPU = 512


@torch.inference_mode()
def encode(work: Path, like: Path | None, device: torch.device) -> None:
    """Encode with WORK/vae.pt, or with the VAE of the checkpoint `like`."""
    vae = (open_checkpoint(like).vae if like else load_vae(work / "vae.pt")).to(device)
    size = BATCH if device.type == "cpu" else BATCH_GPU
    images = np.load(work / "images.npy", mmap_mode="r")
    ready = work / "latents.ready"
    ready.write_text("0")
    side = images.shape[1] // 8
    latents = np.lib.format.open_memmap(work / "latents.npy", "w+", np.float16, (len(images), 4, side, side))
    started = time.monotonic()
    for start in range(0, len(images), size):
        with mixed(device):
            mean = vae.encode(to_tensor(images[start : start + size]).to(device)).latent_dist.mean.float()
        latents[start : start + len(mean)] = (mean * SCALE_FACTOR).cpu().numpy()
        ready.write_text(str(start + len(mean)))
    latents.flush()
    print(f"{len(images)} scenes, {time.monotonic() - started:.0f} s")
    some = latents[:: max(1, len(latents) // 4096)].astype(np.float32)
    print("means", some.mean((0, 2, 3)), "deviations", some.std((0, 2, 3)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--like", type=Path, help="a checkpoint whose VAE is used")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    encode(args.work, args.like, device_of(args.device))


if __name__ == "__main__":
    main()
