"""Euler and its relatives: one slope a step, or two that are averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from webui.sampling.contract import Model, Noise, Report
from webui.sampling.methods.stochastic import Churn, ancestral_step

NO_CHURN = Churn()


def euler(
    model: Model, x: Tensor, sigmas: Sequence[float], report: Report, noise: Noise, churn: Churn = NO_CHURN
) -> Tensor:
    """Karras et al. 2022, algorithm 2 without the correction: dx/dsigma = (x - D) / sigma (equations 1 and 3)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn.raised(x, sigma, sigma_next, len(sigmas) - 1, noise)
        denoised = model(x, sigma_hat)
        d = (x - denoised) / sigma_hat
        x = x + d * (sigma_next - sigma_hat)
        report(i, sigma, sigma_next, x, denoised)
    return x


def euler_ancestral(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    noise: Noise,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """Euler down to sigma_down, then noise up to sigma_next (k-diffusion)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        denoised = model(x, sigma)
        d = (x - denoised) / sigma
        x = x + d * (sigma_down - sigma)
        if sigma_up > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
        report(i, sigma, sigma_next, x, denoised)
    return x


def heun(
    model: Model, x: Tensor, sigmas: Sequence[float], report: Report, noise: Noise, churn: Churn = NO_CHURN
) -> Tensor:
    """Karras et al. 2022, algorithm 2: an Euler step, then the mean of the slopes at both ends. Order 2."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn.raised(x, sigma, sigma_next, len(sigmas) - 1, noise)
        denoised = model(x, sigma_hat)
        x = heun_step(model, x, denoised, sigma_hat, sigma_next)
        report(i, sigma, sigma_next, x, denoised)
    return x


def heun_step(model: Model, x: Tensor, denoised: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """One step of Heun's method from a slope that is known; into 0 it is Euler's, as there is no slope at 0."""
    d = (x - denoised) / sigma
    dt = sigma_next - sigma
    if sigma_next == 0:
        return x + d * dt
    x_2 = x + d * dt
    d_2 = (x_2 - model(x_2, sigma_next)) / sigma_next
    return x + (d + d_2) * (dt / 2)


def dpm_2(
    model: Model, x: Tensor, sigmas: Sequence[float], report: Report, noise: Noise, churn: Churn = NO_CHURN
) -> Tensor:
    """DPM-Solver-2 (Lu et al. 2022a) as in k-diffusion: the slope at the geometric middle of the step. Order 2."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn.raised(x, sigma, sigma_next, len(sigmas) - 1, noise)
        denoised = model(x, sigma_hat)
        x = _midpoint_step(model, x, denoised, sigma_hat, sigma_next)
        report(i, sigma, sigma_next, x, denoised)
    return x


def dpm_2_ancestral(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    noise: Noise,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """DPM2 down to sigma_down, then noise up to sigma_next (k-diffusion)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        denoised = model(x, sigma)
        x = _midpoint_step(model, x, denoised, sigma, sigma_down)
        if sigma_up > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
        report(i, sigma, sigma_next, x, denoised)
    return x


def _midpoint_step(model: Model, x: Tensor, denoised: Tensor, sigma: float, sigma_next: float) -> Tensor:
    d = (x - denoised) / sigma
    if sigma_next == 0:
        return x + d * (sigma_next - sigma)
    sigma_mid = math.sqrt(sigma * sigma_next)
    x_2 = x + d * (sigma_mid - sigma)
    d_2 = (x_2 - model(x_2, sigma_mid)) / sigma_mid
    return x + d_2 * (sigma_next - sigma)


def euler_cfgpp(
    model: Model, x: Tensor, sigmas: Sequence[float], report: Report, noise: Noise, churn: Churn = NO_CHURN
) -> Tensor:
    """CFG++ (Chung et al. 2024, algorithm 2): the guided clean picture, but the noise of the unconditional one."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn.raised(x, sigma, sigma_next, len(sigmas) - 1, noise)
        denoised, uncond = model.with_uncond(x, sigma_hat)
        d = (x - uncond) / sigma_hat
        x = denoised + d * sigma_next
        report(i, sigma, sigma_next, x, denoised)
    return x
