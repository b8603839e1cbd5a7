"""`sample`: a sampler by its name. `SAMPLERS`: all of them, with their flags and the options each one knows."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from webui.errors import InvalidParams
from webui.names import SAMPLER_NAMES, SamplerName, find_sampler
from webui.sampling.contract import Denoiser, Model, Noise, Report, StepInfo
from webui.sampling.methods import consistency, dpm, dpmpp, dpmpp_sde, euler, flow, heunpp, multistep, restart, timestep
from webui.sampling.methods.stochastic import Churn

Callback = Callable[[StepInfo], None]

_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "DPM++ 2M": dpmpp.dpmpp_2m,
    "DPM++ SDE": dpmpp_sde.dpmpp_sde,
    "DPM++ 2M SDE": dpmpp_sde.dpmpp_2m_sde,
    "DPM++ 2M SDE Heun": dpmpp_sde.dpmpp_2m_sde_heun,
    "DPM++ 2S a": dpmpp.dpmpp_2s_ancestral,
    "DPM++ 3M SDE": dpmpp_sde.dpmpp_3m_sde,
    "Euler a": euler.euler_ancestral,
    "Euler": euler.euler,
    "LMS": multistep.lms,
    "Heun": euler.heun,
    "DPM2": euler.dpm_2,
    "DPM2 a": euler.dpm_2_ancestral,
    "DPM fast": dpm.dpm_fast,
    "DPM adaptive": dpm.dpm_adaptive,
    "Restart": restart.restart,
    "HeunPP2": heunpp.heunpp2,
    "IPNDM": multistep.ipndm,
    "IPNDM_V": multistep.ipndm_v,
    "DEIS": multistep.deis,
    "DDIM": timestep.ddim,
    "DDIM CFG++": timestep.ddim_cfgpp,
    "Euler CFG++": euler.euler_cfgpp,
    "PLMS": timestep.plms,
    "UniPC": timestep.unipc,
    "LCM": consistency.lcm,
    "TCD": consistency.tcd,
    "DDPM": timestep.ddpm,
    "Euler (flow)": flow.flow_euler,
    "DPM++ 2M (flow)": flow.flow_dpmpp_2m,
}
_CHURN_OPTIONS = tuple(f.name for f in dataclasses.fields(Churn))
_CONTRACT = frozenset({"model", "x", "sigmas", "report", "noise", "churn"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler(SamplerName):
    """A sampler's name and flags, its function, and the options of `sample` that change what it does."""

    function: Callable[..., Tensor]
    options: frozenset[str]
    draws_noise: bool  # with some value of its options


def _sampler(info: SamplerName) -> Sampler:
    function = _FUNCTIONS[info.name]
    parameters = frozenset(inspect.signature(function).parameters)
    options = parameters - _CONTRACT | (frozenset(_CHURN_OPTIONS) if "churn" in parameters else frozenset())
    flags = {f.name: getattr(info, f.name) for f in dataclasses.fields(SamplerName)}
    return Sampler(**flags, function=function, options=options, draws_noise="noise" in parameters)


SAMPLERS: dict[str, Sampler] = {name: _sampler(SAMPLER_NAMES[name]) for name in _FUNCTIONS}
_KNOWN_OPTIONS = frozenset(_CHURN_OPTIONS).union(*(s.options for s in SAMPLERS.values()))


def add_function(name: str, function: Callable[..., Tensor]) -> None:
    """Give a sampler that `webui.names` knows its function, written to the contract of the methods in `methods/`."""
    _FUNCTIONS[name] = function
    SAMPLERS[name] = _sampler(SAMPLER_NAMES[name])


def sample(
    name: str,
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
    **options: Any,
) -> Tensor:
    """Take x (B, C, H, W), noisy at `sigmas[0]`, down to `sigmas[-1]`, with the sampler of that name or alias.

    `denoiser(x, sigma (B,))` is asked for the clean picture. `noise(sigma, sigma_next)` gives unit noise like x to the
    samplers that add any; without it, torch's global generator does. `callback` gets a `StepInfo` after each step; what
    it raises ends the sampling and comes out here.

    Options, each ignored by the samplers that do not have it and None for the sampler's own value: `eta` (noise of the
    ancestral, SDE and DDIM samplers), `s_noise`, `s_churn`, `s_tmin`, `s_tmax` (0 = no bound), and what
    `Sampler.options` names. Raises `InvalidParams` for an unknown sampler or sigmas that do not descend, `TypeError`
    for an option that no sampler has.
    """
    sampler = SAMPLERS.get(find_sampler(name)[0].name)
    if sampler is None:
        raise InvalidParams(f'The sampler "{name[:80]}" belongs to an extension that did not load.', "Choose another.")
    unknown = options.keys() - _KNOWN_OPTIONS
    if unknown:
        raise TypeError(f"no sampler has the option {', '.join(sorted(unknown))}; known: {sorted(_KNOWN_OPTIONS)}")
    given = {key: value for key, value in options.items() if value is not None and key in sampler.options}
    if sampler.draws_noise:
        given["noise"] = noise or (lambda _sigma, _sigma_next: torch.randn_like(x))
        if "s_churn" in sampler.options:
            given["churn"] = Churn(**{key: given.pop(key) for key in _CHURN_OPTIONS if key in given})
    with torch.no_grad():
        return sampler.function(Model(denoiser), x, _levels(sigmas), _reporter(callback), **given)


def count_calls(name: str, sigmas: Tensor | Sequence[float]) -> int:
    """How often the sampler will call the denoiser; found by running it on one number.

    For DPM adaptive, which decides as it goes, it is the least that can be expected.
    """
    calls = 0

    def counting(x: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG001
        nonlocal calls
        calls += 1
        return torch.zeros_like(x)

    one = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    sample(name, counting, one, sigmas, noise=lambda _sigma, _sigma_next: one)
    return calls


def _levels(sigmas: Tensor | Sequence[float]) -> list[float]:
    levels = [float(s) for s in (sigmas.tolist() if isinstance(sigmas, Tensor) else sigmas)]
    for before, after in pairwise(levels):
        if not (math.isfinite(before) and before > after >= 0):
            raise InvalidParams(
                f"The sigmas do not descend: {before:g} is followed by {after:g}.",
                "Give finite noise levels from the highest down to the lowest.",
            )
    return levels


def _reporter(callback: Callback | None) -> Report:
    if callback is None:
        return lambda *_: None

    def report(index: int, sigma: float, sigma_next: float, x: Tensor, denoised: Tensor) -> None:
        callback(StepInfo(index, sigma, sigma_next, x, denoised))

    return report
