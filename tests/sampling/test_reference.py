"""Equal to the reference numbers, to the last digits that float64 has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from webui.sampling import GaussianMixture, PictureNoise, sample, schedule, sigma_table

SAMPLERS = (
    "Euler",
    "Heun",
    "DPM2",
    "LMS",
    "DPM++ 2M",
    "Euler a",
    "DPM2 a",
    "DPM++ 2S a",
    "DPM++ SDE",
    "DPM++ 2M SDE",
    "DPM++ 2M SDE Heun",
    "DPM++ 3M SDE",
    "Euler a (eta=0.5,s_noise=1.1)",
)
SCHEDULES = (
    "Uniform",
    "Karras",
    "Exponential",
    "Polyexponential",
    "SGM Uniform",
    "Normal",
    "Simple",
    "DDIM",
    "KL Optimal",
    "Beta",
)


@pytest.fixture(scope="module")
def cases(reference: Any) -> list[dict[str, Any]]:
    return reference("samplers")


def test_every_sampler_of_the_reference_is_compared(cases: list[dict[str, Any]]) -> None:
    assert all(set(case["results"]) == set(SAMPLERS) for case in cases)


@pytest.mark.parametrize("case", range(6))
@pytest.mark.parametrize("result", SAMPLERS)
def test_sampler_equals_the_reference(result: str, case: int, cases: list[dict[str, Any]]) -> None:
    data = cases[case]
    name, _, bracket = result.partition(" (")
    options = {key: float(value) for key, value in (pair.split("=") for pair in bracket.rstrip(")").split(",") if pair)}
    mixture = GaussianMixture(data["denoiser"]["centers"], data["denoiser"]["std"])
    draws = torch.tensor(data["noise"], dtype=torch.float64)
    model_calls = noise_draws = 0

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal model_calls
        model_calls += 1
        return mixture(x, sigma)

    def noise(sigma: float, sigma_next: float) -> Tensor:
        nonlocal noise_draws
        noise_draws += 1
        return draws[noise_draws - 1]

    x = torch.tensor(data["x_unit"], dtype=torch.float64) * data["sigmas"][0]
    out = sample(name, denoiser, x, data["sigmas"], noise=noise, **options)

    expected = torch.tensor(data["results"][result]["out"], dtype=torch.float64)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-12)
    assert model_calls == data["results"][result]["model_calls"]
    assert noise_draws == data["results"][result]["noise_draws"]


@pytest.mark.parametrize("steps", [8, 13, 20])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_the_reference(name: str, steps: int, reference: Any, table: Tensor) -> None:
    expected = torch.tensor(reference("schedules")["by_steps"][str(steps)][name], dtype=torch.float64)
    torch.testing.assert_close(schedule(name, steps, table), expected, rtol=1e-9, atol=0)


def test_every_schedule_of_the_reference_is_compared(reference: Any) -> None:
    assert all(set(by_name) == set(SCHEDULES) for by_name in reference("schedules")["by_steps"].values())


def test_sigma_table_equals_the_reference(reference: Any) -> None:
    table = sigma_table()
    assert [table[0].item(), table[-1].item()] == pytest.approx(
        reference("schedules")["sigma_table_first_last"], rel=1e-12
    )


@pytest.mark.parametrize("case", [0, 1])
def test_brownian_noise_equals_the_reference(case: int, reference: Any) -> None:
    data = reference("brownian")[case]
    sigmas = data["sigmas"]
    expected = torch.tensor(data["noise"])
    noise = PictureNoise([data["seed"]], tuple(expected.shape[2:])).brownian(min(s for s in sigmas if s > 0), sigmas[0])
    for i, tensor in enumerate(expected):
        torch.testing.assert_close(noise(sigmas[i], sigmas[i + 1]), tensor, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [0, 1])
def test_nv_noise_equals_the_reference(case: int, reference: Any) -> None:
    data = reference("philox")[case]
    noise = PictureNoise([data["seed"]], (4, 4, 4), source="NV")
    torch.testing.assert_close(noise.first(), torch.tensor(data["first"]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(noise(1.0, 0.5), torch.tensor(data["second"]), rtol=1e-5, atol=1e-5)
