"""Names of samplers and schedules, as people write them."""

from __future__ import annotations

import pytest

from webui.errors import InvalidParams
from webui.names import SAMPLER_NAMES, SCHEDULE_NAMES, find_sampler, find_schedule


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_every_sampler_is_found_by_its_name_and_aliases_in_any_case(name: str) -> None:
    sampler = SAMPLER_NAMES[name]
    for spoken in (name, name.upper(), f"  {name.lower()} ", *sampler.aliases, *(a.upper() for a in sampler.aliases)):
        assert find_sampler(spoken) == (sampler, None)


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_every_schedule_is_found_by_its_name_and_aliases_in_any_case(name: str) -> None:
    schedule = SCHEDULE_NAMES[name]
    for spoken in (name, name.upper(), f" {name.lower()} ", *schedule.aliases):
        assert find_schedule(spoken) is schedule


def test_no_two_samplers_and_no_two_schedules_answer_to_one_name() -> None:
    for known in (SAMPLER_NAMES.values(), SCHEDULE_NAMES.values()):
        spoken = [word for entry in known for word in {alias.casefold() for alias in (entry.name, *entry.aliases)}]
        assert len(spoken) == len(set(spoken))


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
@pytest.mark.parametrize("schedule", ["Karras", "Exponential", "SGM Uniform", "Align Your Steps"])
def test_the_old_combined_form_names_both(sampler: str, schedule: str) -> None:
    found, carried = find_sampler(f"{sampler} {schedule}")
    assert (found.name, carried.name if carried else "") == (sampler, schedule)


def test_every_default_schedule_exists() -> None:
    assert {sampler.default_schedule for sampler in SAMPLER_NAMES.values()} <= set(SCHEDULE_NAMES)


@pytest.mark.parametrize("name", ["", " ", "Karras", "Euler Euler", "DPM++ 2M Karras Karras", "Euler\x00", "a" * 10**6])
def test_what_is_no_sampler_is_refused_in_a_short_sentence(name: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        find_sampler(name)
    assert len(str(caught.value)) < 1000


def test_a_slip_of_the_keyboard_is_answered_with_what_was_meant() -> None:
    with pytest.raises(InvalidParams, match='Did you mean "DPM\\+\\+ 2M SDE"'):
        find_sampler("DPM+ 2M SDE")
    with pytest.raises(InvalidParams, match='Did you mean "Karras"'):
        find_schedule("Karas")
