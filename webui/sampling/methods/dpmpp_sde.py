"""DPM-Solver++ for the reverse SDE (Lu et al. 2022b, section 5; k-diffusion for eta and the third order).

`eta` scales the noise: 0 is the ODE, 1 the SDE. Over an interval of length h in t = -log sigma the exact solution for a
constant D is x' = exp(-h (1 + eta)) x + (1 - exp(-h (1 + eta))) D + sigma_next sqrt(1 - exp(-2 h eta)) noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor

from webui.sampling.contract import Model, Noise, Report
from webui.sampling.methods.stochastic import ancestral_step


def dpmpp_sde(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    noise: Noise,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> Tensor:
    """DPM-Solver++ (stochastic): a noisy step to the point r of the way, then the whole step with both pictures."""
    weight = 1 / (2 * r)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            sigma_mid = sigma * (sigma_next / sigma) ** r
            down, up = ancestral_step(sigma, sigma_mid, eta)
            x_2 = denoised + (down / sigma) * (x - denoised)
            if up > 0:
                x_2 = x_2 + noise(sigma, sigma_mid) * (s_noise * up)
            denoised_2 = model(x_2, sigma_mid)

            down, up = ancestral_step(sigma, sigma_next, eta)
            target = (1 - weight) * denoised + weight * denoised_2
            x = target + (down / sigma) * (x - target)
            if up > 0:
                x = x + noise(sigma, sigma_next) * (s_noise * up)
        report(i, sigma, sigma_next, x, denoised)
    return x


def dpmpp_2m_sde(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    noise: Noise,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver: Literal["midpoint", "heun"] = "midpoint",
) -> Tensor:
    """SDE-DPM-Solver++(2M): the change since the last clean picture corrects the step, by one of two rules. Order 2."""
    old_denoised, h_last = None, 0.0
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = math.log(sigma / sigma_next)
            h_eta = h * (1 + eta)
            x = math.exp(-h_eta) * x - math.expm1(-h_eta) * denoised
            if old_denoised is not None:
                r = h_last / h
                phi = phi_2(h_eta) if solver == "heun" else -0.5 * math.expm1(-h_eta)
                x = x + (phi / r) * (denoised - old_denoised)
            x = _add_noise(x, sigma, sigma_next, h, eta, s_noise, noise)
            h_last = h
        old_denoised = denoised
        report(i, sigma, sigma_next, x, denoised)
    return x


def dpmpp_2m_sde_heun(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    noise: Noise,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """DPM++ 2M SDE with the "heun" rule."""
    return dpmpp_2m_sde(model, x, sigmas, report, noise, eta=eta, s_noise=s_noise, solver="heun")


def dpmpp_3m_sde(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    noise: Noise,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """DPM++ 3M SDE (k-diffusion): first and second divided differences of the last three clean pictures.

    The second difference is half the second derivative and enters as the whole, so half of it is missing, here as in
    the reference: order 2, with a small constant.
    """
    denoised_1: Tensor | None = None
    denoised_2: Tensor | None = None
    h_1 = h_2 = 0.0
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = math.log(sigma / sigma_next)
            h_eta = h * (1 + eta)
            x = math.exp(-h_eta) * x - math.expm1(-h_eta) * denoised
            if denoised_1 is not None:
                r0 = h_1 / h
                d1 = (denoised - denoised_1) / r0
                if denoised_2 is not None:
                    r1 = h_2 / h
                    d2 = (d1 - (denoised_1 - denoised_2) / r1) / (r0 + r1)
                    d1 = d1 + d2 * r0
                    x = x - phi_3(h_eta) * d2
                x = x + phi_2(h_eta) * d1
            x = _add_noise(x, sigma, sigma_next, h, eta, s_noise, noise)
            h_1, h_2 = h, h_1
        denoised_1, denoised_2 = denoised, denoised_1
        report(i, sigma, sigma_next, x, denoised)
    return x


def phi_2(h: float) -> float:
    """(exp(-h) - 1) / h + 1, the weight of the first derivative over a step of length h."""
    return math.expm1(-h) / h + 1


def phi_3(h: float) -> float:
    """phi_2(h) / h - 1/2, the weight of the second derivative, with k-diffusion's sign."""
    return phi_2(h) / h - 0.5


def _add_noise(
    x: Tensor, sigma: float, sigma_next: float, h: float, eta: float, s_noise: float, noise: Noise
) -> Tensor:
    if eta == 0:
        return x
    return x + noise(sigma, sigma_next) * (s_noise * sigma_next * math.sqrt(-math.expm1(-2 * h * eta)))
