"""The switch to another checkpoint within one picture: the refiner draws what is left below a noise level.

The sampler, its history and the prompt's timeline go on; only who answers its question changes. So it stands where the
networks are evaluated (`webui.sampling.Evaluate`), below guidance and hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.engine.conditioning.prompts import PicturePrompts
from webui.engine.conditioning.text import Conditioning
from webui.engine.sampling_plan import SamplingPlan
from webui.errors import UnsupportedModel
from webui.params import GenerationParams
from webui.sampling import CondOutputs, Evaluate


@dataclass(frozen=True, slots=True)
class Refiner:
    """A loaded refiner and the job's prompts as its own text encoders read them."""

    checkpoint: LoadedCheckpoint
    prompts: PicturePrompts

    def conditionings(self, base: Sequence[Conditioning], first: int) -> dict[int, Conditioning]:
        """By the id of the base's conditioning of the same picture; `first` is the number of the first picture."""
        own = self.prompts.of_batch(first, len(base))
        return {id(theirs): ours for theirs, ours in zip(base, own, strict=True)}


@dataclass(frozen=True, slots=True)
class Switch:
    """When the refiner takes over. `share` 0..1 of the way, in trained timesteps or, with `by_calls`, in calls.

    By timesteps as in Podell et al. 2023, section 2.5: 0.8 leaves the last 200 of 1,000 to the refiner, whatever the
    schedule. By calls is how AUTOMATIC1111 before 1.8 did it.
    """

    share: float
    by_calls: bool
    total_calls: int
    table: Tensor  # trained sigmas, ascending

    @classmethod
    def of(cls, params: GenerationParams, sampling: SamplingPlan) -> Switch:
        by_calls = params.refiner_switch_by_steps
        return cls(params.refiner_switch_at, by_calls, sampling.total_calls, sampling.table)

    def reached(self, sigma: float, call: int) -> bool:
        if self.by_calls:
            return call / max(1, self.total_calls) >= self.share
        timesteps = len(self.table)
        nearest = int((self.table - sigma).abs().argmin())
        return (timesteps - 1 - nearest) / timesteps >= self.share


class RefinedEvaluate:
    """`Evaluate` that asks `base` until the switch is reached, and `refiner` from then on."""

    def __init__(self, base: Evaluate, refiner: Evaluate, switch: Switch) -> None:
        self._base = base
        self._refiner = refiner
        self._switch = switch
        self._refining = False

    def __call__(self, x: Tensor, sigma: Tensor, call: int, with_uncond: bool, level: float) -> CondOutputs:
        self._refining = self._refining or self._switch.reached(level, call)
        chosen = self._refiner if self._refining else self._base
        return chosen(x, sigma, call, with_uncond, level)


def refining(
    base: Callable[[Conditioning], Evaluate],
    refiner: Callable[[Conditioning], Evaluate],
    conditionings: dict[int, Conditioning],
    switch: Switch,
) -> Callable[[Conditioning], Evaluate]:
    """For each of the base's conditionings: the base up to the switch, then the refiner with its own conditioning."""
    return lambda conditioning: RefinedEvaluate(base(conditioning), refiner(conditionings[id(conditioning)]), switch)


def check_latents(base: LoadedCheckpoint, refiner: LoadedCheckpoint) -> None:
    """Raises `UnsupportedModel` when one cannot go on with the other's latents."""
    if base.is_sdxl != refiner.is_sdxl or base.latent_channels != refiner.latent_channels:
        names = [f'"{drawn.file.name}" ({drawn.family})' for drawn in (refiner, base)]
        raise UnsupportedModel(
            f"{names[0]} cannot refine the latents of {names[1]}.",
            "Choose a refiner with the same kind of latents: SDXL's for SDXL, SD1's or SD2's for SD1 and SD2.",
        )
