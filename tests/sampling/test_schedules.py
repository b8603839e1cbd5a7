"""Sigma schedules: the printed numbers of the papers and tools, and what holds for any of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta as beta_distribution
from torch import Tensor

from webui.errors import InvalidParams
from webui.names import SAMPLER_NAMES
from webui.sampling import (
    SAMPLERS,
    SCHEDULES,
    flow_sigma_table,
    make_sigmas,
    rescale_zero_terminal_snr,
    schedule,
    sigma_table,
)

TABLE = sigma_table()

# n = 10, four decimals
PRINTED = {
    "Uniform": (14.6146, 7.8399, 4.6092, 2.9183, 1.9502, 1.3449, 0.9324, 0.625, 0.3687, 0.0292, 0),
    "Karras": (14.6146, 9.1029, 5.4784, 3.1686, 1.7494, 0.9141, 0.4469, 0.2014, 0.0819, 0.0292, 0),
    "Exponential": (14.6146, 7.3249, 3.6712, 1.84, 0.9222, 0.4622, 0.2317, 0.1161, 0.0582, 0.0292, 0),
    "SGM Uniform": (14.6146, 8.3072, 5.0924, 3.3251, 2.2797, 1.6156, 1.1629, 0.8319, 0.5712, 0.3437, 0),
    "KL Optimal": (14.6146, 4.565, 2.6329, 1.7864, 1.2948, 0.9616, 0.7116, 0.5094, 0.3356, 0.1783, 0.0292),
    "Align Your Steps": (14.615, 6.1135, 3.5651, 2.3939, 1.65, 1.1358, 0.7425, 0.445, 0.1692, 0.029, 0),
    "Simple": (14.6146, 8.3028, 5.0878, 3.3211, 2.2765, 1.6129, 1.1606, 0.8299, 0.5693, 0.3417, 0),
    "DDIM": (8.3907, 5.1344, 3.3478, 2.2929, 1.6237, 1.1682, 0.8357, 0.5741, 0.3462, 0.0413, 0),
    "Turbo": (14.6146, 8.3028, 5.0878, 3.3211, 2.2765, 1.6129, 1.1606, 0.8299, 0.5693, 0.3417, 0),
    "Beta": (14.6146, 13.9278, 12.491, 10.5976, 8.4424, 6.2014, 4.0462, 2.1528, 0.716, 0.0292, 0),
}
AYS_SDXL_20 = (
    14.615, 9.3971, 6.1459, 4.6853, 3.5598, 2.6685, 2.02, 1.5644, 1.2226, 0.9685, 0.7677, 0.6089, 0.4924, 0.4034,
    0.3178, 0.2463, 0.1722, 0.1174, 0.0593, 0.029, 0,
)  # fmt: skip


@pytest.mark.parametrize("name", PRINTED)
def test_ten_steps_are_those_in_print(name: str) -> None:
    assert schedule(name, 10, TABLE).tolist() == pytest.approx(PRINTED[name], abs=5.1e-5)


def test_align_your_steps_has_a_table_for_sdxl() -> None:
    assert schedule("Align Your Steps", 20, TABLE, sdxl=True).tolist() == pytest.approx(AYS_SDXL_20, abs=5.1e-5)
    assert schedule("Align Your Steps", 11, TABLE, sdxl=True)[1] == 6.315  # as published, not interpolated


@given(name=st.sampled_from(sorted(SCHEDULES)), n=st.integers(1, 1000))
@settings(max_examples=200, deadline=None)
def test_sigmas_descend_and_end_in_0(name: str, n: int) -> None:
    sigmas = schedule(name, n, TABLE)
    assert sigmas.dtype == torch.float64
    assert sigmas.ndim == 1
    assert torch.isfinite(sigmas).all()
    assert (sigmas.diff() < 0).all()
    assert (sigmas[-1] == 0) == (name != "KL Optimal")
    if name != "DDIM":  # whose whole stride gives more steps where n does not divide 1,000
        assert len(sigmas) == n + 1


@given(
    sampler=st.sampled_from(sorted(SAMPLER_NAMES)),
    name=st.sampled_from(sorted(SCHEDULES)),
    n=st.integers(1, 150),
    discard=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_every_pair_of_sampler_and_schedule_has_sigmas(sampler: str, name: str, n: int, discard: bool) -> None:
    table = flow_sigma_table() if SAMPLERS[sampler].flow else TABLE
    sigmas = make_sigmas(sampler, name, n, table, discard_penultimate=discard)
    assert (sigmas.diff() < 0).all()
    assert len(sigmas) >= 2
    if "DDIM" not in (name, SAMPLERS[sampler].default_schedule) and sampler != "UniPC":
        assert len(sigmas) == n + 1


@given(
    name=st.sampled_from(["Uniform", "Normal", "Karras", "Exponential", "Polyexponential", "KL Optimal", "Beta"]),
    n=st.integers(2, 60),
    sigma_min=st.floats(0.03, 1.0),
    sigma_max=st.floats(1.5, 14.0),
)
@settings(max_examples=100, deadline=None)
def test_custom_limits_are_the_ends(name: str, n: int, sigma_min: float, sigma_max: float) -> None:
    sigmas = schedule(name, n, TABLE, sigma_min=sigma_min, sigma_max=sigma_max)
    assert sigmas[0].item() == pytest.approx(sigma_max, rel=1e-6)
    assert sigmas[sigmas > 0][-1].item() == pytest.approx(sigma_min, rel=1e-6)


@pytest.mark.parametrize("name", ["SGM Uniform", "Simple", "Turbo", "DDIM"])
def test_schedules_over_trained_timesteps_stay_inside_custom_limits(name: str) -> None:
    sigmas = schedule(name, 12, TABLE, sigma_min=0.5, sigma_max=5.0)
    assert sigmas[0] <= 5.0 * (1 + 1e-6)
    assert sigmas[-2] >= 0.5 * (1 - 1e-6)


def test_rho_bends_the_karras_schedule() -> None:
    straight = schedule("Karras", 5, TABLE, rho=1)
    torch.testing.assert_close(straight[:-1].diff(), straight[:-1].diff()[:1].expand(4))
    assert schedule("Karras", 5, TABLE, rho=7).equal(schedule("Karras", 5, TABLE))


def test_polyexponential_is_exponential_at_rho_1() -> None:
    torch.testing.assert_close(schedule("Polyexponential", 9, TABLE), schedule("Exponential", 9, TABLE))
    assert schedule("Polyexponential", 9, TABLE, rho=2)[4] < schedule("Exponential", 9, TABLE)[4]


def test_beta_takes_its_shape_from_the_options() -> None:
    sigmas = schedule("Beta", 7, TABLE, beta_alpha=0.8, beta_beta=1.3)
    share = (sigmas[:-1] - TABLE[0]) / (TABLE[-1] - TABLE[0])
    expected = beta_distribution.ppf(1 - torch.linspace(0, 1, 7, dtype=torch.float64).numpy(), 0.8, 1.3)
    torch.testing.assert_close(share, torch.from_numpy(expected))


@pytest.mark.parametrize("spelling", ["karras", "Karras", "KARRAS", " karras "])
def test_aliases_are_understood_in_any_case(spelling: str) -> None:
    assert schedule(spelling, 8, TABLE).equal(schedule("Karras", 8, TABLE))
    assert schedule("SGMUniform", 8, TABLE).equal(schedule("sgm_uniform", 8, TABLE))


def test_unknown_schedule_names_the_nearest() -> None:
    with pytest.raises(InvalidParams, match=r'"karas".*"Karras"'):
        schedule("karas", 8, TABLE)


@pytest.mark.parametrize("options", [{"sigma_min": 20.0}, {"sigma_max": 0.01}, {"sigma_min": 3.0, "sigma_max": 2.0}])
def test_an_empty_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidParams, match="cannot run from"):
        schedule("Karras", 8, TABLE, **options)


def test_no_steps_are_refused() -> None:
    with pytest.raises(InvalidParams, match="0 steps"):
        schedule("Karras", 0, TABLE)


def test_a_table_may_be_a_plain_list() -> None:
    assert schedule("Simple", 8, TABLE.tolist()).equal(schedule("Simple", 8, TABLE))


def test_automatic_is_the_samplers_own_schedule() -> None:
    for sampler, name in (
        ("DPM++ 2M", "Karras"),
        ("DPM++ 3M SDE", "Exponential"),
        ("Euler", "Uniform"),
        ("DDIM", "DDIM"),
    ):
        assert make_sigmas(sampler, "Automatic", 10, TABLE).equal(make_sigmas(sampler, name, 10, TABLE))


def test_the_schedule_in_an_old_name_counts_unless_another_is_chosen() -> None:
    assert make_sigmas("LMS Karras", "Automatic", 10, TABLE).equal(schedule("Karras", 10, TABLE))
    assert make_sigmas("DPM++ 2M SDE Exponential", "Automatic", 10, TABLE).equal(schedule("Exponential", 10, TABLE))
    assert make_sigmas("LMS Karras", "Simple", 10, TABLE).equal(schedule("Simple", 10, TABLE))


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("sampler", ["DPM fast", "DPM adaptive"])
def test_a_sampler_with_steps_of_its_own_takes_no_more_than_their_number_and_the_limits(
    sampler: str, name: str
) -> None:
    for n in (2, 10, 13):
        sigmas = make_sigmas(sampler, name, n, TABLE, rho=3.0, discard_penultimate=True)
        assert len(sigmas) == n + 1
        assert [sigmas[0].item(), sigmas[-2].item(), sigmas[-1].item()] == pytest.approx(
            [14.614641, 0.029167, 0], abs=1e-6
        )
        assert sigmas.equal(make_sigmas(sampler, "Automatic", n, TABLE))
    narrow = make_sigmas(sampler, name, 10, TABLE, sigma_min=0.5, sigma_max=5.0)
    assert [narrow[0].item(), narrow[-2].item()] == pytest.approx([5.0, 0.5], rel=1e-6)
    assert make_sigmas(sampler, name, 10, TABLE, custom=(10, 3, 1)).tolist() == [10, 3, 1, 0]


def test_the_penultimate_sigma_is_dropped_where_the_sampler_says_so() -> None:
    longer = schedule("Karras", 11, TABLE)
    expected = torch.cat((longer[:-2], longer[-1:]))
    assert make_sigmas("DPM2", "Karras", 10, TABLE).equal(expected)
    assert make_sigmas("Euler", "Karras", 10, TABLE, discard_penultimate=True).equal(expected)
    assert make_sigmas("Euler", "Karras", 10, TABLE).equal(schedule("Karras", 10, TABLE))


def test_unipc_counts_its_steps_as_ddim_does() -> None:
    assert make_sigmas("UniPC", "Automatic", 20, TABLE).equal(schedule("SGM Uniform", 20, TABLE))
    assert len(make_sigmas("UniPC", "Automatic", 30, TABLE)) == len(make_sigmas("DDIM", "Automatic", 30, TABLE)) == 32


def test_a_users_own_list_wins_and_gets_its_0() -> None:
    assert make_sigmas("DPM2", "Karras", 50, TABLE, custom=(10, 3, 1)).tolist() == [10, 3, 1, 0]
    assert make_sigmas("DPM2", "Karras", 50, TABLE, custom=(10, 3, 0)).tolist() == [10, 3, 0]


@pytest.mark.parametrize("custom", [(), (0.0,), (1.0, 2.0), (3.0, 3.0), (3.0, -1.0), (3.0, math.nan), (math.inf, 1.0)])
def test_a_list_that_does_not_descend_is_refused(custom: tuple[float, ...]) -> None:
    with pytest.raises(InvalidParams):
        make_sigmas("Euler", "Karras", 10, TABLE, custom=custom)


def test_zero_terminal_snr_ends_in_pure_noise() -> None:
    table = sigma_table(zero_terminal_snr=True)
    assert table[-1].item() == pytest.approx(4518.76, abs=0.01)
    assert table[-2].item() == pytest.approx(2254.24, abs=0.01)
    assert table[0].item() == pytest.approx(TABLE[0].item(), rel=1e-9)
    assert table.equal(rescale_zero_terminal_snr(TABLE))


def test_flow_levels_run_up_to_1() -> None:
    table = flow_sigma_table(shift=3.0)
    assert (table.diff() > 0).all()
    assert table[-1] == 1
    assert table[499].item() == pytest.approx(0.75)
    torch.testing.assert_close(flow_sigma_table(shift=1.0), torch.arange(1, 1001, dtype=torch.float64) / 1000)


def test_the_table_is_not_changed() -> None:
    before: Tensor = TABLE.clone()
    for name in SCHEDULES:
        schedule(name, 10, TABLE, sigma_min=0.1, sigma_max=10)
    assert before.equal(TABLE)
