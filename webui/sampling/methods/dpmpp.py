"""DPM-Solver++ (Lu et al. 2022b): exponential integrators that predict the clean picture, for the ODE.

In the paper's half-log-SNR time t = -log sigma a step has the length h = t_next - t and exp(-h) = sigma_next / sigma.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from webui.sampling.contract import Model, Noise, Report
from webui.sampling.methods.stochastic import ancestral_step


def dpmpp_2m(model: Model, x: Tensor, sigmas: Sequence[float], report: Report) -> Tensor:
    """DPM-Solver++(2M), algorithm 2: the last two clean pictures, extrapolated to the middle of the step. Order 2."""
    old_denoised, h_last = None, 0.0
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = math.log(sigma / sigma_next)
            target = denoised
            if old_denoised is not None:
                r = h_last / h
                target = denoised + (denoised - old_denoised) / (2 * r)
            x = (sigma_next / sigma) * x - math.expm1(-h) * target
            h_last = h
        old_denoised = denoised
        report(i, sigma, sigma_next, x, denoised)
    return x


def dpmpp_2s_ancestral(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    noise: Noise,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """DPM-Solver++(2S), algorithm 1 with r = 1/2, down to sigma_down; then noise up to sigma_next. Order 2."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        denoised = model(x, sigma)
        if sigma_down == 0:
            x = denoised
        else:
            h = math.log(sigma / sigma_down)
            sigma_mid = math.sqrt(sigma * sigma_down)
            x_2 = (sigma_mid / sigma) * x - math.expm1(-h / 2) * denoised
            denoised_2 = model(x_2, sigma_mid)
            x = (sigma_down / sigma) * x - math.expm1(-h) * denoised_2
        if sigma_up > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
        report(i, sigma, sigma_next, x, denoised)
    return x
