"""Heun++: Heun's method that looks one step further ahead."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from webui.sampling.contract import Model, Noise, Report
from webui.sampling.methods.euler import NO_CHURN
from webui.sampling.methods.stochastic import Churn


def heunpp2(
    model: Model, x: Tensor, sigmas: Sequence[float], report: Report, noise: Noise, churn: Churn = NO_CHURN
) -> Tensor:
    """Heun++ (Carzit, sd-webui-samplers-scheduler): up to two Euler steps of scouting, slopes weighted by their sigma.

    The weights sigma_{i+k} / (m sigma_0) of the m slopes sink with the noise level, so the method turns into Euler's
    towards the end: it is of order 1, at three calls a step.
    """
    end = len(sigmas) - 1
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn.raised(x, sigma, sigma_next, end, noise)
        denoised = model(x, sigma_hat)
        d = (x - denoised) / sigma_hat
        slopes, ahead, at = [d], x, sigma_hat
        for scout in sigmas[i + 1 : min(i + 3, end)]:
            ahead = ahead + slopes[-1] * (scout - at)
            slopes.append((ahead - model(ahead, scout)) / scout)
            at = scout
        weights = [s / (len(slopes) * sigmas[0]) for s in sigmas[i + 1 : i + len(slopes)]]
        d_prime = (1 - sum(weights)) * d
        for weight, slope in zip(weights, slopes[1:], strict=True):
            d_prime = d_prime + weight * slope
        x = x + d_prime * (sigma_next - sigma_hat)
        report(i, sigma, sigma_next, x, denoised)
    return x
