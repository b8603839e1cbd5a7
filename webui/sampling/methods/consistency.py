"""Samplers for distilled models that jump to the clean picture in a few steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from webui.sampling.contract import Model, Noise, Report
from webui.sampling.levels import sigma_table, sigma_to_t, t_to_sigma

_SD_LOG_TABLE = sigma_table().log()


def lcm(
    model: Model, x: Tensor, sigmas: Sequence[float], report: Report, noise: Noise, *, s_noise: float = 1.0
) -> Tensor:
    """Multistep consistency sampling (Song et al. 2023, algorithm 1; LCM, Luo et al. 2023): jump, add new noise."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma)
        x = denoised
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_next)
        report(i, sigma, sigma_next, x, denoised)
    return x


def tcd(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    noise: Noise,
    *,
    eta: float = 0.3,
    s_noise: float = 1.0,
    table: Tensor | None = None,
) -> Tensor:
    """Strategic stochastic sampling (Zheng et al. 2024, TCD): jump below the next level, noise back up.

    `eta` is the paper's gamma: 0 goes straight to the next level, 1 to the clean picture as LCM does. It is a share of
    timesteps, so the trained sigmas are needed: `table`, SD1's and SDXL's by default.
    """
    log_table = _SD_LOG_TABLE if table is None else table.double().cpu().log()
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma)
        eps = (x - denoised) / sigma
        sigma_s = tcd_level(sigma_next, eta, log_table)
        x = denoised + sigma_s * eps
        if sigma_next > sigma_s:
            x = x + noise(sigma, sigma_next) * (s_noise * math.sqrt(sigma_next**2 - sigma_s**2))
        report(i, sigma, sigma_next, x, denoised)
    return x


def tcd_level(sigma_next: float, eta: float, log_table: Tensor) -> float:
    """The sigma of timestep floor((1 - eta) t), t that of `sigma_next`; 0 stays 0."""
    if sigma_next == 0 or eta == 0:
        return sigma_next
    t = sigma_to_t(torch.tensor([sigma_next], dtype=torch.float64), log_table)
    s = ((1 - eta) * t + 1e-6).floor()  # a whole timestep may come back as 698.9999999
    return min(sigma_next, t_to_sigma(s, log_table).item())
