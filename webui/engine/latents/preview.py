"""A quick look at latents without the VAE: a small decoder where there is one, else each cell's colour as a linear
function of its channels.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from webui.catalog.sidecar import Sidecar
from webui.engine.latents.vae import SCALE, Vae

QUALITY = 80  # of the JPEG
MAX_SHARE = 0.02  # of the time that previews may take

# For the VAEs that all of SD1 and SD2, and all of SDXL, share; published figures, RGB in -1..1. Rows: latent channels,
# and the bias last.
SD_CHANNELS = (128, 256, 512, 512)
SD_FACTORS = (
    (0.3512, 0.2297, 0.3227),
    (0.3250, 0.4974, 0.2350),
    (-0.2829, 0.1762, 0.2721),
    (-0.2120, -0.2616, -0.7177),
    (0.0, 0.0, 0.0),
)
SDXL_SCALE_FACTOR = 0.13025  # the two VAEs differ in nothing else that can be seen without decoding
SDXL_FACTORS = (
    (0.3651, 0.4232, 0.4341),
    (-0.2533, -0.0042, 0.1068),
    (0.1076, 0.1111, -0.0362),
    (-0.3165, -0.2492, -0.2188),
    (0.1084, -0.0175, -0.0011),
)

FIT_PICTURES = 12
FIT_SIDE = 64  # pixels


def latent_rgb(vae: Vae, sidecar: Sidecar | None) -> Tensor:
    """The (C + 1, 3) matrix of a model, the last row being the bias: the file's own, the published one, or a fit."""
    if sidecar and sidecar.latent_rgb_factors and len(sidecar.latent_rgb_factors) == vae.dims.latent_channels:
        bias = sidecar.latent_rgb_bias or (0.0, 0.0, 0.0)
        return torch.tensor((*sidecar.latent_rgb_factors, bias))
    if vae.dims.channels == SD_CHANNELS and vae.dims.latent_channels == len(SD_FACTORS) - 1:
        return torch.tensor(SDXL_FACTORS if vae.scale_factor == SDXL_SCALE_FACTOR else SD_FACTORS)
    return fit_latent_rgb(vae)


def fit_latent_rgb(vae: Vae) -> Tensor:
    """Least squares between made-up pictures and what the VAE's encoder makes of them; 0.1 s on a small VAE."""
    generator = torch.Generator().manual_seed(0)

    def colours(side: int, mode: str) -> Tensor:
        grid = torch.rand(FIT_PICTURES // 3, 3, side, side, generator=generator) * 2 - 1
        return functional.interpolate(grid, size=(FIT_SIDE, FIT_SIDE), mode=mode)

    white = torch.ones(FIT_PICTURES // 3, 3, FIT_SIDE, FIT_SIDE)  # the usual background of small models
    pixels = torch.cat((colours(1, "nearest"), colours(3, "bicubic").clamp(-1, 1), white))
    latents = vae.encode_mean(pixels).cpu()
    known = latents.movedim(1, -1).reshape(-1, latents.shape[1])
    known = torch.cat((known, torch.ones(len(known), 1)), dim=1)
    wanted = functional.avg_pool2d(pixels, SCALE).movedim(1, -1).reshape(-1, 3)
    if not bool(torch.isfinite(known).all()):
        return torch.zeros(latents.shape[1] + 1, 3)
    fitted: Tensor = torch.linalg.lstsq(known.double(), wanted.double(), driver="gelsd").solution
    return fitted.float()


def render(latents: Tensor, matrix: Tensor, max_side: int, decoder: Callable[[Tensor], Tensor] | None = None) -> bytes:
    """Clean latents (B, C, h, w) as one JPEG; a batch is tiled, nearly square.

    With a `decoder` (`tiny_decoder.TinyDecoder`) that draws the picture, else `matrix` gives each cell its colour.
    """
    batch, channels = latents.shape[:2]
    if decoder is not None:
        rgb = decoder(latents.detach().float()).cpu().movedim(1, -1) * 255
    else:
        values = latents.detach().float().cpu().movedim(1, -1)
        rgb = (values @ matrix[:channels] + matrix[channels]) * 127.5 + 127.5
    height, width = rgb.shape[1:3]
    rows = rgb.nan_to_num(0.0).clamp(0, 255).to(torch.uint8)
    columns = math.ceil(math.sqrt(batch))
    lines = math.ceil(batch / columns)
    sheet = torch.zeros(lines * height, columns * width, 3, dtype=torch.uint8)
    for i in range(batch):
        y, x = i // columns * height, i % columns * width
        sheet[y : y + height, x : x + width] = rows[i]
    picture = Image.fromarray(sheet.numpy())
    scale = min(SCALE if decoder is None else 1, max_side / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


class PreviewClock:
    """Decides when the next preview is due: no more often than asked for, and never for more than 2 % of the time."""

    def __init__(self, every_seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._every = every_seconds
        self._clock = clock
        self._due = clock()

    def maybe(self, make: Callable[[], bytes]) -> bytes | None:
        """A preview if it is time for one."""
        started = self._clock()
        if started < self._due:
            return None
        jpeg = make()
        ended = self._clock()
        self._due = ended + max(self._every, (ended - started) / MAX_SHARE)
        return jpeg
