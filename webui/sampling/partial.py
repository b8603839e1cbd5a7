"""The part of a schedule that is run when there is a picture to start from (SDEdit, Meng et al. 2022).

Which step it begins with follows AUTOMATIC1111, its odd corners included: old pictures depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from webui.errors import InvalidParams
from webui.names import AUTOMATIC, find_sampler, find_schedule
from webui.sampling.schedules import custom_sigmas, make_sigmas, schedule

STRONGEST = 0.999  # 1 would begin a step before the first
MAX_SCHEDULE = 100_000  # steps of the whole schedule, most of which are left out


@dataclass(frozen=True, slots=True)
class Partial:
    """`sigmas` are those that are run, descending (one number or none: nothing is run).

    `start` is the level of the noise that is added to the picture; it differs from `sigmas[0]` in the DDIM family.
    `low` and `high` are the ends of the whole schedule, which Brownian noise spans.
    """

    sigmas: Tensor
    start: float
    low: float
    high: float


def partial_schedule(
    sampler: str,
    schedule_name: str,
    steps: int,
    table: Tensor,
    *,
    strength: float,
    exact: bool,
    custom: Sequence[float] | None = None,
    **options: Any,
) -> Partial:
    """The end of a schedule, `strength` of it (0 to 1).

    `exact`: the part that is run has `steps` steps; otherwise the whole has, and t + 1 of them are run with
    t = int(strength * steps). The DDIM family on its own timesteps runs t of them, from noise of the next higher one.
    `custom` sigmas are the whole schedule. `options` go to `make_sigmas`. Raises `InvalidParams`.
    """
    strength = min(strength, STRONGEST)
    if custom is not None:
        exact, steps = False, len(custom_sigmas(custom)) - 1
    if exact and strength > 0 and steps / strength > MAX_SCHEDULE:
        raise InvalidParams(
            f"A denoising strength of {strength:g} is too small for {steps} exact steps.",
            "Raise it, or take fewer steps; 0 keeps the picture as it is.",
        )
    total = (int(steps / strength) if strength else 0) if exact else steps
    run = steps - 1 if exact else int(strength * steps)
    if total < 1:
        return Partial(torch.zeros(0, dtype=torch.float64), 0.0, 0.0, 0.0)
    whole = make_sigmas(sampler, schedule_name, total, table, custom=custom, to_cut=True, **options)
    positive = whole[whole > 0]
    low, high = float(positive.min()), float(positive.max())
    info, combined = find_sampler(sampler)
    chosen = find_schedule(schedule_name)
    own_steps = chosen.name == "DDIM" or (chosen.name == AUTOMATIC and combined is None)
    if custom is None and info.timestep_space and own_steps:
        return _timesteps(info.name, chosen.name, total, run, table, low, high)
    sigmas = whole[max(0, total - run - 1) :]
    return Partial(sigmas, float(sigmas[0]), low, high)


def _timesteps(
    sampler: str, schedule_name: str, total: int, run: int, table: Tensor, low: float, high: float
) -> Partial:
    """`run` timesteps of DDIM's list; UniPC takes the highest of them, and its own even grid from there."""
    trained = torch.as_tensor(table, dtype=torch.float64)
    levels = schedule("DDIM", total, trained)[:-1].flip(0)  # ascending
    run = min(run, len(levels) - 1)
    if run < 1:
        return Partial(torch.zeros(0, dtype=torch.float64), 0.0, low, high)
    if sampler == "UniPC" and schedule_name == AUTOMATIC:
        sigmas = schedule("SGM Uniform", run, trained, sigma_max=float(levels[run - 1]))
    else:
        sigmas = torch.cat((levels[:run].flip(0), levels.new_zeros(1)))
    return Partial(sigmas, float(levels[run]), low, high)
