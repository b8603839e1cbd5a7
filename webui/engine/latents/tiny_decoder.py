"""TAESD's decoder: latents to pixels in a thousandth of the VAE's work, for previews (Boer Bohan 2023, MIT licence).

Used when its file is there: `taesd_decoder` for SD1 and SD2, `taesdxl_decoder` for SDXL, as .safetensors or .pth below
`models/VAE-approx`, where other programs keep them, too.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from webui.engine.files.weights import open_weights
from webui.errors import WebUIError

FOLDER = "VAE-approx"
CHANNELS = 64
BLOCKS = (3, 3, 3, 1)  # at each size
CLAMP = 3.0  # latents are squeezed softly into -3..3
_SUFFIXES = (".safetensors", ".pth", ".pt")

_log = logging.getLogger(__name__)


class Block(nn.Module):
    """Three convolutions with a way around them."""

    def __init__(self) -> None:
        super().__init__()
        convs = [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv(x) + x)


class TinyDecoder(nn.Module):
    """Latents (B, 4, h, w) as the UNet sees them to pixels (B, 3, 8h, 8w) in 0..1."""

    def __init__(self, latent_channels: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Identity(), nn.Conv2d(latent_channels, CHANNELS, 3, padding=1), nn.ReLU()]
        for level, count in enumerate(BLOCKS):
            if level:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)]
            layers += [Block() for _ in range(count)]
        layers.append(nn.Conv2d(CHANNELS, 3, 3, padding=1))
        self.layers = nn.Sequential(*layers)  # numbered as in the published files; the first is the clamp

    def forward(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self.layers(torch.tanh(latents / CLAMP) * CLAMP)
        return pixels.clamp(0, 1)


def find_tiny_decoder(models: Path, *, sdxl: bool) -> Path | None:
    """The decoder's file below the models folder, None without one."""
    stem = "taesdxl_decoder" if sdxl else "taesd_decoder"
    files = (models / FOLDER / f"{stem}{suffix}" for suffix in _SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def load_tiny_decoder(path: Path, device: torch.device, *, allow_pickle: bool, cache_dir: Path) -> Any:
    """The decoder in fp32; None, with a line in the log, for a file that is none: previews do without it."""
    try:
        weights = open_weights(path, allow_pickle=allow_pickle, cache_dir=cache_dir)
        tensors = {f"layers.{name.removeprefix('layers.')}": weights.tensor(name).float() for name in weights.tensors}
        with torch.device("meta"):
            decoder = TinyDecoder(tensors["layers.1.weight"].shape[1])
        decoder.load_state_dict(tensors, strict=True, assign=True)
    except (WebUIError, KeyError, IndexError, RuntimeError) as error:
        _log.warning("The preview decoder %s cannot be used: %s", path.name, str(error).splitlines()[0][:200])
        return None
    return decoder.eval().requires_grad_(False).to(device)
