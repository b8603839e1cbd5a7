"""Linear multistep methods: keep the last slopes d = (x - D) / sigma, and integrate a polynomial through them.

x' = x + integral of P dsigma over the step, where P runs through the last slopes. The methods differ in the variable
that P is a polynomial of, and in what they do about uneven steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from webui.sampling.contract import Model, Report

Weights = Callable[[Sequence[float], float], list[float]]
"""`weights(the sigmas of the known slopes, newest first, and the next sigma) -> the weight of each slope`."""

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""For even steps, by order - 1; in units of the step."""


def lms(model: Model, x: Tensor, sigmas: Sequence[float], report: Report, *, order: int = 4) -> Tensor:
    """Adams-Bashforth for uneven steps, P in sigma (Katherine Crowson, k-diffusion). Order 4."""
    return _multistep(model, x, sigmas, report, order, lms_weights, last_is_euler=False)


def ipndm(model: Model, x: Tensor, sigmas: Sequence[float], report: Report, *, order: int = 4) -> Tensor:
    """iPNDM (Zhang and Chen 2022): the weights of even steps on any steps. Order 4 on even ones, else 2."""
    return _multistep(model, x, sigmas, report, min(order, 4), even_weights, last_is_euler=True)


def ipndm_v(model: Model, x: Tensor, sigmas: Sequence[float], report: Report, *, order: int = 4) -> Tensor:
    """iPNDM with the weights of the true, uneven steps (Zhou et al. 2024): `lms`, but for the step into 0. Order 4."""
    return _multistep(model, x, sigmas, report, order, lms_weights, last_is_euler=True)


def deis(model: Model, x: Tensor, sigmas: Sequence[float], report: Report, *, order: int = 3) -> Tensor:
    """DEIS (Zhang and Chen 2022) in its log-rho form: P in log sigma. Order 3."""
    return _multistep(model, x, sigmas, report, order, deis_weights, last_is_euler=True)


def _multistep(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    order: int,
    weights: Weights,
    *,
    last_is_euler: bool,
) -> Tensor:
    """The loop they share. The order grows with the slopes there are; a step into 0 may be left to Euler's method."""
    slopes: list[Tensor] = []
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes[: order - 1]]
        if last_is_euler and sigma_next == 0:
            x = denoised
        else:
            known = sigmas[i + 1 - len(slopes) : i + 1][::-1]
            for weight, d in zip(weights(known, sigma_next), slopes, strict=True):
                x = x + weight * d
        report(i, sigma, sigma_next, x, denoised)
    return x


def even_weights(known: Sequence[float], sigma_next: float) -> list[float]:
    """As if all steps had been as long as the coming one."""
    return [w * (sigma_next - known[0]) for w in ADAMS_BASHFORTH[len(known) - 1]]


def lms_weights(known: Sequence[float], sigma_next: float) -> list[float]:
    """P is a polynomial of sigma; with s = sigma - sigma_i the integral of s^k is h^(k + 1) / (k + 1)."""
    h = sigma_next - known[0]
    return lagrange_weights([s - known[0] for s in known], [h ** (k + 1) / (k + 1) for k in range(len(known))])


def deis_weights(known: Sequence[float], sigma_next: float) -> list[float]:
    """P is a polynomial of v = log(sigma / sigma_i); integrals of v^k dsigma by parts, each from the one before."""
    v = math.log(sigma_next / known[0])
    moments = [sigma_next - known[0]]
    for k in range(1, len(known)):
        moments.append(sigma_next * v**k - k * moments[-1])
    return lagrange_weights([math.log(s / known[0]) for s in known], moments)


def lagrange_weights(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """The integral of each Lagrange polynomial over the nodes, from the integrals of the powers 1, s, s^2 ..."""
    weights = []
    for j, node in enumerate(nodes):
        coefficients, scale = [1.0], 1.0  # of the product of (s - other), lowest power first
        for other in (*nodes[:j], *nodes[j + 1 :]):
            raised = [0.0, *coefficients]
            lowered = [-other * c for c in (*coefficients, 0.0)]
            coefficients = [a + b for a, b in zip(raised, lowered, strict=True)]
            scale *= node - other
        weights.append(sum(c * m for c, m in zip(coefficients, moments, strict=True)) / scale)
    return weights
