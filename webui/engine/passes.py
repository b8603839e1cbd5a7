"""What a job is made of: passes through the sampler, and the batches that come out of them."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.engine.conditioning.prompts import PicturePrompts
from webui.engine.latents.vae import SCALE, Vae
from webui.engine.refiner import Refiner
from webui.engine.sampling_plan import Part, SamplingPlan, Start
from webui.engine.sd_upscale import Grid
from webui.params import GenerationParams


@dataclass(frozen=True)
class Pass:
    """One way through the sampler: its params, and the networks, prompts and sigmas for them."""

    params: GenerationParams
    sampling: SamplingPlan
    checkpoint: LoadedCheckpoint
    vae: Vae
    prompts: PicturePrompts
    note: str  # about the choice of the VAE
    refiner: Refiner | None = None

    @property
    def flop(self) -> float:
        """Floating-point operations of a call of its UNet for a picture, without those of attention itself."""
        return self.checkpoint.flop * (self.params.width or 0) * (self.params.height or 0) / SCALE**2

    @property
    def checkpoints(self) -> tuple[LoadedCheckpoint, ...]:
        return (self.checkpoint,) if self.refiner is None else (self.checkpoint, self.refiner.checkpoint)


@dataclass(frozen=True)
class Tiles:
    """The enlarged picture of an SD upscale, and how it is cut."""

    image: Image.Image
    grid: Grid


@dataclass(frozen=True)
class Batch:
    """The clean latents of one batch; `stopped_at` is the step at which it was ended early, 0 when it was not.

    `start` is what it was made from, if anything.
    """

    latents: Tensor
    stopped_at: int = 0
    start: Start | None = None


def part_of(params: GenerationParams) -> Part | None:
    """How much of the schedule a job runs that starts from a picture; None for one that starts from noise."""
    init = params.init
    if init is None:
        return None
    return Part(init.denoising_strength, init.exact_steps, init.noise_multiplier, init.extra_noise)
