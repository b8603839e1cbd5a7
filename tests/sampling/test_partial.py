"""The part of a schedule that img2img and hires run: which steps, and from what noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from webui.errors import InvalidParams
from webui.names import SAMPLER_NAMES
from webui.sampling import make_sigmas, partial_schedule, sigma_table, start_latents

TABLE = sigma_table()
KARRAS_20 = [14.6146, 11.7254, 9.3402, 7.3836, 5.7894, 4.4998, 3.4647, 2.6408, 1.9909, 1.4832, 1.0908, 0.7909, 0.5647]
KARRAS_20 += [0.3964, 0.273, 0.1842, 0.1213, 0.0779, 0.0485, 0.0292, 0.0]


def part(sampler: str = "Euler", schedule: str = "Karras", steps: int = 20, **more: Any) -> Any:
    return partial_schedule(sampler, schedule, steps, TABLE, **{"strength": 0.75, "exact": False, **more})


@pytest.mark.parametrize(("strength", "run"), [(0.75, 16), (0.0, 1), (0.04, 1), (0.05, 2), (0.5, 11), (1.0, 20)])
def test_one_step_more_than_the_share_is_run(strength: float, run: int) -> None:
    found = part(strength=strength)
    assert len(found.sigmas) - 1 == run
    assert found.sigmas.tolist() == pytest.approx(KARRAS_20[20 - run :], abs=1e-4)
    assert found.start == float(found.sigmas[0])
    assert (found.low, found.high) == pytest.approx((0.0292, 14.6146), abs=1e-4)


def test_exactly_that_many_steps_of_a_longer_schedule() -> None:
    found = part(strength=0.3, exact=True)
    whole = make_sigmas("Euler", "Karras", 66, TABLE)  # int(20 / 0.3)
    assert torch.equal(found.sigmas, whole[66 - 20 :])
    assert len(part(strength=0.0, exact=True).sigmas) == 0
    with pytest.raises(InvalidParams, match="too small"):
        part(strength=1e-6, exact=True)


def test_ddim_begins_at_a_timestep_with_noise_of_the_next_higher_one() -> None:
    found = part("DDIM", "Automatic")  # 15 of 1, 51 ... 951
    assert len(found.sigmas) == 16
    assert float(found.sigmas[0]) == pytest.approx(float(TABLE[701]))
    assert found.start == pytest.approx(float(TABLE[751]))
    assert len(part("DDIM", "Automatic", strength=0.0).sigmas) == 0


def test_ddim_on_another_schedule_follows_the_common_rule() -> None:
    assert len(part("DDIM", "Karras").sigmas) - 1 == 16


def test_unipc_has_an_even_grid_from_the_highest_timestep_that_is_run() -> None:
    found = part("UniPC", "Automatic")
    assert len(found.sigmas) == 16
    assert float(found.sigmas[0]) == pytest.approx(float(TABLE[701]), rel=1e-5)
    assert found.start == pytest.approx(float(TABLE[751]))


@pytest.mark.parametrize("sampler", ["DPM fast", "DPM adaptive"])
def test_a_sampler_with_steps_of_its_own_runs_between_the_ends_of_the_schedule_that_is_cut(sampler: str) -> None:
    assert part(sampler).sigmas.tolist() == pytest.approx(KARRAS_20[4:], abs=1e-4)
    assert torch.equal(part(sampler, "Exponential").sigmas, part("Euler", "Exponential").sigmas)


def test_own_sigmas_are_cut_by_their_share() -> None:
    assert part(custom=(8.0, 4.0, 2.0, 1.0), strength=0.5).sigmas.tolist() == [4.0, 2.0, 1.0, 0.0]


@pytest.mark.parametrize("sampler", [name for name, info in SAMPLER_NAMES.items() if not info.flow])
@pytest.mark.parametrize("exact", [False, True])
def test_every_sampler_has_a_descending_part_that_ends_at_nothing(sampler: str, exact: bool) -> None:
    sigmas = part(sampler, "Automatic", strength=0.4, exact=exact).sigmas.tolist()
    assert sigmas == sorted(sigmas, reverse=True)
    assert sigmas[-1] == 0
    assert len(sigmas) > 2


def test_a_picture_is_started_with_noise_of_its_level_and_more_where_asked() -> None:
    latents, noise = torch.full((1, 1, 1, 1), 2.0), torch.ones(1, 1, 1, 1)
    assert float(start_latents(noise, [3.0, 0.0], "Euler", prediction="eps", latents=latents, extra_noise=0.5)) == 5.5
    x = start_latents(noise, [3.0, 0.0], "DDIM", prediction="eps", latents=latents, level=4.0)
    alpha = 1 / (1 + 4.0**2)  # sqrt(a) latents + sqrt(1 - a) noise, read as if it were at 3
    assert float(x) / math.sqrt(1 + 3.0**2) == pytest.approx(math.sqrt(alpha) * 2 + math.sqrt(1 - alpha))
