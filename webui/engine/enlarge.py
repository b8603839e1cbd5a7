"""From the first pass of a hires job to what the second one starts from."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from torch import Tensor
from torch.nn import functional

from webui.engine.latents.vae import SCALE
from webui.names import LATENT_UPSCALERS
from webui.operations import Hires
from webui.pictures.resizing import Size, middle

Decode = Callable[[Tensor], Image.Image]
"""One picture's latents (1, C, h, w) to pixels."""
Encode = Callable[[Image.Image], Tensor]
"""Pixels to latents (1, C, h, w)."""
Enlarge = Callable[[Image.Image, Size], Image.Image]
"""Pixels to more pixels, with the upscaler that was asked for."""


def enlarged(latents: Tensor, hires: Hires, decode: Decode, encode: Encode, enlarge: Enlarge) -> Tensor:
    """One picture's clean latents (1, C, h, w) at the size of the second pass."""
    size, wanted = hires.sizes(latents.shape[3] * SCALE, latents.shape[2] * SCALE)
    if hires.upscaler in LATENT_UPSCALERS:
        mode = LATENT_UPSCALERS[hires.upscaler]
        large = functional.interpolate(
            latents, (size[1] // SCALE, size[0] // SCALE), mode=mode.interpolation, antialias=mode.antialias
        )
    else:
        size = (size[0] // SCALE * SCALE, size[1] // SCALE * SCALE)
        large = encode(enlarge(decode(latents), size))
    left, top, right, bottom = middle((large.shape[3], large.shape[2]), (wanted[0] // SCALE, wanted[1] // SCALE))
    return large[:, :, top:bottom, left:right]
