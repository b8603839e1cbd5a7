"""Inpainting in latents: at each call of the denoiser the kept part of the clean picture is the given one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from webui.engine.latents.soft_inpainting import blend_latents, mask_at_level
from webui.operations import SoftInpainting


class Guided(Protocol):
    """What is asked of the denoiser inside (`webui.engine.denoise.GroupedDenoiser`)."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor: ...

    def at_level(self, x: Tensor, sigma: Tensor, level: float) -> Tensor: ...

    def with_uncond(self, x: Tensor, sigma: Tensor, level: float) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class LatentMask:
    """`kept` (1, 1, h, w) is 1 where `latents` (B or 1, C, h, w), the given picture, stays; `soft` makes it gradual."""

    kept: Tensor
    latents: Tensor
    soft: SoftInpainting | None = None

    def blend(self, x: Tensor, level: float) -> Tensor:
        """`x`, a clean picture expected at a noise level, with the kept part of the given one."""
        if self.soft is None:
            return x * (1 - self.kept) + self.latents * self.kept
        return blend_latents(
            self.latents.expand_as(x),
            x,
            mask_at_level(self.soft, 1 - self.kept, level),
            self.soft.transition_contrast_boost,
        )

    def finish(self, x: Tensor) -> Tensor:
        """The last word: a hard mask holds to the end; a gradual one is left to the pixels."""
        return self.blend(x, 0.0) if self.soft is None else x


class MaskedDenoiser:
    """A denoiser around another one. `before`: the DDIM family blends what goes in, not what comes out.

    Those samplers are told the noise that the model saw in the blended picture, so what comes out is moved by what the
    blending changed: (x - denoised) / sigma is then that noise.
    """

    def __init__(self, inner: Guided, mask: LatentMask, *, before: bool) -> None:
        self._inner = inner
        self._mask = mask
        self._before = before

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.at_level(x, sigma, float(sigma.max()))

    def at_level(self, x: Tensor, sigma: Tensor, level: float) -> Tensor:
        """The guided clean pictures (B, C, H, W)."""
        if not self._before:
            return self._mask.blend(self._inner.at_level(x, sigma, level), level)
        blended = self._blended(x, level)
        return self._inner.at_level(blended, sigma, level) + (x - blended)

    def with_uncond(self, x: Tensor, sigma: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """(guided, unconditional) clean pictures for CFG++."""
        if not self._before:
            guided, uncond = self._inner.with_uncond(x, sigma, level)
            return self._mask.blend(guided, level), self._mask.blend(uncond, level)
        blended = self._blended(x, level)
        guided, uncond = self._inner.with_uncond(blended, sigma, level)
        return guided + (x - blended), uncond + (x - blended)

    def _blended(self, x: Tensor, level: float) -> Tensor:
        """In the coordinates of the DDIM family, x / sqrt(1 + sigma^2)."""
        scale = math.sqrt(1 + level**2)
        return self._mask.blend(x / scale, level) * scale


def latent_mask(mask: Image.Image, cells: tuple[int, int], *, rounded: bool) -> Tensor:
    """(1, 1, h, w): 1 where the model draws, from an "L" picture of any size. `cells` is (h, w)."""
    small = mask.resize((cells[1], cells[0]), Image.Resampling.BICUBIC)
    values = torch.tensor(list(small.tobytes()), dtype=torch.float32).reshape(1, 1, *cells) / 255
    return values.round() if rounded else values
