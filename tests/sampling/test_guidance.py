"""Guidance: how conditions are combined, and what each step hook changes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from webui.sampling import (
    CfgRescale,
    CondOutputs,
    DynamicThresholding,
    GaussianMixture,
    GuidanceEnd,
    GuidanceHook,
    GuidanceStep,
    GuidedDenoiser,
    NegativeGuidanceMinSigma,
    Prediction,
    SkipEarlyCfg,
    sample,
    schedule,
)

SIGMA = torch.tensor([2.0, 2.0], dtype=torch.float64)


def pictures(count: int, seed: int = 0) -> list[Tensor]:
    return list(torch.randn(count, 2, 4, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


class Evaluator:
    """Fixed clean pictures for each condition; remembers what it was asked."""

    def __init__(self, weights: tuple[float, ...] = (1.0,)) -> None:
        *self.conds, self.uncond = pictures(len(weights) + 1)
        self.weights = weights
        self.asked: list[tuple[int, bool]] = []

    def __call__(self, x: Tensor, sigma: Tensor, call: int, with_uncond: bool, _level: float) -> CondOutputs:
        self.asked.append((call, with_uncond))
        return CondOutputs(list(zip(self.conds, self.weights, strict=True)), self.uncond if with_uncond else None)


def guided(evaluate: Evaluator, cfg_scale: float, *hooks: GuidanceHook, total_calls: int = 10) -> GuidedDenoiser:
    return GuidedDenoiser(evaluate, cfg_scale=cfg_scale, total_calls=total_calls, hooks=hooks)


def test_the_condition_is_pushed_away_from_the_unconditional_picture() -> None:
    evaluate = Evaluator()
    c, u = evaluate.conds[0], evaluate.uncond
    torch.testing.assert_close(guided(evaluate, 7.5)(c, SIGMA), u + 7.5 * (c - u))


def test_conditions_add_up_by_their_weights() -> None:
    evaluate = Evaluator((0.8, 1.5, -0.3))
    a, b, c = evaluate.conds
    u = evaluate.uncond
    expected = u + 5 * (0.8 * (a - u) + 1.5 * (b - u) - 0.3 * (c - u))
    torch.testing.assert_close(guided(evaluate, 5)(a, SIGMA), expected)


def test_cfg_1_runs_no_unconditional_pass() -> None:
    evaluate = Evaluator()
    denoiser = guided(evaluate, 1.0)
    for _ in range(3):
        assert denoiser(evaluate.uncond, SIGMA).equal(evaluate.conds[0])
    assert evaluate.asked == [(0, False), (1, False), (2, False)]


@given(weights=st.lists(st.sampled_from([0.25, 0.5, 0.75, 1.0, -0.5]), min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_cfg_1_is_exact_for_any_weights(weights: list[float]) -> None:
    """Where the weights do not add up to 1 the unconditional picture does not cancel, so it is asked for."""
    evaluate = Evaluator(tuple(weights))
    u = evaluate.uncond
    denoiser = guided(evaluate, 1.0)
    expected = u + sum(w * (c - u) for c, w in zip(evaluate.conds, weights, strict=True))
    for _ in range(2):
        torch.testing.assert_close(denoiser(u, SIGMA), expected)
    assert [call for call, _ in evaluate.asked][-1] == 1
    assert evaluate.asked[-1][1] == (not math.isclose(sum(weights), 1.0))


def test_cfg_0_is_the_unconditional_picture() -> None:
    evaluate = Evaluator()
    torch.testing.assert_close(guided(evaluate, 0.0)(evaluate.uncond, SIGMA), evaluate.uncond)


def test_calls_are_counted_from_0() -> None:
    evaluate = Evaluator()
    denoiser = guided(evaluate, 7.0)
    for _ in range(3):
        denoiser(evaluate.uncond, SIGMA)
    assert evaluate.asked == [(0, True), (1, True), (2, True)]
    assert denoiser.calls == 3


def test_hooks_run_in_the_order_given() -> None:
    heard: list[str] = []

    class Hook:
        def __init__(self, name: str) -> None:
            self.name = name

        def before(self, step: GuidanceStep) -> None:
            heard.append(f"before {self.name}")
            step.cfg_scale += 1

        def after(self, step: GuidanceStep) -> None:
            heard.append(f"after {self.name}")
            step.denoised = step.denoised * 2

    evaluate = Evaluator()
    c, u = evaluate.conds[0], evaluate.uncond
    result = guided(evaluate, 5.0, Hook("a"), Hook("b"))(u, SIGMA)
    assert heard == ["before a", "before b", "after a", "after b"]
    torch.testing.assert_close(result, 4 * (u + 7 * (c - u)))


def test_a_hook_knows_the_noise_level_of_the_sampler(mixture: GaussianMixture, x_unit: Tensor) -> None:
    levels: list[tuple[float, int, int]] = []

    class Watch:
        def before(self, step: GuidanceStep) -> None:
            levels.append((step.sigma, step.call, step.total_calls))

        def after(self, step: GuidanceStep) -> None: ...

    sigmas = schedule("Karras", 4, [0.1, 10.0])
    denoiser = GuidedDenoiser(
        lambda x, sigma, *_: CondOutputs([(mixture(x, sigma), 1.0)], None),
        cfg_scale=1.0,
        total_calls=4,
        hooks=[Watch()],
    )
    sample("Euler", denoiser, x_unit * 10, sigmas)
    assert levels == [(s, i, 4) for i, s in enumerate(sigmas.tolist()[:-1])]


# Negative guidance minimum sigma, skip early CFG


@pytest.mark.parametrize(("all_steps", "asked"), [(False, [True, False, True, False]), (True, [False] * 4)])
def test_below_its_sigma_the_negative_prompt_rests(all_steps: bool, asked: list[bool]) -> None:
    evaluate = Evaluator()
    denoiser = guided(evaluate, 7.0, NegativeGuidanceMinSigma(2.5, all_steps))
    results = [denoiser(evaluate.uncond, SIGMA) for _ in range(4)]
    assert [with_uncond for _, with_uncond in evaluate.asked] == asked
    for result, with_uncond in zip(results, asked, strict=True):
        assert result.equal(evaluate.conds[0]) == (not with_uncond)


def test_above_its_sigma_nothing_changes() -> None:
    evaluate = Evaluator()
    denoiser = guided(evaluate, 7.0, NegativeGuidanceMinSigma(2.0, all_steps=True))
    denoiser(evaluate.uncond, SIGMA)
    assert evaluate.asked == [(0, True)]


@pytest.mark.parametrize(("share", "skipped"), [(0.0, 0), (0.2, 3), (0.25, 3), (1.0, 10)])
def test_the_first_share_of_the_calls_runs_without_guidance(share: float, skipped: int) -> None:
    evaluate = Evaluator()
    denoiser = guided(evaluate, 7.0, SkipEarlyCfg(share))
    for _ in range(10):
        denoiser(evaluate.uncond, SIGMA)
    assert [with_uncond for _, with_uncond in evaluate.asked] == [False] * skipped + [True] * (10 - skipped)


@pytest.mark.parametrize(("share", "guided_calls"), [(1.0, 10), (0.7, 7), (0.25, 3), (0.0, 0)])
def test_after_its_end_there_is_no_guidance(share: float, guided_calls: int) -> None:
    evaluate = Evaluator()
    denoiser = guided(evaluate, 7.0, GuidanceEnd(share))
    for _ in range(10):
        denoiser(evaluate.uncond, SIGMA)
    assert [with_uncond for _, with_uncond in evaluate.asked] == [True] * guided_calls + [False] * (10 - guided_calls)


def test_where_the_negative_prompt_rests_the_first_condition_stands_in_for_it() -> None:
    evaluate = Evaluator((1.0, 0.5))
    a, b = evaluate.conds
    result = guided(evaluate, 7.0, NegativeGuidanceMinSigma(9.0, all_steps=True))(a, SIGMA)
    torch.testing.assert_close(result, a + 0.5 * (b - a))
    assert evaluate.asked == [(0, False)]


# CFG rescale


def output_of(prediction: Prediction, x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    """What the network would have said to make this clean picture."""
    eps = (x - denoised) / sigma
    return (eps - sigma * denoised) / math.sqrt(sigma**2 + 1) if prediction == "v" else eps


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
@pytest.mark.parametrize("phi", [0.0, 0.7, 1.0])
def test_rescale_gives_the_output_the_spread_of_the_conditional_one(prediction: Prediction, phi: float) -> None:
    """Equations 15 and 16 of Lin et al. on the network's output, as diffusers' guidance_rescale does."""
    evaluate = Evaluator()
    (x,) = pictures(1, seed=5)
    plain = guided(evaluate, 7.0)(x, SIGMA)
    result = guided(evaluate, 7.0, CfgRescale(phi, prediction))(x, SIGMA)

    cond, full, got = (output_of(prediction, x, d, 2.0) for d in (evaluate.conds[0], plain, result))
    dims = (1, 2, 3)
    expected = phi * full * cond.std(dims, keepdim=True) / full.std(dims, keepdim=True) + (1 - phi) * full
    torch.testing.assert_close(got, expected)


def test_rescale_leaves_an_unguided_step_alone() -> None:
    evaluate = Evaluator()
    assert guided(evaluate, 1.0, CfgRescale(0.7))(evaluate.uncond, SIGMA).equal(evaluate.conds[0])


# Dynamic thresholding


def test_thresholding_keeps_the_mean_and_takes_the_milder_range() -> None:
    evaluate = Evaluator()
    c, u = evaluate.conds[0], evaluate.uncond
    result = guided(evaluate, 20.0, DynamicThresholding(0.9, 7.0))(u, SIGMA).flatten(2)
    full, mild = (u + 20 * (c - u)).flatten(2), (u + 7 * (c - u)).flatten(2)
    centred_full = full - full.mean(2, keepdim=True)
    target = (mild - mild.mean(2, keepdim=True)).abs().amax(2, keepdim=True)
    limit = torch.maximum(torch.quantile(centred_full.abs().float(), 0.9, dim=2, keepdim=True).double(), target)
    expected = full.mean(2, keepdim=True) + centred_full.clamp(-limit, limit) * target / limit
    torch.testing.assert_close(result, expected)
    assert ((result - full.mean(2, keepdim=True)).abs() <= target + 1e-9).all()


def test_thresholding_to_the_same_scale_changes_nothing() -> None:
    evaluate = Evaluator()
    plain = guided(evaluate, 7.0)(evaluate.uncond, SIGMA)
    torch.testing.assert_close(guided(evaluate, 7.0, DynamicThresholding(1.0, 7.0))(evaluate.uncond, SIGMA), plain)
    assert guided(evaluate, 7.0, DynamicThresholding(0.0, 1.0))(evaluate.uncond, SIGMA).equal(plain)


def test_thresholding_an_even_picture_gives_numbers() -> None:
    def evaluate(x: Tensor, sigma: Tensor, call: int, with_uncond: bool, _level: float) -> CondOutputs:
        return CondOutputs([(torch.ones_like(x), 1.0)], torch.zeros_like(x))

    denoiser = GuidedDenoiser(evaluate, cfg_scale=9.0, total_calls=1, hooks=[DynamicThresholding(0.995)])
    assert denoiser(torch.zeros(2, 4, 3, 3), SIGMA).eq(9).all()


# CFG++


@pytest.mark.parametrize("name", ["DDIM CFG++", "Euler CFG++"])
def test_cfgpp_keeps_the_noise_of_the_unconditional_picture(name: str) -> None:
    evaluate = Evaluator()
    c, u = evaluate.conds[0], evaluate.uncond
    (x,) = pictures(1, seed=5)
    result = sample(name, guided(evaluate, 7.0), x, [4.0, 1.0])
    clean = u + 7.0 / 12.5 * (c - u)
    torch.testing.assert_close(result, clean + 1.0 * (x - u) / 4.0)
    assert evaluate.asked == [(0, True)]


@pytest.mark.parametrize("cfg_scale", [1.0, 12.5])
def test_cfgpp_needs_the_unconditional_pass_at_any_scale(cfg_scale: float) -> None:
    evaluate = Evaluator()
    sample("DDIM CFG++", guided(evaluate, cfg_scale, SkipEarlyCfg(0.1)), pictures(1)[0], [4.0, 1.0, 0.0])
    assert evaluate.asked == [(0, True), (1, True)]


# All together


HOOKS: list[Callable[[], GuidanceHook]] = [
    lambda: CfgRescale(0.7, "v"),
    lambda: NegativeGuidanceMinSigma(3.0),
    lambda: SkipEarlyCfg(0.2),
    lambda: DynamicThresholding(0.995, 5.0),
]


@given(chosen=st.lists(st.sampled_from(range(len(HOOKS))), unique=True), cfg_scale=st.floats(0, 30))
@settings(max_examples=40, deadline=None)
def test_hooks_compose_and_a_batch_equals_its_singles(chosen: list[int], cfg_scale: float) -> None:
    mixture = GaussianMixture(torch.stack([p.flatten(1)[0] for p in pictures(3)]), 0.4)
    shifted = GaussianMixture(mixture.centers + 0.5, 0.4)

    def run(x: Tensor) -> Tensor:
        denoiser = GuidedDenoiser(
            lambda x, sigma, *_: CondOutputs([(mixture(x, sigma), 1.0)], shifted(x, sigma)),
            cfg_scale=cfg_scale,
            total_calls=6,
            hooks=[HOOKS[i]() for i in chosen],
        )
        return sample("DPM++ 2M", denoiser, x * 10, schedule("Karras", 6, [0.1, 10.0]))

    (x,) = pictures(1, seed=9)
    both = run(x)
    assert torch.isfinite(both).all()
    torch.testing.assert_close(both, torch.cat([run(x[:1]), run(x[1:])]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["Euler", "DDIM CFG++"])
def test_no_hook_reads_a_number_back_from_the_device(name: str) -> None:
    denoiser = GuidedDenoiser(
        lambda x, sigma, *_: CondOutputs([(x * 0.5, 1.0), (x * 0.2, 0.5)], x * 0.1),
        cfg_scale=7.0,
        total_calls=8,
        hooks=[hook() for hook in HOOKS],
    )
    out = sample(name, denoiser, torch.empty(2, 4, 8, 8, device="meta"), [8.0, 4.0, 2.0, 1.0, 0.5, 0.0])
    assert out.shape == (2, 4, 8, 8)
