"""The latents that a sampler starts from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from webui.names import find_sampler
from webui.sampling.denoiser import Prediction


def start_latents(
    unit_noise: Tensor,
    sigmas: Tensor | Sequence[float],
    sampler: str,
    *,
    prediction: Prediction,
    sgm_noise_multiplier: bool = False,
    latents: Tensor | None = None,
    level: float | None = None,
    extra_noise: float = 0.0,
) -> Tensor:
    """The x (B, C, H, W) at `sigmas[0]`, from noise of unit variance and, where there is a picture, its latents.

    From nothing: noise sigma, or noise sqrt(1 + sigma^2) with `sgm_noise_multiplier` and for the DDIM family, whose own
    coordinates x / sqrt(1 + sigma^2) begin with plain noise. From `latents` (B, C, H, W): latents + noise sigma, which
    in the DDIM family's coordinates is sqrt(a) latents + sqrt(1 - a) noise. A flow mixes them:
    (1 - sigma) latents + sigma noise.

    `level`: noise of this level is added to `latents` instead, and the DDIM family then takes the result for one at
    `sigmas[0]` in its own coordinates (see `partial.Partial.start`). `extra_noise` is added on top of the level.
    """
    sigma = float(sigmas[0])
    if prediction == "flow":
        return unit_noise * sigma if latents is None else latents * (1 - sigma) + unit_noise * (sigma + extra_noise)
    if latents is not None:
        added = sigma if level is None else level
        x = latents + unit_noise * (added + extra_noise)
        return x if added == sigma else x * math.sqrt((1 + sigma**2) / (1 + added**2))
    timestep_space = find_sampler(sampler)[0].timestep_space
    return unit_noise * (math.sqrt(1 + sigma**2) if timestep_space or sgm_noise_multiplier else sigma)
