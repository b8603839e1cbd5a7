"""A network of any kind answers the sampler's question."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from webui.sampling import GaussianMixture, ModelDenoiser, Prediction, flow_sigma_table, sample, schedule, sigma_table

TABLE = sigma_table()
SIGMAS = torch.tensor([0.05, 0.7, 14.0], dtype=torch.float64)


def network(mixture: GaussianMixture, prediction: Prediction, sigma: Tensor) -> object:
    """A perfect network: what it would predict for its scaled input, from the known denoiser."""
    s = sigma.view(-1, 1, 1, 1)

    def predict(scaled: Tensor, t: Tensor) -> Tensor:
        if prediction == "flow":
            return (scaled - mixture.as_flow(scaled, sigma)) / s
        x = scaled * (s**2 + 1).sqrt()
        clean = mixture(x, sigma)
        eps = (x - clean) / s
        return eps if prediction == "eps" else (eps - s * clean) / (s**2 + 1).sqrt()

    return predict


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
def test_the_clean_picture_comes_back_from_every_kind_of_prediction(
    prediction: Prediction, mixture: GaussianMixture, x_unit: Tensor
) -> None:
    sigma = SIGMAS / 15 if prediction == "flow" else SIGMAS
    table = flow_sigma_table() if prediction == "flow" else TABLE
    x = x_unit * sigma.view(-1, 1, 1, 1)
    expected = mixture.as_flow(x, sigma) if prediction == "flow" else mixture(x, sigma)
    denoiser = ModelDenoiser(network(mixture, prediction, sigma), table, prediction)
    torch.testing.assert_close(denoiser(x, sigma), expected)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_network_sees_variance_1(prediction: Prediction, x_unit: Tensor) -> None:
    seen: list[Tensor] = []

    def predict(scaled: Tensor, t: Tensor) -> Tensor:
        seen.append(scaled)
        return scaled

    ModelDenoiser(predict, TABLE, prediction)(x_unit * 14, torch.full((3,), 14.0, dtype=torch.float64))
    torch.testing.assert_close(seen[0], x_unit * 14 / math.sqrt(14**2 + 1))


def test_a_flow_sees_x_as_it_is(x_unit: Tensor) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    denoiser = ModelDenoiser(lambda x, t: seen.append((x, t)) or x, flow_sigma_table(), "flow")
    denoiser(x_unit, torch.full((3,), 0.5, dtype=torch.float64))
    assert seen[0][0].equal(x_unit)
    assert seen[0][1].tolist() == [500, 500, 500]


def timesteps(sigmas: Tensor, *, quantize: bool = False) -> list[float]:
    return ModelDenoiser(lambda x, t: x, TABLE, "eps", quantize=quantize).timestep(sigmas).tolist()


def test_trained_sigmas_are_told_as_their_timesteps() -> None:
    for t in (0, 1, 345, 998, 999):
        assert timesteps(TABLE[t : t + 1]) == pytest.approx([t], abs=1e-9)
        assert timesteps(TABLE[t : t + 1].float()) == pytest.approx([t], abs=2e-3)


def test_between_two_timesteps_the_logarithm_is_interpolated_and_quantized_on_request() -> None:
    between = (TABLE[100:101].log() * 0.3 + TABLE[101:102].log() * 0.7).exp()
    assert timesteps(between) == pytest.approx([100.7], abs=1e-4)
    assert timesteps(between, quantize=True) == [101]


def test_beyond_the_table_its_ends_are_told() -> None:
    assert timesteps(torch.tensor([1e-4, 100.0], dtype=torch.float64)) == [0, 999]


def test_timesteps_are_float32_whatever_the_precision_of_sigma() -> None:
    denoiser = ModelDenoiser(lambda x, t: x, TABLE, "eps")
    for dtype in (torch.float32, torch.float64):
        assert denoiser.timestep(torch.ones(2, dtype=dtype)).dtype == torch.float32


def test_pictures_of_a_batch_may_have_levels_of_their_own(mixture: GaussianMixture, x_unit: Tensor) -> None:
    whole = ModelDenoiser(network(mixture, "v", SIGMAS), TABLE, "v")(x_unit, SIGMAS)
    for i in range(3):
        one = ModelDenoiser(network(mixture, "v", SIGMAS[i : i + 1]), TABLE, "v")
        torch.testing.assert_close(one(x_unit[i : i + 1], SIGMAS[i : i + 1]), whole[i : i + 1])


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_half_precision_comes_back_as_such(prediction: Prediction) -> None:
    x = torch.randn(1, 4, 2, 2).half()
    assert ModelDenoiser(lambda x, t: x, TABLE, prediction)(x, torch.tensor([3.0])).dtype == torch.float16


def test_zero_terminal_snr_starts_from_what_the_network_says() -> None:
    """At sigma 4518 the noise says nothing: a v-prediction network's output alone is the picture."""
    table = sigma_table(zero_terminal_snr=True)
    denoiser = ModelDenoiser(lambda x, t: torch.full_like(x, -0.5), table, "v")
    x = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * table[-1]
    torch.testing.assert_close(denoiser(x, table[-1:]), torch.full_like(x, 0.5), atol=2e-3, rtol=0)
    out = sample("Euler", denoiser, x, schedule("SGM Uniform", 5, table))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
def test_nothing_is_read_back_from_the_device(prediction: Prediction) -> None:
    denoiser = ModelDenoiser(lambda x, t: x, TABLE, prediction)
    out = denoiser(torch.empty(2, 4, 8, 8, device="meta"), torch.empty(2, device="meta"))
    assert out.shape == (2, 4, 8, 8)
