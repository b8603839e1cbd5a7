"""Sigma schedules: at which noise levels a sampler stops on its way from noise to picture.

Every function here returns the levels before the final 0, descending, float64; `schedule` appends the 0 (KL Optimal is
defined without it). `n` is the number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from webui.errors import InvalidParams
from webui.names import AUTOMATIC, SCHEDULE_NAMES, ScheduleName, find_sampler, find_schedule
from webui.sampling.levels import sigma_to_t, t_to_sigma

SCHEDULES: dict[str, ScheduleName] = SCHEDULE_NAMES

# Sabour et al. 2024, "Align Your Steps", the published ten-step schedules.
ALIGN_YOUR_STEPS_SD1 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGN_YOUR_STEPS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a schedule is made from: the trained levels, and the range the user wants of them."""

    table: Tensor
    sigma_min: float
    sigma_max: float
    rho: float
    beta_alpha: float
    beta_beta: float
    sdxl: bool

    def timesteps(self) -> tuple[float, float]:
        """(first, last) timestep of the range, the noisiest first."""
        ends = torch.tensor([self.sigma_max, self.sigma_min], dtype=torch.float64)
        first, last = sigma_to_t(ends, self.table.log()).tolist()
        return first, last

    def trained(self) -> Tensor:
        """The trained levels inside the range; all of them by default."""
        slack = 1e-9  # so that the ends of the table, given as numbers, stay inside
        inside = (self.table >= self.sigma_min * (1 - slack)) & (self.table <= self.sigma_max * (1 + slack))
        return self.table[inside] if bool(inside.any()) else self.table


def uniform(n: int, bounds: Bounds) -> Tensor:
    """Timesteps evenly spaced from the last trained one to the first: k-diffusion's `get_sigmas`."""
    first, last = bounds.timesteps()
    return t_to_sigma(_timesteps(first, last, n), bounds.table.log())


def sgm_uniform(n: int, bounds: Bounds) -> Tensor:
    """Evenly spaced timesteps whose last one, past the end, is left to the final 0 (Stability's generative-models)."""
    first, last = bounds.timesteps()
    return t_to_sigma(_timesteps(first, last, n + 1)[:-1], bounds.table.log())


def karras(n: int, bounds: Bounds) -> Tensor:
    """Karras et al. 2022, equation 5."""
    inverse = 1 / bounds.rho
    return _linspace(bounds.sigma_max**inverse, bounds.sigma_min**inverse, n) ** bounds.rho


def exponential(n: int, bounds: Bounds) -> Tensor:
    """Evenly spaced logarithms."""
    return _linspace(math.log(bounds.sigma_max), math.log(bounds.sigma_min), n).exp()


def polyexponential(n: int, bounds: Bounds) -> Tensor:
    """A power of an even ramp, between the logarithms of the ends; `rho` 1 is `exponential`."""
    low, high = math.log(bounds.sigma_min), math.log(bounds.sigma_max)
    return (_linspace(1, 0, n) ** bounds.rho * (high - low) + low).exp()


def kl_optimal(n: int, bounds: Bounds) -> Tensor:
    """Sabour et al. 2024, the optimum for Gaussian data: even arc tangents. n + 1 levels; sigma_min is the last."""
    ramp = torch.arange(n + 1, dtype=torch.float64) / n
    return torch.tan(ramp * math.atan(bounds.sigma_min) + (1 - ramp) * math.atan(bounds.sigma_max))


def align_your_steps(n: int, bounds: Bounds) -> Tensor:
    """The published levels of Sabour et al. 2024, interpolated along their logarithm to n points.

    The table is for the usual betas: custom sigma limits do not apply.
    """
    levels = ALIGN_YOUR_STEPS_SDXL if bounds.sdxl else ALIGN_YOUR_STEPS_SD1
    published = torch.tensor(levels, dtype=torch.float64)
    if n == len(levels):
        return published
    position = _linspace(0, len(levels) - 1, n)
    low = position.floor().long().clamp(max=len(levels) - 2)
    return torch.lerp(published[low].log(), published[low + 1].log(), position - low).exp()


