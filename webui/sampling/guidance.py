"""Classifier-free guidance (Ho and Salimans 2022) over composable conditions (Liu et al. 2022), with step hooks.

A hook changes one thing about a call of the denoiser: before it, whether and how strongly it is guided; after it, the
combined result. Hooks are plain objects, run in the order given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from webui.sampling.denoiser import Prediction

CFG_PLUS_PLUS_DIVISOR = 12.5  # maps the usual CFG range 0 ... 12.5 on the 0 ... 1 of CFG++


class CondOutputs(NamedTuple):
    """What the network says at one call: a clean picture and a weight for each condition, and the unconditional one."""

    conds: list[tuple[Tensor, float]]
    uncond: Tensor | None


class Evaluate(Protocol):
    """Runs the network: `x` (B, C, H, W), `sigma` (B,), `call` counted from 0.

    Without `with_uncond` the unconditional pass need not run, and `CondOutputs.uncond` may be None. `level` is the
    greatest value of `sigma` as a number, for whoever decides by it: reading `sigma` would wait for the device.
    """

    def __call__(self, x: Tensor, sigma: Tensor, call: int, with_uncond: bool, level: float, /) -> CondOutputs: ...


@dataclass(slots=True)
class GuidanceStep:
    """One call of the denoiser on its way through the hooks."""

    x: Tensor
    sigma: float
    call: int
    total_calls: int
    cfg_scale: float
    with_uncond: bool
    conds: list[tuple[Tensor, float]]
    uncond: Tensor | None
    denoised: Tensor

    def cond(self) -> Tensor:
        """The conditions alone, at a guidance of 1: u + sum w (c - u)."""
        return combine(self.conds, self.uncond, 1.0)


class GuidanceHook(Protocol):
    """A change to every call of the denoiser."""

    def before(self, step: GuidanceStep) -> None:
        """May change `step.x`, `step.cfg_scale` and `step.with_uncond`; there are no outputs yet."""

    def after(self, step: GuidanceStep) -> None:
        """May replace `step.denoised`."""


def combine(conds: Sequence[tuple[Tensor, float]], uncond: Tensor | None, cfg_scale: float) -> Tensor:
    """x0 = u + sum_i w_i cfg (c_i - u). Where no unconditional pass was run, the first condition stands in for u."""
    base = conds[0][0] if uncond is None else uncond
    x0 = base
    for cond, weight in conds:
        if cond is not base:
            x0 = x0 + (cond - base) * (weight * cfg_scale)
    return x0


def _weights_add_up(conds: Sequence[tuple[Tensor, float]]) -> bool:
    return math.isclose(sum(weight for _, weight in conds), 1.0)


class GuidedDenoiser:
    """A denoiser for `sample`: evaluates the conditions, combines them, and lets the hooks have their say.

    At CFG 1 the unconditional picture cancels out (u + 1 (c - u) = c), so it is not computed; should the weights of
    several conditions not add up to 1, it does not cancel, and is asked for. `calls` counts the denoiser calls so far.
    Give `sample` this object itself, not a function around it: it is told the noise level as a number, so that hooks
    decide without waiting for the device, and CFG++ samplers ask it for the unconditional picture.
    """

    def __init__(
        self, evaluate: Evaluate, *, cfg_scale: float, total_calls: int, hooks: Sequence[GuidanceHook] = ()
    ) -> None:
        self.evaluate = evaluate
        self.cfg_scale = cfg_scale
        self.total_calls = total_calls
        self.hooks = tuple(hooks)
        self.calls = 0
        self._uncond_cancels = True

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The guided clean picture (B, C, H, W). Reads `sigma` (B,) back from the device; `at_level` does not."""
        return self.at_level(x, sigma, float(sigma.max()))

    def at_level(self, x: Tensor, sigma: Tensor, level: float) -> Tensor:
        """The guided clean picture; `level` is the greatest value of `sigma` as a number."""
        return self._guide(x, sigma, level, self.cfg_scale, always_uncond=False).denoised

    def with_uncond(self, x: Tensor, sigma: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """(guided, unconditional) for CFG++, whose guidance is the CFG scale divided by 12.5."""
        step = self._guide(x, sigma, level, self.cfg_scale / CFG_PLUS_PLUS_DIVISOR, always_uncond=True)
        return step.denoised, step.denoised if step.uncond is None else step.uncond

    def _guide(self, x: Tensor, sigma: Tensor, level: float, cfg_scale: float, *, always_uncond: bool) -> GuidanceStep:
        step = GuidanceStep(
            x=x,
            sigma=level,
            call=self.calls,
            total_calls=self.total_calls,
            cfg_scale=cfg_scale,
            with_uncond=True,
            conds=[],
            uncond=None,
            denoised=x,
        )
        for hook in self.hooks:
            hook.before(step)
        wanted = step.with_uncond or always_uncond
        needed = always_uncond or not (self._uncond_cancels and math.isclose(step.cfg_scale, 1.0))
        step.conds, step.uncond = self.evaluate(step.x, sigma, step.call, wanted and needed, level)
        if wanted and not needed and step.uncond is None and not _weights_add_up(step.conds):
            self._uncond_cancels = False
            step.conds, step.uncond = self.evaluate(step.x, sigma, step.call, True, level)
        self.calls += 1
        step.denoised = combine(step.conds, step.uncond, step.cfg_scale)
        for hook in self.hooks:
            hook.after(step)
        return step


@dataclass(frozen=True, slots=True)
class NegativeGuidanceMinSigma:
    """Below this noise level every second call (or each) runs without the unconditional pass: faster, hardly seen."""

    min_sigma: float
    all_steps: bool = False

    def before(self, step: GuidanceStep) -> None:
        if step.sigma < self.min_sigma and (self.all_steps or step.call % 2):
            step.cfg_scale, step.with_uncond = 1.0, False

    def after(self, step: GuidanceStep) -> None:
        """Nothing to do."""


@dataclass(frozen=True, slots=True)
class SkipEarlyCfg:
    """The first share of the calls, 0 (none) to 1, runs without guidance: more varied compositions."""

    share: float

    def before(self, step: GuidanceStep) -> None:
        if self.share > 0 and step.call <= self.share * step.total_calls:
            step.cfg_scale, step.with_uncond = 1.0, False

    def after(self, step: GuidanceStep) -> None:
        """Nothing to do."""


@dataclass(frozen=True, slots=True)
class GuidanceEnd:
    """After this share of the calls, 0 to 1 (never), there is no guidance: half the work, and details less strict
    (Kynkäänniemi et al. 2024 find that late guidance does little).
    """

    share: float

    def before(self, step: GuidanceStep) -> None:
        if step.call >= self.share * step.total_calls:
            step.cfg_scale, step.with_uncond = 1.0, False

    def after(self, step: GuidanceStep) -> None:
        """Nothing to do."""


@dataclass(frozen=True, slots=True)
class CfgRescale:
    """Lin et al. 2023, section 3.4, equations 15 and 16: give the guided output the spread of the conditional one.

    `phi` is the share of the rescaled output, 0 (off) to 1; 0.7 is usual. The rescaling is done on the network's
    output, so it has to know which it is: `prediction`. (ComfyUI takes "v" for every model.)
    """

    phi: float
    prediction: Prediction = "v"

    def before(self, step: GuidanceStep) -> None:
        """Nothing to do."""

    def after(self, step: GuidanceStep) -> None:
        if self.phi == 0 or step.uncond is None:
            return
        # The output is (a x - D) / b for "eps" and "flow" (a = 1, b = sigma) and for "v" (a = c_in^2, b = sigma c_in).
        # b drops out of the ratio of the two spreads and of the way back.
        scale = 1 / (step.sigma**2 + 1) if self.prediction == "v" else 1.0
        shifted = step.x * scale
        guided, cond = shifted - step.denoised, shifted - step.cond()
        dims = tuple(range(1, guided.ndim))
        ratio = cond.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
        step.denoised = shifted - guided * (self.phi * ratio + (1 - self.phi))


@dataclass(frozen=True, slots=True)
class DynamicThresholding:
    """Saharia et al. 2022, section 2.3, for latents: clip what a strong guidance overshoots, shrink to a milder range.

    Per picture and channel, around the mean: values beyond the `percentile` of their absolute value (0.995 is usual,
    0 is off) are clipped, and the rest is scaled to the range that a guidance of `mimic_scale` would have had.
    """

    percentile: float
    mimic_scale: float = 7.0

    def before(self, step: GuidanceStep) -> None:
        """Nothing to do."""

    def after(self, step: GuidanceStep) -> None:
        if self.percentile == 0 or step.uncond is None:
            return
        mimic = combine(step.conds, step.uncond, self.mimic_scale).flatten(2)
        guided = step.denoised.flatten(2)
        mean = guided.mean(2, keepdim=True)
        centred = guided - mean
        target = (mimic - mimic.mean(2, keepdim=True)).abs().amax(2, keepdim=True)
        reach = torch.quantile(centred.abs().float(), self.percentile, dim=2, keepdim=True).to(centred.dtype)
        limit = torch.maximum(reach, target)
        clipped = centred.clamp(-limit, limit) * (target / limit.clamp(min=torch.finfo(limit.dtype).tiny))
        step.denoised = (mean + clipped).view_as(step.denoised)
