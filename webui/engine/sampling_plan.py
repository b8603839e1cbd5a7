"""From params to what the sampler needs: sigmas, noise, guidance hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.engine.latents.latent_mask import Guided, LatentMask, MaskedDenoiser
from webui.engine.latents.vae import SCALE, Vae
from webui.errors import InvalidParams
from webui.names import find_sampler
from webui.params import GenerationParams
from webui.prompt import denoiser_calls
from webui.sampling import (
    CfgRescale,
    DynamicThresholding,
    GuidanceEnd,
    GuidanceHook,
    NegativeGuidanceMinSigma,
    PictureNoise,
    SkipEarlyCfg,
    StepInfo,
    make_sigmas,
    partial_schedule,
    rescale_zero_terminal_snr,
    sample,
    start_latents,
)


@dataclass(frozen=True, slots=True)
class Part:
    """How much of the schedule is run from a picture; see `operations.Init`."""

    strength: float
    exact: bool
    noise_multiplier: float = 1.0
    extra_noise: float = 0.0


@dataclass(frozen=True)
class Start:
    """What a batch starts from: clean latents (1 or B, C, h, w), and a mask where only a part is drawn."""

    latents: Tensor
    mask: LatentMask | None = None


class SamplingPlan:
    """What of the params concerns the sampler, worked out once a job. `part`: there will be a picture to start from."""

    def __init__(self, params: GenerationParams, checkpoint: LoadedCheckpoint, part: Part | None = None) -> None:
        self._params = params
        self._info, _ = find_sampler(params.sampler)
        self._prediction = checkpoint.prediction
        if self._info.flow and checkpoint.prediction != "flow":
            raise InvalidParams(
                f"{self._info.name} draws with flow-matching models, and {checkpoint.file.stem} is none.",
                f"Choose another sampling method, such as {self._info.name.removesuffix(' (flow)')}.",
            )
        zero_snr = params.zero_terminal_snr and not checkpoint.file.zero_terminal_snr
        self.table = rescale_zero_terminal_snr(checkpoint.table) if zero_snr else checkpoint.table
        self._part = part
        options: dict[str, Any] = {
            "sigma_min": params.sigma_min,
            "sigma_max": params.sigma_max,
            "rho": params.rho,
            "beta_alpha": params.beta_alpha,
            "beta_beta": params.beta_beta,
            "discard_penultimate": params.discard_penultimate_sigma,
            "custom": params.sigmas,
            "sdxl": checkpoint.is_sdxl,
        }
        if part is None:
            self._sigmas = make_sigmas(params.sampler, params.schedule, params.steps, self.table, **options)
            levels = [float(s) for s in self._sigmas if s > 0]
            self._start, self._range = float(self._sigmas[0]), (min(levels), max(levels))
        else:
            chosen = partial_schedule(
                params.sampler,
                params.schedule,
                params.steps,
                self.table,
                strength=part.strength,
                exact=part.exact,
                **options,
            )
            self._sigmas, self._start, self._range = chosen.sigmas, chosen.start, (chosen.low, chosen.high)
        whole = self._info.own_schedule and part is None
        self.steps = params.steps if whole else max(0, len(self._sigmas) - 1)
        self.total_calls = denoiser_calls(self.steps, self._info.second_order)

    def hooks(self) -> tuple[GuidanceHook, ...]:
        """The guidance options that are switched on, in the order in which they apply."""
        params = self._params
        chosen: list[GuidanceHook] = []
        if params.skip_early_cfg:
            chosen.append(SkipEarlyCfg(params.skip_early_cfg))
        if params.guidance_end < 1:
            chosen.append(GuidanceEnd(params.guidance_end))
        if params.negative_guidance_min_sigma:
            chosen.append(
                NegativeGuidanceMinSigma(params.negative_guidance_min_sigma, params.negative_guidance_all_steps)
            )
        if params.dynamic_thresholding_percentile:
            chosen.append(
                DynamicThresholding(params.dynamic_thresholding_percentile, params.dynamic_thresholding_mimic_scale)
            )
        if params.cfg_rescale:
            chosen.append(CfgRescale(params.cfg_rescale, self._prediction))
        return tuple(chosen)

    def plain_noise(self, first: int, vae: Vae, device: torch.device) -> Tensor:
        """Noise (B, C, h, w) of the seeds alone, whatever the request varies, for the inpainting fill of that name."""
        params = self._params
        seeds = [params.seeds_of(first + i)[0] for i in range(params.batch_size)]
        shape = (vae.dims.latent_channels, (params.height or 0) // SCALE, (params.width or 0) // SCALE)
        return PictureNoise(seeds, shape, source=params.rng, device=device).first()

    def noise(self, first: int, vae: Vae, device: torch.device) -> PictureNoise:
        """The noise of the batch whose first picture is number `first`."""
        params = self._params
        seeds = [params.seeds_of(first + i) for i in range(params.batch_size)]
        small = (params.seed_resize_height // SCALE, params.seed_resize_width // SCALE)
        shape = (vae.dims.latent_channels, (params.height or 0) // SCALE, (params.width or 0) // SCALE)
        return PictureNoise(
            [seed for seed, _ in seeds],
            shape,
            source=params.rng,
            device=device,
            variation_seeds=[variation for _, variation in seeds],
            variation_strength=params.variation_strength,
            resize_from=small if all(small) else None,
            ensd=params.ensd,
        )

    def run(
        self, denoiser: Guided, noise: PictureNoise, callback: Callable[[StepInfo], None], start: Start | None = None
    ) -> Tensor:
        """Start noise, and the picture of `start`, to clean latents (B, C, H, W)."""
        params, info, part = self._params, self._info, self._part
        unit = noise.first()
        if start is not None and not self.steps:
            return start.latents.expand_as(unit).clone()
        x = start_latents(
            unit if part is None else unit * part.noise_multiplier,
            self._sigmas,
            info.name,
            prediction=self._prediction,
            sgm_noise_multiplier=params.sgm_noise_multiplier,
            latents=None if start is None else start.latents.expand_as(unit),
            level=self._start,
            extra_noise=0.0 if part is None else part.extra_noise,
        )
        mask = None if start is None else start.mask
        clean = sample(
            info.name,
            denoiser if mask is None else MaskedDenoiser(denoiser, mask, before=info.timestep_space),
            x,
            self._sigmas,
            noise=noise.brownian(*self._range) if info.brownian else noise,
            callback=callback,
            eta=params.eta,
            s_churn=params.s_churn,
            s_tmin=params.s_tmin,
            s_tmax=params.s_tmax,
            s_noise=params.s_noise,
            table=self.table,
        )
        return clean if mask is None else mask.finish(clean)