def simple(n: int, bounds: Bounds) -> Tensor:
    """Every (T / n)-th trained level, from the last one down."""
    trained = bounds.trained()
    stride = len(trained) / n
    return trained[[-(1 + int(i * stride)) for i in range(n)]]


def ddim(n: int, bounds: Bounds) -> Tensor:
    """Trained levels 1, 1 + s, 1 + 2s ... with the whole stride s = T // n (Song et al. 2021, as in every tool).

    Where n does not divide T this gives more than n levels: 13 steps of 1,000 become 14.
    """
    trained = bounds.trained()
    stride = max(len(trained) // n, 1)
    return trained[1::stride].flip(0)


def beta(n: int, bounds: Bounds) -> Tensor:
    """Lee et al. 2024, "Beta Sampling is All You Need": quantiles of a beta distribution between the two ends.

    On the levels themselves, as A1111 has it; ComfyUI takes the quantiles of the timesteps.
    """
    from scipy.special import betaincinv  # 0.1 s of import for one schedule of thirteen

    quantiles = betaincinv(bounds.beta_alpha, bounds.beta_beta, (1 - _linspace(0, 1, n)).numpy())
    return bounds.sigma_min + torch.from_numpy(quantiles) * (bounds.sigma_max - bounds.sigma_min)


def turbo(n: int, bounds: Bounds) -> Tensor:
    """Timesteps k T / n - 1 for k = n ... 1, rounded: those that SD Turbo was distilled at (Sauer et al. 2023)."""
    trained = bounds.trained()
    k = torch.arange(n, 0, -1, dtype=torch.float64)
    return trained[(k * (len(trained) / n) - 1).round().long().clamp(0)]


_FUNCTIONS: dict[str, Callable[[int, Bounds], Tensor]] = {
    AUTOMATIC: uniform,
    "Uniform": uniform,
    "Karras": karras,
    "Exponential": exponential,
    "Polyexponential": polyexponential,
    "SGM Uniform": sgm_uniform,
    "KL Optimal": kl_optimal,
    "Align Your Steps": align_your_steps,
    "Simple": simple,
    "Normal": uniform,
    "DDIM": ddim,
    "Beta": beta,
    "Turbo": turbo,
}
_WITHOUT_FINAL_ZERO = frozenset({"KL Optimal"})


def add_function(name: str, function: Callable[[int, float, float], Sequence[float]]) -> None:
    """Give a schedule that `webui.names` knows its function: n steps, sigma_min, sigma_max -> n levels, descending."""
    _FUNCTIONS[name] = lambda n, bounds: torch.tensor(
        list(function(n, bounds.sigma_min, bounds.sigma_max)), dtype=torch.float64
    )


def schedule(
    name: str,
    n: int,
    table: Tensor | Sequence[float],
    *,
    sigma_min: float = 0.0,
    sigma_max: float = 0.0,
    rho: float = 0.0,
    beta_alpha: float = 0.6,
    beta_beta: float = 0.6,
    sdxl: bool = False,
) -> Tensor:
    """The sigmas of n steps, descending, 1-D float64; n + 1 of them, the last is 0 (but see `ddim`, `kl_optimal`).

    `name` is a name or alias in any case; "Automatic" is Uniform, as no sampler is known here. `table` is the ascending
    list of trained sigmas. 0 for sigma_min, sigma_max and rho means the table's ends and the schedule's own rho.
    `sdxl` chooses between the tables of Align Your Steps. Raises `InvalidParams` for an unknown name or an empty range.
    """
    known = find_schedule(name)
    if n < 1:
        raise InvalidParams(f"A schedule of {n} steps is not possible.", "Ask for at least 1 step.")
    table = torch.as_tensor(table, dtype=torch.float64, device="cpu")
    bounds = Bounds(
        table=table,
        sigma_min=sigma_min or float(table[0]),
        sigma_max=sigma_max or float(table[-1]),
        rho=rho or known.default_rho,
        beta_alpha=beta_alpha,
        beta_beta=beta_beta,
        sdxl=sdxl,
    )
    if bounds.sigma_min >= bounds.sigma_max:
        raise InvalidParams(
            f"The sigmas cannot run from {bounds.sigma_max:g} down to {bounds.sigma_min:g}.",
            "Set sigma min below sigma max, or both to 0 for the model's own.",
        )
    function = _FUNCTIONS.get(known.name)
    if function is None:
        raise InvalidParams(f'The schedule "{name[:80]}" belongs to an extension that did not load.', "Choose another.")
    sigmas = function(n, bounds)
    return sigmas if known.name in _WITHOUT_FINAL_ZERO else _append_zero(sigmas)


def make_sigmas(
    sampler: str,
    schedule_name: str,
    n: int,
    table: Tensor | Sequence[float],
    *,
    sigma_min: float = 0.0,
    sigma_max: float = 0.0,
    rho: float = 0.0,
    beta_alpha: float = 0.6,
    beta_beta: float = 0.6,
    sdxl: bool = False,
    discard_penultimate: bool = False,
    custom: Sequence[float] | None = None,
    to_cut: bool = False,
) -> Tensor:
    """The sigmas that this sampler runs on, descending, 1-D float64.

    "Automatic" is the schedule in the sampler's old combined name ("DPM++ 2M Karras"), else the sampler's default.
    Samplers that discard the penultimate sigma get one more made and the second last dropped. `custom` is the user's
    own list and wins over everything else. Raises `InvalidParams`.

    UniPC takes of DDIM's list no more than its length, as in the other tools: over its authors' grid ("time uniform"),
    which is that of SGM Uniform.

    DPM fast and DPM adaptive, whose steps are their own, run from the highest level to the lowest whatever schedule is
    chosen. `to_cut`: the list is one of which `partial_schedule` takes the end; where that begins, and so the levels
    these two run between, is for the chosen schedule to say.
    """
    if custom is not None:
        return custom_sigmas(custom)
    info, combined = find_sampler(sampler)
    chosen = find_schedule(schedule_name)
    if chosen.name == AUTOMATIC:
        chosen = combined or find_schedule(info.default_schedule)
        if combined is None and info.name == "UniPC":
            chosen, n = find_schedule("SGM Uniform"), len(schedule("DDIM", n, table)) - 1
    discard = discard_penultimate or info.discard_penultimate
    if info.own_schedule and not to_cut:
        chosen, discard = find_schedule(info.default_schedule), False  # discarding would raise the lowest level
    sigmas = schedule(
        chosen.name,
        n + 1 if discard else n,
        table,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        rho=rho,
        beta_alpha=beta_alpha,
        beta_beta=beta_beta,
        sdxl=sdxl,
    )
    return torch.cat((sigmas[:-2], sigmas[-1:])) if discard else sigmas


def custom_sigmas(values: Sequence[float]) -> Tensor:
    """A user's own list, checked: finite, positive, strictly descending; the final 0 is added where it is missing."""
    sigmas = [float(v) for v in values]
    if sigmas and sigmas[-1] != 0:
        sigmas.append(0.0)
    if len(sigmas) < 2 or not all(math.isfinite(s) for s in sigmas):
        raise InvalidParams("The list of sigmas holds no step.", "Give at least one positive number.")
    for before, after in pairwise(sigmas):
        if before <= after:
            raise InvalidParams(
                f"The list of sigmas does not descend: {before:g} is followed by {after:g}.",
                "Write it from the noisiest level down to 0.",
            )
    return torch.tensor(sigmas, dtype=torch.float64)


def _linspace(start: float, end: float, n: int) -> Tensor:
    return torch.linspace(start, end, n, dtype=torch.float64)


def _timesteps(first: float, last: float, n: int) -> Tensor:
    """Evenly spaced, rounded to single precision as k-diffusion has them; the sigmas show it at 1e-7."""
    return _linspace(first, last, n).float().double()


def _append_zero(sigmas: Tensor) -> Tensor:
    return torch.cat((sigmas, sigmas.new_zeros(1)))
