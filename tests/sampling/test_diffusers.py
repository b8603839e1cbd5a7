"""The samplers without reference numbers, against diffusers' scheduler of the same method.

diffusers keeps its tables in float32, and each scheduler picks its own timesteps; both run here over whole timesteps
that the scheduler chose, with the same noise, so that only its rounding is left between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from webui.sampling import GaussianMixture, sample, sigma_table, start_latents

TABLE = sigma_table()
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
Step = Callable[..., Any]


class Draws:
    """Fixed noise, for both sides the same."""

    def __init__(self, like: Tensor) -> None:
        generator = torch.Generator().manual_seed(3)
        self._draws = [torch.randn(like.shape, generator=generator, dtype=like.dtype) for _ in range(40)]
        self._used = 0

    def __call__(self, *_: Any, **__: Any) -> Tensor:
        self._used += 1
        return self._draws[self._used - 1]


@pytest.fixture
def same_noise(monkeypatch: pytest.MonkeyPatch, x_unit: Tensor) -> Callable[[str], Draws]:
    """`same_noise(module)` gives a scheduler's module the draws that the returned source gives a sampler."""

    def replace(module: str) -> Draws:
        monkeypatch.setattr(f"diffusers.schedulers.{module}.randn_tensor", Draws(x_unit))
        return Draws(x_unit)

    return replace


def in_double(scheduler: Any) -> Any:
    """The scheduler with its tables in float64, as far as it has kept them as such."""
    scheduler.alphas_cumprod = 1 / (1 + TABLE**2)
    return scheduler


def vp_eps(mixture: GaussianMixture, x: Tensor, sigma: float) -> Tensor:
    """The noise a network would name for x scaled to variance 1."""
    scale = (1 + sigma**2) ** 0.5
    denoised = mixture(x * scale, torch.full((len(x),), sigma, dtype=x.dtype))
    return (x * scale - denoised) / sigma


def run_vp(scheduler: Any, timesteps: Sequence[int], mixture: GaussianMixture, x: Tensor, **options: Any) -> Tensor:
    """A scheduler whose latents have variance 1, from unit noise to the end."""
    for t in timesteps:
        x = scheduler.step(vp_eps(mixture, x, TABLE[int(t)].item()), t, x, **options).prev_sample
    return x


def sigmas_of(timesteps: Sequence[int], *, final: float | None = 0.0) -> list[float]:
    return [TABLE[int(t)].item() for t in timesteps] + ([] if final is None else [final])


def run_ours(
    name: str, sigmas: Sequence[float], mixture: GaussianMixture, x_unit: Tensor, noise: Any = None, **options: Any
) -> Tensor:
    """Ours from the same unit noise, scaled as the DDIM family does."""
    return sample(
        name, mixture, start_latents(x_unit, sigmas, "DDIM", prediction="eps"), sigmas, noise=noise, **options
    )


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("steps", [8, 20])
def test_ddim(steps: int, eta: float, mixture: GaussianMixture, x_unit: Tensor, same_noise: Any) -> None:
    noise = same_noise("scheduling_ddim")
    theirs = in_double(diffusers.DDIMScheduler(**BETAS, clip_sample=False, timestep_spacing="leading", steps_offset=1))
    theirs.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    theirs.set_timesteps(steps)
    expected = run_vp(theirs, theirs.timesteps, mixture, x_unit, eta=eta)
    ours = run_ours("DDIM", sigmas_of(theirs.timesteps), mixture, x_unit, noise, eta=eta)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_ddpm(mixture: GaussianMixture, x_unit: Tensor, same_noise: Any) -> None:
    noise = same_noise("scheduling_ddpm")
    theirs = in_double(diffusers.DDPMScheduler(**BETAS, clip_sample=False, timestep_spacing="trailing"))
    theirs.one = torch.tensor(1.0, dtype=torch.float64)
    theirs.set_timesteps(20)
    last = [*theirs.timesteps.tolist()[:-1]]  # their last step ends at timestep -1, ours at the next one
    expected = run_vp(theirs, last, mixture, x_unit)
    sigma = TABLE[int(theirs.timesteps[-1])].item()
    ours = run_ours("DDPM", sigmas_of(last, final=sigma), mixture, x_unit, noise)
    torch.testing.assert_close(ours / (1 + sigma**2) ** 0.5, expected, rtol=1e-9, atol=1e-9)


def test_plms(mixture: GaussianMixture, x_unit: Tensor) -> None:
    theirs = in_double(
        diffusers.PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1, timestep_spacing="leading")
    )
    theirs.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    theirs.set_timesteps(20)
    expected = run_vp(theirs, theirs.timesteps, mixture, x_unit)
    once = [t for i, t in enumerate(theirs.timesteps.tolist()) if i != 1]  # they list the second timestep twice
    ours = run_ours("PLMS", sigmas_of(once), mixture, x_unit)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_ipndm(mixture: GaussianMixture, x_unit: Tensor) -> None:
    sigmas = torch.linspace(5.8, 0.7, 15, dtype=torch.float64) ** 1.5
    theirs = diffusers.IPNDMScheduler()
    theirs.set_timesteps(14)
    theirs.alphas, theirs.betas = (1 + sigmas**2) ** -0.5, sigmas * (1 + sigmas**2) ** -0.5
    x = x_unit
    for t, sigma, a, b in zip(theirs.timesteps, sigmas.tolist(), theirs.alphas, theirs.betas, strict=False):
        v = (vp_eps(mixture, x, sigma) - b * x) / a  # what its network predicts
        x = theirs.step(v, t, x).prev_sample
    ours = run_ours("IPNDM", sigmas.tolist(), mixture, x_unit)
    torch.testing.assert_close(ours / (1 + sigmas[-1] ** 2) ** 0.5, x, rtol=1e-9, atol=1e-9)


