"""The methods that were written down on timesteps: DDIM, DDPM, PLMS, UniPC.

Their papers hold x scaled down to variance 1, x / sqrt(1 + sigma^2). Divided by that factor their equations become the
ones here, in the coordinates of every other sampler; the pictures are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from webui.sampling.contract import Model, Noise, Report
from webui.sampling.methods.multistep import ADAMS_BASHFORTH
from webui.sampling.methods.stochastic import ancestral_step


def ddim(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    noise: Noise,
    *,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Tensor:
    """Song et al. 2021, DDIM, equation 12: the clean picture, the direction to x, and noise. Order 1.

    With eta 0 it is Euler's method, with eta 1 DDPM; in these coordinates its noise is that of an ancestral step.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        denoised = model(x, sigma)
        eps = (x - denoised) / sigma
        x = denoised + sigma_down * eps
        if sigma_up > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
        report(i, sigma, sigma_next, x, denoised)
    return x


def ddim_cfgpp(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    noise: Noise,
    *,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Tensor:
    """CFG++ (Chung et al. 2024, algorithm 2) on DDIM: the direction to x is that of the unconditional picture."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        denoised, uncond = model.with_uncond(x, sigma)
        eps = (x - uncond) / sigma
        x = denoised + sigma_down * eps
        if sigma_up > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
        report(i, sigma, sigma_next, x, denoised)
    return x


def ddpm(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    noise: Noise,
    *,
    s_noise: float = 1.0,
) -> Tensor:
    """Ho et al. 2020, equations 6 and 7: draw from the posterior q(x_next | x, clean), its variance the smaller one."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma)
        ratio = (sigma_next / sigma) ** 2
        x = (1 - ratio) * denoised + ratio * x
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_next * math.sqrt(1 - ratio))
        report(i, sigma, sigma_next, x, denoised)
    return x


def plms(model: Model, x: Tensor, sigmas: Sequence[float], report: Report) -> Tensor:
    """Liu et al. 2022, PNDM without its Runge-Kutta start: Adams-Bashforth of order 4 with the weights of even steps.

    The first step has no history: its slope is the mean of both ends, which costs one call more.
    """
    slopes: list[Tensor] = []
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma)
        eps = (x - denoised) / sigma
        slopes = [eps, *slopes[:3]]
        if i == 0 and sigma_next > 0:
            x_next = x + (sigma_next - sigma) * eps
            e_prime = (eps + (x_next - model(x_next, sigma_next)) / sigma_next) / 2
        else:
            weights = ADAMS_BASHFORTH[len(slopes) - 1]
            e_prime = weights[0] * eps
            for weight, old_eps in zip(weights[1:], slopes[1:], strict=True):
                e_prime = e_prime + weight * old_eps
        x = x + (sigma_next - sigma) * e_prime
        report(i, sigma, sigma_next, x, denoised)
    return x


def unipc(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    *,
    order: int = 3,
    lower_order_final: bool = True,
) -> Tensor:
    """Zhao et al. 2023, UniPC, algorithms 1 and 2, data prediction, B1(h) = h: predict, and correct with the next call.

    The correction needs no call of its own: the model is asked at the predicted x, and its answer corrects that x
    before the next prediction starts from it. The last step is not corrected.
    """
    steps = len(sigmas) - 1
    history: list[tuple[float, Tensor]] = []  # (sigma, clean picture), the newest first
    x_last, used_order = x, 0
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma)
        if history:
            x = _unipc_step(x_last, sigma, history[:used_order], corrector=denoised)
        history = [(sigma, denoised), *history[: order - 1]]
        used_order = min(order, len(history), steps - i if lower_order_final else order)
        x_last = x
        x = denoised if sigma_next == 0 else _unipc_step(x, sigma_next, history[:used_order])
        report(i, sigma, sigma_next, x, denoised)
    return x


def _unipc_step(
    x: Tensor, sigma_next: float, history: Sequence[tuple[float, Tensor]], corrector: Tensor | None = None
) -> Tensor:
    """From `history[0]` to `sigma_next`: UniP of order len(history), or UniC where the clean picture there is known."""
    sigma, denoised = history[0]
    h = math.log(sigma / sigma_next)
    ratios = [math.log(sigma / s) / h for s, _ in history[1:]]
    differences = [(d - denoised) / r for (_, d), r in zip(history[1:], ratios, strict=True)]
    if corrector is not None:
        ratios.append(1.0)
        differences.append(corrector - denoised)
    x = (sigma_next / sigma) * x - math.expm1(-h) * denoised
    for weight, difference in zip(_unipc_weights(ratios, h), differences, strict=True):
        x = x + (h * weight) * difference
    return x


def _unipc_weights(ratios: Sequence[float], h: float) -> list[float]:
    """The weights a with sum_m a_m r_m^(k - 1) = b_k; one alone is 1/2, as in the authors' code."""
    if len(ratios) < 2:
        return [0.5] * len(ratios)
    phi = math.expm1(-h) / -h - 1  # h phi_k(-h), k = 1, 2 ..., each from the one before
    factorial = 1
    b = []
    for k in range(1, len(ratios) + 1):
        b.append(phi * factorial / -h)
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    powers = torch.tensor([[r**k for r in ratios] for k in range(len(ratios))], dtype=torch.float64)
    solution: list[float] = torch.linalg.solve(powers, torch.tensor(b, dtype=torch.float64)).tolist()
    return solution
