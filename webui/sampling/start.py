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
) -> Tensor:
    """The x (B, C, H, W) at `sigmas[0]`, from noise of unit variance and, where there is a picture, its latents.

    From nothing: noise sigma, or noise sqrt(1 + sigma^2) with `sgm_noise_multiplier` and for the DDIM family, whose own
    coordinates x / sqrt(1 + sigma^2) begin with plain noise. From `latents` (B, C, H, W): latents + noise sigma, which
    in the DDIM family's coordinates is sqrt(a) latents + sqrt(1 - a) noise. A flow mixes them:
    (1 - sigma) latents + sigma noise.
    """
    sigma = float(sigmas[0])
    if prediction == "flow":
        return unit_noise * sigma if latents is None else latents * (1 - sigma) + unit_noise * sigma
    if latents is not None:
        return latents + unit_noise * sigma
    timestep_space = find_sampler(sampler)[0].timestep_space
    return unit_noise * (math.sqrt(1 + sigma**2) if timestep_space or sgm_noise_multiplier else sigma)
