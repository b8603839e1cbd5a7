"""Restart sampling (Xu et al. 2023): go back up to a higher noise level and down again, to contract earlier errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from webui.sampling.contract import Model, Noise, Report
from webui.sampling.methods.euler import heun_step

RESTART_MIN, RESTART_MAX = 0.1, 2.0  # noise levels between which it goes back and forth
RHO = 7.0


def restart(
    model: Model, x: Tensor, sigmas: Sequence[float], report: Report, noise: Noise, *, s_noise: float = 1.0
) -> Tensor:
    """Restart with Heun's method: where a segment starts above the level reached, noise makes up the difference."""
    at = sigmas[0]
    for i, (sigma, sigma_next) in enumerate(restart_segments(sigmas)):
        if sigma > at:
            x = x + noise(at, sigma) * (s_noise * math.sqrt(sigma**2 - at**2))
        denoised = model(x, sigma)
        x = heun_step(model, x, denoised, sigma, sigma_next)
        report(i, sigma, sigma_next, x, denoised)
        at = sigma_next
    return x


def restart_segments(sigmas: Sequence[float]) -> list[tuple[float, float]]:
    """The steps (sigma, sigma_next) in order, as many as the schedule has.

    From 20 steps on, 9 of them are spent on one restart; from 36 on, a quarter on each of two. The rest becomes a
    Karras schedule between the same ends, so that the whole is not longer than what was asked for.
    """
    steps = len(sigmas) - 1
    if steps < 20:
        return list(pairwise(sigmas))
    length, times = (steps // 4, 2) if steps >= 36 else (9, 1)
    lowest = sigmas[-1] if sigmas[-1] > 0 else sigmas[-2]
    base = [*_karras(steps - length * times, sigmas[0], lowest), 0.0]
    turn, top = _nearest(base, RESTART_MIN), _nearest(base, RESTART_MAX)
    segments = list(pairwise(base))
    if top >= turn:  # the schedule does not reach that high
        return segments
    between = _karras(length + 1, base[top], base[turn])[1:-1]
    again = list(pairwise([base[top], *between, base[turn]]))  # the very ends: a rounding is no step up
    return segments[:turn] + again * times + segments[turn:]


def _karras(n: int, sigma_max: float, sigma_min: float) -> list[float]:
    """Karras et al. 2022, equation 5, without a final 0."""
    high, low = sigma_max ** (1 / RHO), sigma_min ** (1 / RHO)
    return [(high + i / max(n - 1, 1) * (low - high)) ** RHO for i in range(n)]


def _nearest(sigmas: Sequence[float], level: float) -> int:
    return min(range(len(sigmas)), key=lambda i: abs(sigmas[i] - level))
