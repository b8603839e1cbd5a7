"""GenerationParams: validated at the door, frozen afterwards, one text for equal requests."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from webui.errors import InvalidParams, WebUIError
from webui.names import SAMPLER_NAMES, SCHEDULE_NAMES
from webui.params import MAX_SEED, RANDOM_SEED_LIMIT, GenerationParams, make_params, params_from_json

side = st.integers(2, 256).map(lambda cells: cells * 8)
valid = st.fixed_dictionaries(
    {},
    optional={
        "prompt": st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
        "negative_prompt": st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
        "width": st.none() | side,
        "height": st.none() | side,
        "sampler": st.sampled_from(list(SAMPLER_NAMES)),
        "schedule": st.sampled_from(list(SCHEDULE_NAMES)),
        "steps": st.integers(1, 1000),
        "cfg_scale": st.floats(-0.0, 100.0),
        "eta": st.none() | st.floats(0.0, 10.0),
        "seed": st.integers(-1, MAX_SEED - 100),
        "batch_count": st.integers(1, 10),
        "variation_strength": st.floats(0.0, 1.0),
        "sigmas": st.none() | st.lists(st.floats(0.0, 1e6), min_size=1, max_size=30).map(tuple),
    },
)


@given(valid)
def test_the_canonical_text_holds_everything_and_equal_params_have_equal_text(data: dict[str, Any]) -> None:
    params = make_params(data)
    again = params_from_json(params.canonical_json())
    assert again == params
    assert again.canonical_json() == params.canonical_json()
    assert again.fingerprint() == params.fingerprint()
    assert set(json.loads(params.canonical_json())) == set(GenerationParams.model_fields)


@given(valid, st.randoms())
def test_the_order_in_which_fields_were_given_does_not_matter(data: dict[str, Any], random: Any) -> None:
    shuffled = list(data.items())
    random.shuffle(shuffled)
    assert make_params(dict(shuffled)).canonical_json() == make_params(data).canonical_json()


def test_minus_zero_and_whole_numbers_are_written_as_what_they_equal() -> None:
    assert make_params({"cfg_scale": -0.0}).canonical_json() == make_params({"cfg_scale": 0}).canonical_json()
    assert make_params({"cfg_scale": 7}).canonical_json() == make_params({"cfg_scale": 7.0}).canonical_json()
    assert make_params({"sigmas": (1.0, -0.0)}).fingerprint() == make_params({"sigmas": (1.0, 0.0)}).fingerprint()


def test_they_cannot_be_changed_but_a_changed_copy_is_validated() -> None:
    params = make_params({"steps": 30})
    with pytest.raises(ValidationError):
        params.steps = 40  # type: ignore[misc]
    assert params.changed(steps=40).steps == 40
    assert params.steps == 30
    with pytest.raises(InvalidParams):
        params.changed(steps=0)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(GenerationParams.model_fields)), JSON_VALUES)
def test_any_value_in_any_field_is_accepted_or_refused_in_a_sentence(field: str, value: Any) -> None:
    try:
        params = make_params({field: value})
    except InvalidParams as refused:
        told = str(refused)
    else:
        told = ""
        assert params_from_json(params.canonical_json()) == params
    assert len(told.encode()) < 6000


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, "7", True, None, [7], {"a": 7}])
@pytest.mark.parametrize("field", ["cfg_scale", "steps", "seed", "width", "sigmas", "rng"])
def test_what_is_not_a_number_of_the_right_kind_is_refused_by_name(field: str, value: Any) -> None:
    if value is None and field in ("width", "sigmas"):
        assert make_params({field: None}) == make_params({})  # None means: choose for me
        return
    with pytest.raises(InvalidParams, match=field):
        make_params({field: value})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 1001}, "steps"),
        ({"width": 513}, "width"),
        ({"width": 8}, "width"),
        ({"width": 16_384, "height": 16_384}, "megapixels"),
        ({"batch_size": 65}, "batch_size"),
        ({"batch_size": 64, "batch_count": 1000}, "pictures"),
        ({"clip_skip": 0}, "clip_skip"),
        ({"seed": -2}, "seed"),
        ({"seed": MAX_SEED, "batch_count": 2}, "seed counts up"),
        ({"variation_seed": MAX_SEED, "batch_size": 2}, "variation_seed counts up"),
        ({"s_tmin": 2.0, "s_tmax": 1.0}, "s_tmin"),
        ({"sigma_min": 3.0, "sigma_max": 3.0}, "sigma_min"),
        ({"seed_resize_width": 512}, "seed resize"),
        ({"sigmas": ()}, "sigmas"),
        ({"emphasis": "original"}, "emphasis"),
        ({"prompt": "x" * 200_001}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"sampler": "Eular"}, 'Did you mean "Euler"'),
        ({"schedule": "no such"}, "schedule type"),
        ({"cfg": 7.0}, "cfg: extra"),
        ({"__class__": "x"}, "__class__"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(data: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        make_params(data)
    assert reason in str(caught.value)


def test_several_faults_are_told_at_once_and_a_huge_field_name_is_cut() -> None:
    with pytest.raises(InvalidParams, match=r"steps: .*; cfg_scale: "):
        make_params({"steps": 0, "cfg_scale": -1.0})
    with pytest.raises(InvalidParams) as caught:
        make_params({"x" * 10**6: 1, "y\x1b[2J\n": 2})
    assert len(str(caught.value)) < 300
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe\xff",
        b"{" * 100_000,
        b'{"prompt":' * 100_000,
        b'{"cfg_scale": NaN}',
        b'{"cfg_scale": 1e999}',
        b'{"seed": ' + b"9" * 10_000 + b"}",
        b'{"prompt": "\\ud800"}',
        b'{"sigmas": "1,2"}',
    ],
)
def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(WebUIError):
        params_from_json(body)


def test_old_combined_sampler_names_and_aliases_become_the_canonical_pair() -> None:
    params = make_params({"sampler": "dpm++ 2m karras"})
    assert (params.sampler, params.schedule) == ("DPM++ 2M", "Karras")
    assert make_params({"sampler": "DPM++ 2M Karras", "schedule": "Exponential"}).schedule == "Exponential"
    assert make_params({"sampler": "k_euler_a", "schedule": "sgm_uniform"}).sampler == "Euler a"


def test_line_ends_are_one_kind_and_control_characters_are_left_out() -> None:
    assert make_params({"prompt": "a\r\nb\rc\x00\x1b\td"}).prompt == "a\nb\nc\td"


def test_a_random_seed_is_drawn_once_and_stays() -> None:
    drawn = make_params({}).with_fixed_seeds()
    assert 0 <= drawn.seed < RANDOM_SEED_LIMIT
    assert 0 <= drawn.variation_seed < RANDOM_SEED_LIMIT
    assert drawn.with_fixed_seeds() is drawn
    fixed = make_params({"seed": 7, "variation_seed": 8})
    assert fixed.with_fixed_seeds() == fixed


def test_each_picture_of_a_job_has_its_own_seed_and_params_that_make_it_alone() -> None:
    job = make_params({"seed": 7, "variation_seed": 100, "batch_size": 2, "batch_count": 3})
    assert job.pictures == 6
    assert [job.seeds_of(index) for index in range(3)] == [(7, 100), (8, 101), (9, 102)]
    assert job.single(4).seed == 11
    assert job.single(4).pictures == 1


def test_with_a_variation_the_seed_stays_and_the_variation_counts_up() -> None:
    job = make_params({"seed": 7, "variation_seed": 100, "variation_strength": 0.5, "batch_size": 3})
    assert [job.seeds_of(index) for index in range(3)] == [(7, 100), (7, 101), (7, 102)]


def test_the_last_seed_there_is_can_be_used() -> None:
    job = make_params({"seed": MAX_SEED - 1, "batch_count": 2})
    assert job.single(1).seed == MAX_SEED
