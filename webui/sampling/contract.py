"""What every part of the sampling agrees on: a denoiser, a source of noise, a report after each step.

Shapes and units, stated once. Latents `x` are (B, C, H, W). A noise level `sigma` is the standard deviation of the
noise in `x = clean + sigma * noise` (EDM, Karras et al. 2022); every sampler works in these coordinates, the DDIM
family too. For flow-matching models it is the time in `x = (1 - sigma) * clean + sigma * noise`. A schedule is a
descending list of noise levels, a Python float each: loops and branches never wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""`denoiser(x (B, C, H, W), sigma (B,)) -> the clean picture it expects (B, C, H, W)`."""

Noise = Callable[[float, float], Tensor]
"""`noise(sigma, sigma_next) -> standard normal numbers, shaped like x`."""

Report = Callable[[int, float, float, Tensor, Tensor], None]
"""What a sampler calls when a step is done: `report(index, sigma, sigma_next, x, denoised)`."""


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One finished step: `x` is the latent at `sigma_next`, `denoised` the clean picture the model saw at this step.

    `denoised` can be decoded at any step; `x` still holds noise until the last one.
    """

    index: int
    sigma: float
    sigma_next: float
    x: Tensor
    denoised: Tensor


@runtime_checkable
class LevelDenoiser(Protocol):
    """A denoiser that also wants the noise level as a number, so that it can decide by it without asking the device."""

    def at_level(self, x: Tensor, sigma: Tensor, level: float) -> Tensor:
        """The clean picture; `level` is the (greatest) value of `sigma`."""
        ...

    def with_uncond(self, x: Tensor, sigma: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """The clean picture guided for CFG++, and the unconditional one."""
        ...


class Model:
    """A denoiser as the samplers see it: asked with a number, the same for all pictures of the batch."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self._levelled: LevelDenoiser | None = denoiser if isinstance(denoiser, LevelDenoiser) else None

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The clean picture (B, C, H, W) expected in `x` at the noise level `sigma`."""
        return self._ask(x, x.new_full((x.shape[0],), sigma, dtype=_level_dtype(x)), sigma)

    def per_picture(self, x: Tensor, sigmas: Tensor) -> Tensor:
        """The same, where each picture has a noise level of its own: `sigmas` (B,). Waits for the device."""
        return self._ask(x, sigmas.to(_level_dtype(x)), float(sigmas.max()))

    def with_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """(guided, unconditional) clean pictures; for a denoiser without guidance the two are the same."""
        levels = x.new_full((x.shape[0],), sigma, dtype=_level_dtype(x))
        if self._levelled is not None:
            return self._levelled.with_uncond(x, levels, sigma)
        denoised = self._denoiser(x, levels)
        return denoised, denoised

    def _ask(self, x: Tensor, levels: Tensor, level: float) -> Tensor:
        if self._levelled is not None:
            return self._levelled.at_level(x, levels, level)
        return self._denoiser(x, levels)


def _level_dtype(x: Tensor) -> torch.dtype:
    """Half precision would round the noise level by a thousandth."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
