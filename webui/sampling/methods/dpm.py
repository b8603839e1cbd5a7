"""DPM-Solver (Lu et al. 2022a): exponential integrators that predict the noise, single-step, orders 1 to 3.

In t = -log sigma: dx/dt = -sigma eps. A solver step from t to t + h evaluates eps inside the step. Times are floats, or
(B, 1, 1, 1) tensors where each picture goes its own pace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from webui.sampling.contract import Model, Noise, Report
from webui.sampling.methods.stochastic import ancestral_step
from webui.sampling.transfer import to_device

Time = TypeVar("Time", float, Tensor)


def dpm_fast(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    noise: Noise,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """DPM-Solver-fast: n calls shared out over steps of order 3, with one of order 2 or 1, or both, to make them fit.

    Of the schedule only its ends and its length count: the steps are even in log sigma. Where the schedule ends in 0, a
    last call takes the clean picture at the lowest level. `eta` adds ancestral noise (k-diffusion).
    """
    sigma_max, sigma_min, nfe = sigmas[0], _lowest(sigmas), len(sigmas) - 1
    rest = nfe % 3
    orders = [3] * (nfe // 3 - 1) + [2, 1] if rest == 0 else [3] * (nfe // 3) + [rest]
    if sigma_min == sigma_max:
        orders = []
    times = [
        -math.log(sigma_max) + i / max(len(orders), 1) * math.log(sigma_max / sigma_min) for i in range(len(orders) + 1)
    ]

    def eps(x: Tensor, t: float) -> Tensor:
        return (x - model(x, math.exp(-t))) / math.exp(-t)

    for i, (order, (t, t_next)) in enumerate(zip(orders, pairwise(times), strict=True)):
        sigma, sigma_next = math.exp(-t), math.exp(-t_next)
        t_down, sigma_up = _down_time(t, t_next, times[-1], eta)
        eps_0 = eps(x, t)
        denoised = x - sigma * eps_0
        if order == 1:
            x = solver_1(x, t, t_down, eps_0)
        elif order == 2:
            s = t + (t_down - t) / 2
            x = solver_2(x, t, t_down, eps_0, eps(solver_1(x, t, s, eps_0), s), r1=1 / 2)
        else:
            x = solver_2_and_3(x, t, t_down, eps_0, eps)[1]
        if sigma_up > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
        report(i, sigma, sigma_next, x, denoised)
    return _to_zero(model, x, sigmas, report, len(orders))


def dpm_adaptive(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float],
    report: Report,
    noise: Noise,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    accept_safety: float = 0.81,
) -> Tensor:
    """Adaptive DPM-Solver-23: steps of order 3 whose length follows from the difference to order 2.

    The step lengths are k-diffusion's, whose controller takes the order for 1.5 where noise is added (`eta` not 0).

    Of the schedule only its ends count. Every picture has its own step length and its own noise, so that a batch equals
    its singles; one that is done waits for the others. Whether a step is accepted is for the numbers to say, so this
    sampler, alone of all, has to wait for the device.
    """
    count = x.shape[0]
    t_end = -math.log(_lowest(sigmas))
    order = 1.5 if eta else 3.0
    pictures = [_Pace(-math.log(sigmas[0]), t_end, h_init, accept_safety, order) for _ in range(count)]
    drawn = _Draws(noise)
    x_prev = x
    index = 0
    while not all(p.done for p in pictures):
        t, t_next = [p.t for p in pictures], [p.t_next for p in pictures]
        down, up = zip(*(_down_time(a, b, t_end, eta) for a, b in zip(t, t_next, strict=True)), strict=True)

        def eps(x: Tensor, times: Tensor) -> Tensor:
            levels = (-times).exp()
            return (x - model.per_picture(x, levels.flatten())) / levels

        start = _column(t, x)
        eps_0 = eps(x, start)
        denoised = x - (-start).exp() * eps_0
        x_low, x_high = solver_2_and_3(x, start, _column(down, x), eps_0, eps)
        tolerance = torch.clamp(rtol * torch.maximum(x_low.abs(), x_prev.abs()), min=atol)
        errors = ((x_low - x_high) / tolerance).square().mean((1, 2, 3)).sqrt().tolist()

        accepted = [p.judge(error) for p, error in zip(pictures, errors, strict=True)]
        if not any(accepted):
            continue
        for picture, (ok, sigma_up) in enumerate(zip(accepted, up, strict=True)):
            if ok and sigma_up > 0:
                sigma, sigma_next = math.exp(-t[picture]), math.exp(-t_next[picture])
                x_high[picture] += drawn.next(picture, sigma, sigma_next) * (s_noise * sigma_up)
        mask = to_device(torch.tensor(accepted), x.device).view(-1, 1, 1, 1)
        x, x_prev = torch.where(mask, x_high, x), torch.where(mask, x_low, x_prev)
        report(index, math.exp(-min(t)), math.exp(-min(p.t for p in pictures)), x, denoised)
        index += 1
    return _to_zero(model, x, sigmas, report, index)


class _Pace:
    """The step length of one picture: accept where the error allows, then stretch or shrink the next step."""

    def __init__(self, t: float, t_end: float, h: float, accept_safety: float, order: float) -> None:
        self.t = t
        self.t_end = t_end
        self._h = h
        self._safety = accept_safety
        self._order = order

    @property
    def done(self) -> bool:
        return self.t >= self.t_end - 1e-5

    @property
    def t_next(self) -> float:
        """Where the next step ends; a picture that is done keeps a length that can be divided by."""
        return self.t + self._h if self.done else min(self.t_end, self.t + self._h)

    def judge(self, error: float) -> bool:
        """Whether the step was good enough; moves on if it was."""
        if self.done:
            return False
        if not math.isfinite(error):  # the picture is lost; whoever asked for it will see that, if this comes to an end
            self.t = self.t_next
            return True
        factor = 1 + math.atan((error + 1e-8) ** (-1 / self._order) - 1)
        accepted = factor >= self._safety
        if accepted:
            self.t = self.t_next
        self._h *= factor
        return accepted


class _Draws:
    """The k-th noise of each picture, where the pictures are not at the same k."""

    def __init__(self, noise: Noise) -> None:
        self._noise = noise
        self._batches: list[Tensor] = []
        self._used: dict[int, int] = {}

    def next(self, picture: int, sigma: float, sigma_next: float) -> Tensor:
        k = self._used.get(picture, 0)
        self._used[picture] = k + 1
        if k == len(self._batches):
            self._batches.append(self._noise(sigma, sigma_next))
        return self._batches[k][picture]


def solver_1(x: Tensor, t: Time, t_next: Time, eps_0: Tensor) -> Tensor:
    """DPM-Solver-1: x' = x - sigma' (exp(h) - 1) eps, which is DDIM."""
    return x - _exp(-t_next) * _expm1(t_next - t) * eps_0


def solver_2(x: Tensor, t: Time, t_next: Time, eps_0: Tensor, eps_1: Tensor, r1: float) -> Tensor:
    """DPM-Solver-2: `eps_1` is the noise at t + r1 h."""
    return x - _exp(-t_next) * _expm1(t_next - t) * (eps_0 + (eps_1 - eps_0) / (2 * r1))


def solver_2_and_3(
    x: Tensor, t: Time, t_next: Time, eps_0: Tensor, eps: Callable[[Tensor, Time], Tensor]
) -> tuple[Tensor, Tensor]:
    """(DPM-Solver-2, DPM-Solver-3): they share the call at t + h / 3; the latter has another at t + 2 h / 3."""
    r1, r2 = 1 / 3, 2 / 3
    h = t_next - t
    s1, s2 = t + r1 * h, t + r2 * h
    eps_1 = eps(solver_1(x, t, s1, eps_0), s1)
    second = _expm1(r2 * h) / (r2 * h) - 1
    u2 = solver_1(x, t, s2, eps_0) - _exp(-s2) * (r2 / r1) * second * (eps_1 - eps_0)
    eps_2 = eps(u2, s2)
    third = _expm1(h) / h - 1
    x_3 = solver_1(x, t, t_next, eps_0) - _exp(-t_next) / r2 * third * (eps_2 - eps_0)
    return solver_2(x, t, t_next, eps_0, eps_1, r1), x_3


def _down_time(t: float, t_next: float, t_end: float, eta: float) -> tuple[float, float]:
    """(time to go down to, sigma of the noise to come back up with), never past the end."""
    down, up = ancestral_step(math.exp(-t), math.exp(-t_next), eta)
    if up == 0:
        return t_next, 0.0
    t_down = t_end if down == 0 else min(t_end, -math.log(down))
    t_down = max(t_down, t_next)
    return t_down, math.sqrt(max(math.exp(-2 * t_next) - math.exp(-2 * t_down), 0.0))


def _to_zero(model: Model, x: Tensor, sigmas: Sequence[float], report: Report, index: int) -> Tensor:
    """The solvers stop at the lowest level above 0; the clean picture there is one call away."""
    if sigmas[-1] > 0:
        return x
    sigma = _lowest(sigmas)
    denoised = model(x, sigma)
    report(index, sigma, 0.0, denoised, denoised)
    return denoised


def _lowest(sigmas: Sequence[float]) -> float:
    return sigmas[-1] if sigmas[-1] > 0 else sigmas[-2]


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return to_device(torch.tensor(values, dtype=like.dtype), like.device).view(-1, 1, 1, 1)


def _exp(t: Time) -> Time:
    return t.exp() if isinstance(t, Tensor) else math.exp(t)


def _expm1(t: Time) -> Time:
    return t.expm1() if isinstance(t, Tensor) else math.expm1(t)
