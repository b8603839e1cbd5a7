"""What holds for every sampler, whatever its method."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from webui.errors import InvalidParams
from webui.names import SAMPLER_NAMES
from webui.sampling import (
    SAMPLERS,
    GaussianMixture,
    PictureNoise,
    StepInfo,
    count_calls,
    flow_sigma_table,
    make_sigmas,
    sample,
    schedule,
    sigma_table,
    start_latents,
)

TABLE = sigma_table()
NewNoise = Callable[[], Any]  # the fixture `new_noise`
DRAWS = {  # noise tensors over n steps that end in 0, with the default options
    "Euler a": lambda n: n - 1,
    "DPM2 a": lambda n: n - 1,
    "DPM++ 2S a": lambda n: n - 1,
    "DPM++ SDE": lambda n: 2 * (n - 1),
    "DPM++ 2M SDE": lambda n: n - 1,
    "DPM++ 2M SDE Heun": lambda n: n - 1,
    "DPM++ 3M SDE": lambda n: n - 1,
    "LCM": lambda n: n - 1,
    "TCD": lambda n: n - 1,
    "DDPM": lambda n: n - 1,
}
CALLS = {
    "Heun": lambda n: 2 * n - 1,
    "DPM2": lambda n: 2 * n - 1,
    "DPM2 a": lambda n: 2 * n - 1,
    "DPM++ 2S a": lambda n: 2 * n - 1,
    "DPM++ SDE": lambda n: 2 * n - 1,
    "Restart": lambda n: 2 * n - 1,
    "HeunPP2": lambda n: 3 * n - 3,
    "PLMS": lambda n: n + 1,
    "DPM fast": lambda n: n + 1,
}


def levels(name: str, n: int) -> Tensor:
    return make_sigmas(name, "Automatic", n, flow_sigma_table() if SAMPLERS[name].flow else TABLE)


def data(name: str, mixture: GaussianMixture) -> object:
    return mixture.as_flow if SAMPLERS[name].flow else mixture


def start(name: str, unit: Tensor, sigmas: Tensor) -> Tensor:
    return start_latents(unit, sigmas, name, prediction="flow" if SAMPLERS[name].flow else "eps")


def test_every_name_has_a_sampler_with_the_flags_of_the_name() -> None:
    assert list(SAMPLERS) == list(SAMPLER_NAMES)
    for name, info in SAMPLER_NAMES.items():
        assert SAMPLERS[name].aliases == info.aliases
        assert SAMPLERS[name].second_order == info.second_order


@given(
    name=st.sampled_from(sorted(SAMPLERS)),
    n=st.integers(1, 40),
    value=st.floats(-4, 4),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_every_sampler_ends_at_the_data_of_a_one_point_distribution(name: str, n: int, value: float, seed: int) -> None:
    point = torch.full((2, 4, 2, 2), value, dtype=torch.float64)
    noise = PictureNoise([seed, seed + 1], (4, 2, 2), dtype=torch.float64)
    sigmas = levels(name, n)
    x = sample(name, lambda x, sigma: point, start(name, noise.first(), sigmas), sigmas, noise=noise)
    torch.testing.assert_close(x, point, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_finds_the_modes_of_a_mixture(
    name: str, mixture: GaussianMixture, x_unit: Tensor, new_noise: NewNoise
) -> None:
    """The result is a likely picture: as far from its center as the data is, within what few steps can do."""
    sigmas = levels(name, 30)
    x = sample(name, data(name, mixture), start(name, x_unit, sigmas), sigmas, noise=new_noise())
    nearest = torch.cdist(x.flatten(1), mixture.centers).amin(1) / math.sqrt(64)
    assert (nearest < 1.5 * mixture.std).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_batch_equals_its_singles(name: str, mixture: GaussianMixture) -> None:
    seeds = [11, 12, 13]
    sigmas = levels(name, 24)

    def run(some: list[int]) -> Tensor:
        noise = PictureNoise(some, (4, 4, 4), dtype=torch.float64)
        x = start(name, noise.first(), sigmas)
        brownian = noise.brownian(float(sigmas[sigmas > 0][-1]), float(sigmas[0]))
        return sample(
            name,
            lambda x, s: torch.cat([data(name, mixture)(x[i : i + 1], s[i : i + 1]) for i in range(len(x))]),
            x,
            sigmas,
            noise=brownian if SAMPLERS[name].brownian else noise,
        )

    singles = torch.cat([run([seed]) for seed in seeds])
    torch.testing.assert_close(run(seeds), singles, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5, 20])
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "DPM adaptive"])
def test_noise_and_model_are_asked_as_often_as_the_method_says(
    name: str, n: int, x_unit: Tensor, new_noise: NewNoise
) -> None:
    table = flow_sigma_table() if SAMPLERS[name].flow else TABLE
    sigmas = schedule("Karras" if name == "Restart" else "SGM Uniform", n, table)
    noise = new_noise()
    calls = 0

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        assert sigma.shape == (3,)
        assert sigma.dtype == torch.float64
        return x * 0

    sample(name, denoiser, x_unit, sigmas, noise=noise)
    expected = 1 if n == 1 else CALLS.get(name, lambda n: n)(n)
    assert calls == expected == count_calls(name, sigmas)
    if name == "Restart":
        assert len(noise.intervals) == (1 if n >= 20 else 0)
    elif name == "DPM fast":
        assert len(noise.intervals) == {1: 0, 2: 0, 5: 1, 20: 6}[n]  # one a step, but none after the last
    else:
        assert len(noise.intervals) == DRAWS.get(name, lambda n: 0)(n)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if "eta" in SAMPLERS[name].options])
def test_no_noise_is_drawn_at_eta_0(name: str, mixture: GaussianMixture, x_unit: Tensor, new_noise: NewNoise) -> None:
    noise = new_noise()
    sigmas = levels(name, 10)
    sample(name, mixture, start(name, x_unit, sigmas), sigmas, noise=noise, eta=0.0)
    assert noise.intervals == []


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("stop_at", [0, 3, 9])
def test_an_interruption_at_any_step_leaves_a_decodable_latent(
    name: str, stop_at: int, mixture: GaussianMixture, x_unit: Tensor, new_noise: NewNoise
) -> None:
    """The last report holds a clean picture: no noisier than the data, whatever noise is still in x."""

    class Stop(Exception):
        pass

    last: list[StepInfo] = []

    def callback(info: StepInfo) -> None:
        last.append(info)
        if info.index == min(stop_at, 3 if name == "DPM fast" else stop_at):
            raise Stop

    sigmas = levels(name, 12)
    calls_after: list[int] = []

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        calls_after.append(len(last))
        return data(name, mixture)(x, sigma)

    x = start(name, x_unit, sigmas)
    with pytest.raises(Stop):
        sample(name, denoiser, x, sigmas, noise=new_noise(), callback=callback)
    assert calls_after[-1] < len(last)  # nothing was computed after the stop
    assert last[-1].denoised.shape == x_unit.shape
    assert torch.isfinite(last[-1].denoised).all()
    assert last[-1].denoised.std() < 2


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_callback_hears_of_every_step_in_order(
    name: str, mixture: GaussianMixture, x_unit: Tensor, new_noise: NewNoise
) -> None:
    steps: list[StepInfo] = []
    sigmas = levels(name, 21)
    x = start(name, x_unit, sigmas)
    result = sample(name, data(name, mixture), x, sigmas, noise=new_noise(), callback=steps.append)
    assert [step.index for step in steps] == list(range(len(steps)))
    assert steps[-1].x.equal(result)
    assert steps[-1].sigma_next == sigmas[-1]
    assert steps[0].sigma == pytest.approx(sigmas[0].item())
    if name == "DPM adaptive":  # tells of the noisiest picture, which may have had to try again
        assert all(step.sigma >= step.sigma_next for step in steps)
    else:
        assert all(step.sigma > step.sigma_next for step in steps)
    if not SAMPLERS[name].own_schedule:
        assert len(steps) == len(sigmas) - 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_start_is_not_changed(name: str, mixture: GaussianMixture, x_unit: Tensor, new_noise: NewNoise) -> None:
    sigmas = levels(name, 6)
    x = start(name, x_unit, sigmas)
    before = x.clone()
    sample(name, data(name, mixture), x, sigmas, noise=new_noise())
    assert x.equal(before)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "DPM adaptive"])
def test_no_sampler_reads_a_number_back_from_the_device(name: str) -> None:
    """Tensors on the meta device have no numbers: whoever asked for one would fail."""
    x = torch.empty(2, 4, 8, 8, device="meta")
    sigmas = levels(name, 24).tolist()
    out = sample(name, lambda x, sigma: x * sigma.view(-1, 1, 1, 1), x, sigmas, noise=lambda a, b: torch.empty_like(x))
    assert out.device.type == "meta"
    assert out.dtype == torch.float32


@pytest.mark.parametrize("name", SAMPLERS)
def test_half_precision_latents_stay_what_they_are(name: str) -> None:
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    seen: set[torch.dtype] = set()

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        seen.add(sigma.dtype)
        return x * 0

    out = sample(name, denoiser, x, levels(name, 4), noise=lambda a, b: torch.zeros_like(x))
    assert out.dtype == torch.bfloat16
    assert seen == {torch.float32}  # a noise level in half precision would be off by a thousandth


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("k_euler_a", "Euler a"),
        ("DPM++ 2M Karras", "DPM++ 2M"),
        ("dpm++ 2m sde karras", "DPM++ 2M SDE"),
        ("ddim", "DDIM"),
    ],
)
def test_aliases_and_old_names_are_understood(
    spelling: str, name: str, mixture: GaussianMixture, x_unit: Tensor, new_noise: NewNoise
) -> None:
    sigmas = schedule("Karras", 6, TABLE)
    a, b = (sample(n, mixture, x_unit * 14, sigmas, noise=new_noise()) for n in (spelling, name))
    assert a.equal(b)


def test_an_unknown_name_lists_the_nearest(mixture: GaussianMixture, x_unit: Tensor) -> None:
    with pytest.raises(InvalidParams, match=r'"Eulr".*"Euler"'):
        sample("Eulr", mixture, x_unit, [1.0, 0.0])


def test_an_option_no_sampler_has_is_an_error(mixture: GaussianMixture, x_unit: Tensor) -> None:
    with pytest.raises(TypeError, match="s_chrun"):
        sample("Euler", mixture, x_unit, [1.0, 0.0], s_chrun=1.0)


def test_an_option_another_sampler_has_is_ignored_and_none_is_the_default(
    mixture: GaussianMixture, x_unit: Tensor
) -> None:
    sigmas = schedule("Karras", 6, TABLE)
    plain = sample("DPM++ 2M", mixture, x_unit * 14, sigmas)
    assert sample("DPM++ 2M", mixture, x_unit * 14, sigmas, eta=0.3, s_churn=9.0, s_noise=None).equal(plain)


@pytest.mark.parametrize("sigmas", [[1.0, 2.0, 0.0], [1.0, 1.0, 0.0], [1.0, math.nan], [math.inf, 1.0], [1.0, -1.0]])
def test_sigmas_that_do_not_descend_are_refused(sigmas: list[float], mixture: GaussianMixture, x_unit: Tensor) -> None:
    with pytest.raises(InvalidParams, match="do not descend"):
        sample("Euler", mixture, x_unit, sigmas)


def test_sigmas_may_be_a_tensor_of_either_precision_or_a_list(mixture: GaussianMixture, x_unit: Tensor) -> None:
    expected = sample("Heun", mixture, x_unit, [2.0, 1.0, 0.5, 0.0])
    for dtype in (torch.float32, torch.float64):
        assert sample("Heun", mixture, x_unit, torch.tensor([2.0, 1.0, 0.5, 0.0], dtype=dtype)).equal(expected)


def test_without_a_noise_source_torchs_global_generator_is_used(mixture: GaussianMixture, x_unit: Tensor) -> None:
    sigmas = schedule("Karras", 6, TABLE)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first = sample("Euler a", mixture, x_unit * 14, sigmas)
        torch.manual_seed(5)
        assert sample("Euler a", mixture, x_unit * 14, sigmas).equal(first)


def test_no_gradients_are_kept(x_unit: Tensor) -> None:
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    assert not sample("Heun", lambda x, s: x * weight, x_unit, [2.0, 1.0, 0.0]).requires_grad


def test_an_exception_of_the_denoiser_comes_out(x_unit: Tensor) -> None:
    def broken(x: Tensor, sigma: Tensor) -> Tensor:
        raise ArithmeticError("no picture today")

    with pytest.raises(ArithmeticError, match="today"):
        sample("DPM++ 2M", broken, x_unit, [1.0, 0.0])
