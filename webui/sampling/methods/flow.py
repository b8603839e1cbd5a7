"""Samplers for flow-matching models (SD3, Flux): x = (1 - sigma) clean + sigma noise, sigma from 1 down to 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from webui.sampling.contract import Model, Report


def flow_euler(model: Model, x: Tensor, sigmas: Sequence[float], report: Report) -> Tensor:
    """Euler's method on dx/dsigma = v = noise - clean = (x - D) / sigma (Lipman et al. 2023; Esser et al. 2024)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma)
        v = (x - denoised) / sigma
        x = x + v * (sigma_next - sigma)
        report(i, sigma, sigma_next, x, denoised)
    return x


def flow_dpmpp_2m(model: Model, x: Tensor, sigmas: Sequence[float], report: Report) -> Tensor:
    """DPM-Solver++(2M), Lu et al. 2022b, algorithm 2, with alpha = 1 - sigma, lambda = log(alpha / sigma). Order 2.

    At sigma 1 lambda is minus infinity; that step is of order 1, and the next takes no help from it.
    """
    old_denoised, h_last = None, math.inf
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = _half_log_snr(sigma_next) - _half_log_snr(sigma)
            target = denoised
            if old_denoised is not None:
                target = denoised + (denoised - old_denoised) * (h / (2 * h_last))
            x = (sigma_next / sigma) * x - (1 - sigma_next) * math.expm1(-h) * target
            h_last = h
        old_denoised = denoised
        report(i, sigma, sigma_next, x, denoised)
    return x


def _half_log_snr(sigma: float) -> float:
    return -math.inf if sigma == 1 else math.log((1 - sigma) / sigma)