def test_ipndm_v_is_the_linear_multistep_method(mixture: GaussianMixture, x_unit: Tensor) -> None:
    sigmas = torch.linspace(3.8, 0.3, 13, dtype=torch.float64) ** 2
    theirs = diffusers.LMSDiscreteScheduler(**BETAS)
    theirs.set_timesteps(12)
    theirs.sigmas = sigmas
    x = x_unit * sigmas[0]
    theirs.is_scale_input_called = True
    for t, sigma in zip(theirs.timesteps, sigmas.tolist(), strict=False):
        denoised = mixture(x, torch.full((3,), sigma, dtype=x.dtype))
        x = theirs.step((x - denoised) / sigma, t, x).prev_sample
    ours = sample("IPNDM_V", mixture, x_unit * sigmas[0], sigmas)
    torch.testing.assert_close(ours, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "scheduler", "options"),
    [
        ("DEIS", "DEISMultistepScheduler", {"solver_order": 3, "lower_order_final": False}),
        (
            "UniPC",
            "UniPCMultistepScheduler",
            {"solver_order": 3, "solver_type": "bh1", "predict_x0": True, "final_sigmas_type": "sigma_min"},
        ),
    ],
)
def test_exponential_multistep(
    name: str, scheduler: str, options: dict[str, Any], mixture: GaussianMixture, x_unit: Tensor
) -> None:
    sigmas = torch.linspace(2.4, 0.6, 17, dtype=torch.float64) ** 3
    theirs = getattr(diffusers, scheduler)(**BETAS, **options)
    theirs.set_timesteps(16)
    theirs.sigmas = sigmas
    x = x_unit
    for t, sigma in zip(theirs.timesteps, sigmas.tolist(), strict=False):
        x = theirs.step(vp_eps(mixture, x, sigma), t, x).prev_sample
    ours = run_ours(name, sigmas.tolist(), mixture, x_unit)
    torch.testing.assert_close(ours / (1 + sigmas[-1] ** 2) ** 0.5, x, rtol=1e-9, atol=1e-9)


def test_lcm(mixture: GaussianMixture, x_unit: Tensor, same_noise: Any) -> None:
    noise = same_noise("scheduling_lcm")
    theirs = in_double(diffusers.LCMScheduler(**BETAS, clip_sample=False, timestep_scaling=1e9))
    theirs.set_timesteps(6)
    expected = run_vp(theirs, theirs.timesteps, mixture, x_unit)
    ours = run_ours("LCM", sigmas_of(theirs.timesteps), mixture, x_unit, noise)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_tcd(eta: float, mixture: GaussianMixture, x_unit: Tensor, same_noise: Any) -> None:
    noise = same_noise("scheduling_tcd")
    theirs = in_double(diffusers.TCDScheduler(**BETAS, clip_sample=False))
    theirs.set_timesteps(8)
    but_last = theirs.timesteps.tolist()[:-1]  # theirs ends at timestep 0, ours at no noise
    expected = run_vp(theirs, but_last, mixture, x_unit, eta=eta)
    sigma = TABLE[int(theirs.timesteps[-1])].item()
    ours = run_ours("TCD", sigmas_of(but_last, final=sigma), mixture, x_unit, noise, eta=eta, table=TABLE)
    torch.testing.assert_close(ours / (1 + sigma**2) ** 0.5, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "scheduler", "options"),
    [
        ("Euler (flow)", "FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        (
            "DPM++ 2M (flow)",
            "DPMSolverMultistepScheduler",
            {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
        ),
    ],
)
@pytest.mark.parametrize("first", [1.0, 0.9])
def test_flow(
    first: float, name: str, scheduler: str, options: dict[str, Any], mixture: GaussianMixture, x_unit: Tensor
) -> None:
    sigmas = torch.cat((torch.linspace(first, 0.05, 16, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)))
    theirs = getattr(diffusers, scheduler)(**options)
    theirs.set_timesteps(16)
    theirs.sigmas = sigmas
    x = x_unit
    for t, sigma in zip(theirs.timesteps, sigmas.tolist(), strict=False):
        denoised = mixture.as_flow(x, torch.full((3,), sigma, dtype=x.dtype))
        x = theirs.step((x - denoised) / sigma, t, x).prev_sample
    ours = sample(name, mixture.as_flow, x_unit, sigmas)
    torch.testing.assert_close(ours, x.double(), rtol=1e-6, atol=1e-6)  # both of theirs go through float32
