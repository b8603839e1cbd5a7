"""The mathematics of diffusion sampling: sigma schedules, noise, denoisers, guidance, samplers. Needs torch alone.

    sigmas = make_sigmas("DPM++ 2M", "Karras", 20, sigma_table())
    noise = PictureNoise([42], (4, 64, 64))
    x = start_latents(noise.first(), sigmas, "DPM++ 2M", prediction="eps")
    x = sample("DPM++ 2M", denoiser, x, sigmas, noise=noise)

`contract` says what the shapes and units are.
"""

from webui.sampling.analytic import GaussianMixture
from webui.sampling.brownian import BrownianNoise, BrownianTree
from webui.sampling.contract import Denoiser, Model, Noise, StepInfo
from webui.sampling.denoiser import ModelDenoiser, Predict, Prediction
from webui.sampling.guidance import (
    CfgRescale,
    CondOutputs,
    DynamicThresholding,
    Evaluate,
    GuidanceEnd,
    GuidanceHook,
    GuidanceStep,
    GuidedDenoiser,
    NegativeGuidanceMinSigma,
    SkipEarlyCfg,
)
from webui.sampling.levels import flow_sigma_table, rescale_zero_terminal_snr, sigma_table
from webui.sampling.noise import NoiseSource, PictureNoise, slerp
from webui.sampling.partial import Partial, partial_schedule
from webui.sampling.philox import PhiloxGenerator
from webui.sampling.registry import SAMPLERS, Callback, Sampler, count_calls, sample
from webui.sampling.schedules import SCHEDULES, make_sigmas, schedule
from webui.sampling.start import start_latents
from webui.sampling.transfer import to_device

__all__ = [
    "SAMPLERS",
    "SCHEDULES",
    "BrownianNoise",
    "BrownianTree",
    "Callback",
    "CfgRescale",
    "CondOutputs",
    "Denoiser",
    "DynamicThresholding",
    "Evaluate",
    "GaussianMixture",
    "GuidanceEnd",
    "GuidanceHook",
    "GuidanceStep",
    "GuidedDenoiser",
    "Model",
    "ModelDenoiser",
    "NegativeGuidanceMinSigma",
    "Noise",
    "NoiseSource",
    "Partial",
    "PhiloxGenerator",
    "PictureNoise",
    "Predict",
    "Prediction",
    "Sampler",
    "SkipEarlyCfg",
    "StepInfo",
    "count_calls",
    "flow_sigma_table",
    "make_sigmas",
    "partial_schedule",
    "rescale_zero_terminal_snr",
    "sample",
    "schedule",
    "sigma_table",
    "slerp",
    "start_latents",
    "to_device",
]
