"""From params to what the sampler needs: sigmas, noise, guidance hooks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from webui.engine.models import LoadedCheckpoint
from webui.engine.vae import SCALE, Vae
from webui.errors import InvalidParams
from webui.names import find_sampler
from webui.params import GenerationParams
from webui.prompt import denoiser_calls
from webui.sampling import (
    CfgRescale,
    Denoiser,
    DynamicThresholding,
    GuidanceHook,
    NegativeGuidanceMinSigma,
    PictureNoise,
    SkipEarlyCfg,
    StepInfo,
    make_sigmas,
    rescale_zero_terminal_snr,
    sample,
    start_latents,
)


class SamplingPlan:
    """What of the params concerns the sampler, worked out once a job."""

    def __init__(self, params: GenerationParams, checkpoint: LoadedCheckpoint) -> None:
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
        self._sigmas = make_sigmas(
            params.sampler,
            params.schedule,
            params.steps,
            self.table,
            sigma_min=params.sigma_min,
            sigma_max=params.sigma_max,
            rho=params.rho,
            beta_alpha=params.beta_alpha,
            beta_beta=params.beta_beta,
            discard_penultimate=params.discard_penultimate_sigma,
            custom=params.sigmas,
            sdxl=checkpoint.is_sdxl,
        )
        self.steps = params.steps if self._info.own_schedule else len(self._sigmas) - 1
        self.total_calls = denoiser_calls(self.steps, self._info.second_order)

    def hooks(self) -> tuple[GuidanceHook, ...]:
        """The guidance options that are switched on, in the order in which they apply."""
        params = self._params
        chosen: list[GuidanceHook] = []
        if params.skip_early_cfg:
            chosen.append(SkipEarlyCfg(params.skip_early_cfg))
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

    def run(self, denoiser: Denoiser, noise: PictureNoise, callback: Callable[[StepInfo], None]) -> Tensor:
        """Start noise to clean latents (B, C, H, W)."""
        params, info = self._params, self._info
        x = start_latents(
            noise.first(),
            self._sigmas,
            info.name,
            prediction=self._prediction,
            sgm_noise_multiplier=params.sgm_noise_multiplier,
        )
        levels = [float(s) for s in self._sigmas if s > 0]
        return sample(
            info.name,
            denoiser,
            x,
            self._sigmas,
            noise=noise.brownian(min(levels), max(levels)) if info.brownian else noise,
            callback=callback,
            eta=params.eta,
            s_churn=params.s_churn,
            s_tmin=params.s_tmin,
            s_tmax=params.s_tmax,
            s_noise=params.s_noise,
            table=self.table,
        )
