"""What sets single methods apart: churn, restarts, the DPM solvers, and where two methods are the same."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from webui.sampling import GaussianMixture, PictureNoise, sample, schedule, sigma_table
from webui.sampling.methods.restart import restart_segments

TABLE = sigma_table()
NewNoise = Callable[[], Any]  # the fixture `new_noise`


# Churn, algorithm 2 of Karras et al.


@pytest.mark.parametrize("name", ["Euler", "Heun", "DPM2", "HeunPP2", "Euler CFG++"])
def test_churn_raises_the_level_by_gamma(
    name: str, mixture: GaussianMixture, x_unit: Tensor, new_noise: NewNoise
) -> None:
    sigmas = schedule("Karras", 10, TABLE).tolist()
    noise = new_noise()
    asked: list[float] = []

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append(float(sigma[0]))
        return mixture(x, sigma)

    sample(name, denoiser, x_unit * sigmas[0], sigmas, noise=noise, s_churn=2.0, s_tmin=0.5, s_tmax=10.0)
    inside = [s for s in sigmas[:-1] if 0.5 <= s <= 10.0]
    assert [s for s, _ in noise.intervals] == sigmas[
        :-1
    ]  # of every step, so that the stream does not hang on the range
    assert {round(s * 1.2, 9) for s in inside} <= {round(s, 9) for s in asked}


@pytest.mark.parametrize("name", ["Euler", "Heun", "DPM2"])
def test_churn_in_a_range_is_k_diffusions(
    name: str, mixture: GaussianMixture, x_unit: Tensor, new_noise: NewNoise
) -> None:
    """Written out from its definition: step i takes the i-th noise, and where gamma is 0 that one is thrown away."""
    sigmas = schedule("Karras", 10, TABLE).tolist()
    options = {"s_churn": 4.0, "s_tmin": 0.3, "s_tmax": 3.0, "s_noise": 1.1}
    noise = new_noise()

    def slope(x: Tensor, sigma: float) -> Tensor:
        return (x - mixture(x, torch.full((len(x),), sigma, dtype=torch.float64))) / sigma

    x = x_unit * sigmas[0]
    for sigma, sigma_next in itertools.pairwise(sigmas):
        drawn = noise(sigma, sigma_next)
        gamma = min(4.0 / 10, math.sqrt(2) - 1) if 0.3 <= sigma <= 3.0 else 0.0
        hat = sigma * (1 + gamma)
        x = x + 1.1 * drawn * math.sqrt(hat**2 - sigma**2)
        d = slope(x, hat)
        if name != "Euler" and sigma_next > 0:
            at = sigma_next if name == "Heun" else math.sqrt(hat * sigma_next)
            other = slope(x + d * (at - hat), at)
            d = (d + other) / 2 if name == "Heun" else other
        x = x + d * (sigma_next - hat)

    ours = sample(name, mixture, x_unit * sigmas[0], sigmas, noise=new_noise(), **options)
    torch.testing.assert_close(ours, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["Euler", "Heun", "DPM2", "HeunPP2", "Euler CFG++"])
def test_without_churn_no_noise_is_drawn(
    name: str, mixture: GaussianMixture, x_unit: Tensor, new_noise: NewNoise
) -> None:
    noise = new_noise()
    sample(name, mixture, x_unit * 14, schedule("Karras", 10, TABLE), noise=noise, s_tmin=0.5, s_tmax=10.0)
    assert noise.intervals == []


def test_churn_is_bounded_and_s_tmax_0_is_no_bound(mixture: GaussianMixture, x_unit: Tensor) -> None:
    sigmas = schedule("Karras", 4, TABLE).tolist()
    asked: list[float] = []
    sample("Euler", lambda x, s: asked.append(float(s[0])) or mixture(x, s), x_unit, sigmas, s_churn=1e6, s_tmax=0.0)
    assert asked == pytest.approx([s * math.sqrt(2) for s in sigmas[:-1]])


def test_s_noise_scales_the_noise(x_unit: Tensor, new_noise: NewNoise) -> None:
    noise = new_noise()
    zero = sample("Euler a", lambda x, s: x * 0, x_unit, [2.0, 1.0], noise=lambda a, b: x_unit, s_noise=0.0)
    one = sample("Euler a", lambda x, s: x * 0, x_unit, [2.0, 1.0], noise=lambda a, b: x_unit)
    double = sample("Euler a", lambda x, s: x * 0, x_unit, [2.0, 1.0], noise=lambda a, b: x_unit, s_noise=2.0)
    torch.testing.assert_close(double - zero, 2 * (one - zero))
    assert noise.intervals == []


# Methods that equal others


@pytest.mark.parametrize(
    ("name", "options", "other"),
    [
        ("Euler a", {"eta": 0.0}, "Euler"),
        ("DPM2 a", {"eta": 0.0}, "DPM2"),
        ("DDIM", {}, "Euler"),
        ("DDIM", {"eta": 1.0}, "Euler a"),
        ("DDPM", {}, "Euler a"),
        ("DDIM CFG++", {}, "Euler"),  # without guidance there is no difference between guided and unconditional
        ("Euler CFG++", {}, "Euler"),
        ("DPM++ 2M SDE", {"eta": 0.0}, "DPM++ 2M"),
        ("DPM++ SDE", {"eta": 0.0}, "DPM++ 2S a"),
        ("TCD", {"eta": 0.0}, "Euler"),
        ("LMS", {"order": 1}, "Euler"),
        ("DEIS", {"order": 1}, "Euler"),
    ],
)
def test_methods_meet_where_their_papers_say(
    name: str,
    options: dict[str, float],
    other: str,
    mixture: GaussianMixture,
    x_unit: Tensor,
    new_noise: NewNoise,
) -> None:
    sigmas = schedule("Karras", 9, TABLE)
    eta = {"eta": 0.0} if other == "DPM++ 2S a" else {}
    a = sample(name, mixture, x_unit * sigmas[0], sigmas, noise=new_noise(), **options)
    b = sample(other, mixture, x_unit * sigmas[0], sigmas, noise=new_noise(), **eta)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_ipndm_v_is_lms_but_for_the_step_into_0(mixture: GaussianMixture, x_unit: Tensor) -> None:
    sigmas = schedule("Karras", 9, TABLE)
    x = x_unit * sigmas[0]
    torch.testing.assert_close(sample("IPNDM_V", mixture, x, sigmas[:-1]), sample("LMS", mixture, x, sigmas[:-1]))
    assert not torch.allclose(sample("IPNDM_V", mixture, x, sigmas), sample("LMS", mixture, x, sigmas))


def test_ipndm_is_lms_on_even_steps(mixture: GaussianMixture, x_unit: Tensor) -> None:
    sigmas = torch.linspace(10, 1, 12, dtype=torch.float64)
    torch.testing.assert_close(sample("IPNDM", mixture, x_unit, sigmas), sample("LMS", mixture, x_unit, sigmas))


# Restart


def steps_of(n: int) -> Iterator[tuple[float, float]]:
    return iter(restart_segments(schedule("Karras", n, TABLE).tolist()))


def test_restart_below_20_steps_is_heun(mixture: GaussianMixture, x_unit: Tensor, new_noise: NewNoise) -> None:
    sigmas = schedule("Karras", 19, TABLE)
    x = x_unit * sigmas[0]
    noise = new_noise()
    assert sample("Restart", mixture, x, sigmas, noise=noise).equal(sample("Heun", mixture, x, sigmas))
    assert noise.intervals == []


@pytest.mark.parametrize(("n", "length", "times"), [(20, 9, 1), (35, 9, 1), (36, 9, 2), (60, 15, 2)])
def test_restart_goes_back_up_between_0_1_and_2(n: int, length: int, times: int) -> None:
    segments = list(steps_of(n))
    assert len(segments) == n
    assert segments[-1][1] == 0
    jumps = [i for i in range(1, n) if segments[i][0] > segments[i - 1][1]]
    assert len(jumps) == times
    assert [b - a for a, b in zip(jumps, [*jumps[1:], jumps[-1] + length], strict=True)] == [length] * times
    base = schedule("Karras", n - length * times, TABLE)
    for jump in jumps:
        low, high = segments[jump - 1][1], segments[jump][0]
        assert low == pytest.approx(base[(base - 0.1).abs().argmin()].item())
        assert high == pytest.approx(base[(base - 2.0).abs().argmin()].item())
        assert segments[jump + length - 1][1] == pytest.approx(low)


def test_restart_adds_just_the_noise_that_is_missing(x_unit: Tensor, new_noise: NewNoise) -> None:
    sigmas = schedule("Karras", 20, TABLE)
    noise = new_noise()
    sample("Restart", lambda x, s: x * 0, x_unit, sigmas, noise=noise)
    ((low, high),) = noise.intervals
    assert low < 0.2 < 1 < high


@pytest.mark.parametrize("n", [20, 28, 36, 50, 81])
def test_restart_takes_no_rounding_for_a_step_up(n: int) -> None:
    segments = list(steps_of(n))
    ups = [(a[1], b[0]) for a, b in itertools.pairwise(segments) if b[0] > a[1]]
    assert all(up > 5 * down for down, up in ups)


# DPM fast, DPM adaptive


@pytest.mark.parametrize("n", range(1, 12))
def test_dpm_fast_spends_n_calls_and_one_for_the_clean_picture(
    n: int, mixture: GaussianMixture, x_unit: Tensor
) -> None:
    asked: list[float] = []
    sigmas = schedule("Karras", n, TABLE)
    sample("DPM fast", lambda x, s: asked.append(float(s[0])) or mixture(x, s), x_unit * 14, sigmas, eta=0.0)
    assert len(asked) == (n if n > 1 else 0) + 1
    assert asked[-1] == pytest.approx(sigmas[-2].item())
    assert asked == sorted(asked, reverse=True)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_dpm_adaptive_paces_itself_as_k_diffusion(
    eta: float, mixture: GaussianMixture, x_unit: Tensor, new_noise: NewNoise
) -> None:
    """Lu et al. 2022a, DPM-Solver-23, and k-diffusion's controller, which takes the order for 1.5 where noise is added.

    Its defaults: rtol 0.05, atol 0.0078, h 0.05, the integral term alone, steps kept from a factor of 0.81 on.
    """
    high, low = 14.0, 0.05
    x = before = x_unit[:1] * high
    theirs, ours = new_noise(), new_noise()
    calls = 0

    def eps(x: Tensor, sigma: float) -> Tensor:
        nonlocal calls
        calls += 1
        return (x - mixture(x, torch.full((1,), sigma, dtype=torch.float64))) / sigma

    sigma, h = high, 0.05
    while math.log(sigma / low) > 1e-5:
        sigma_next = max(low, sigma * math.exp(-h))
        down, up = sigma_next, 0.0
        if eta:
            posterior = eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)
            down = max(low, math.sqrt(sigma_next**2 - posterior**2))
            up = math.sqrt(sigma_next**2 - down**2)
        step = math.log(sigma / down)
        third, two_thirds = (sigma ** (1 - r) * down**r for r in (1 / 3, 2 / 3))
        e0 = eps(x, sigma)
        e1 = eps(x - third * math.expm1(step / 3) * e0, third)
        bend = math.expm1(2 * step / 3) / (2 * step / 3) - 1
        e2 = eps(x - two_thirds * (math.expm1(2 * step / 3) * e0 + 2 * bend * (e1 - e0)), two_thirds)
        second = x - down * math.expm1(step) * (e0 + 1.5 * (e1 - e0))
        x_3 = x - down * (math.expm1(step) * e0 + 1.5 * (math.expm1(step) / step - 1) * (e2 - e0))
        allowed = torch.maximum(torch.tensor(0.0078), 0.05 * torch.maximum(second.abs(), before.abs()))
        error = ((second - x_3) / allowed).norm().item() / math.sqrt(x.numel())
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / (1.5 if eta else 3)) - 1)
        if factor >= 0.81:
            before, x = second, x_3
            if up:
                x = x + up * theirs(sigma, sigma_next)[:1]
            sigma = sigma_next
        h *= factor

    asked = 0

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        return mixture(x, sigma)

    out = sample("DPM adaptive", denoiser, x_unit[:1] * high, [high, low], noise=lambda a, b: ours(a, b)[:1], eta=eta)
    assert asked == calls
    torch.testing.assert_close(out, x, rtol=1e-7, atol=1e-7)


def test_dpm_adaptive_comes_closer_with_a_smaller_tolerance(mixture: GaussianMixture, x_unit: Tensor) -> None:
    sigmas = [10.0, 0.1]
    exact = sample("Heun", mixture, x_unit * 10, schedule("Exponential", 500, [0.1, 10.0])[:-1])
    errors = [
        (sample("DPM adaptive", mixture, x_unit * 10, sigmas, eta=0.0, rtol=rtol, atol=rtol / 6) - exact).norm().item()
        for rtol in (0.05, 0.005, 0.0005)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 2e-3 * exact.norm().item()


def test_dpm_adaptive_ends_though_the_model_gives_no_numbers(x_unit: Tensor, new_noise: NewNoise) -> None:
    out = sample("DPM adaptive", lambda x, s: x * math.nan, x_unit, [10.0, 1.0, 0.0], noise=new_noise())
    assert out.isnan().all()


def test_dpm_adaptive_gives_each_picture_its_own_noise(mixture: GaussianMixture) -> None:
    """Pictures that take different numbers of steps still take their noise from their own stream, in order."""
    far = torch.cat([torch.zeros(1, 4, 4, 4), 40 * torch.ones(1, 4, 4, 4)]).double()
    sigmas = [10.0, 0.1, 0.0]
    both = sample("DPM adaptive", mixture, far, sigmas, noise=PictureNoise([1, 2], (4, 4, 4), dtype=torch.float64))
    for i in range(2):
        noise = PictureNoise([i + 1], (4, 4, 4), dtype=torch.float64)
        alone = sample("DPM adaptive", mixture, far[i : i + 1], sigmas, noise=noise)
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-9, atol=1e-9)


# Heun++


def test_heunpp2_weighs_the_slopes_by_their_sigma() -> None:
    """Written out for three steps of a scalar problem, D(x) = x / 2."""
    s0, s1, s2 = 4.0, 2.0, 1.0

    def slope(x: float, sigma: float) -> float:
        return (x - x / 2) / sigma

    x = 3.0
    d0 = slope(x, s0)
    x1 = x + d0 * (s1 - s0)
    d1 = slope(x1, s1)
    d2 = slope(x1 + d1 * (s2 - s1), s2)
    w1, w2 = s1 / (3 * s0), s2 / (3 * s0)
    x = x + ((1 - w1 - w2) * d0 + w1 * d1 + w2 * d2) * (s1 - s0)
    d0 = slope(x, s1)
    d1 = slope(x + d0 * (s2 - s1), s2)
    w1 = s2 / (2 * s0)
    x = x + ((1 - w1) * d0 + w1 * d1) * (s2 - s1)
    x = x + slope(x, s2) * -s2

    out = sample("HeunPP2", lambda x, s: x / 2, torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64), [s0, s1, s2, 0.0])
    assert out.item() == pytest.approx(x, rel=1e-12)
