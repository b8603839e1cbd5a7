"""H078-H087: parameters that cannot be are refused at the one door that page, API, command line and files share."""

from __future__ import annotations

from typing import Any

import pytest

from webui.errors import InvalidParams
from webui.params import MAX_SEED, GenerationParams, make_params, params_from_json

NAN, INFINITY = float("nan"), float("inf")


def refused(fields: dict[str, Any], name: str) -> None:
    """The fields are refused in a sentence that names one of them and repeats nothing long."""
    with pytest.raises(InvalidParams) as caught:
        make_params(fields)
    assert name in caught.value.message
    assert len(str(caught.value)) < 2500
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, 10**9, 1.5, "20", True, None, 10**400, [], {}])
def test_H078_steps_that_cannot_be_are_refused(value: Any) -> None:
    refused({"steps": value}, "steps")


@pytest.mark.parametrize("side", ["width", "height"])
@pytest.mark.parametrize("value", [0, -512, 7, 513, 2**31, 100_000, 64.5, NAN, "512", True])
def test_H079_sizes_that_cannot_be_are_refused(side: str, value: Any) -> None:
    refused({side: value}, side)


def test_H079_sides_that_are_too_large_together_are_refused() -> None:
    refused({"width": 16384, "height": 16384}, "width")


@pytest.mark.parametrize("name", ["cfg_scale", "cfg_rescale", "dynamic_thresholding_mimic_scale"])
@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY, -1e9, 1e308, False, "7", None])
def test_H080_guidance_that_is_no_number_within_bounds_is_refused(name: str, value: Any) -> None:
    refused({name: value}, name)


@pytest.mark.parametrize("name", ["seed", "variation_seed"])
@pytest.mark.parametrize("value", [-2, 2**64, 2**63, -(2**63), 1.5, "abc", "5", True, None])
def test_H081_seeds_that_cannot_be_are_refused(name: str, value: Any) -> None:
    refused({name: value}, name)


@pytest.mark.parametrize(
    "fields",
    [
        {"seed_resize_width": -8, "seed_resize_height": 64},
        {"seed_resize_width": 10**9, "seed_resize_height": 64},
        {"seed_resize_width": 64},
        {"seed_resize_width": 63, "seed_resize_height": 64},
    ],
)
def test_H081_seed_resize_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    refused(fields, "seed")


def test_H081_a_seed_that_would_count_past_the_last_one_is_refused() -> None:
    refused({"seed": MAX_SEED, "batch_size": 2}, "seed")


@pytest.mark.parametrize(
    "fields",
    [
        {"batch_size": 1000, "batch_count": 1000},
        {"batch_size": 64, "batch_count": 1000},
        {"batch_size": 0},
        {"batch_count": 0},
        {"batch_size": -1},
        {"batch_count": 10**6},
    ],
)
def test_H082_more_pictures_than_a_job_may_have_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        make_params(fields)


@pytest.mark.parametrize("value", [-1, -0.01, 1.01, 2, NAN, INFINITY, True, "0.5"])
@pytest.mark.parametrize("group", ["init", "hires"])
def test_H083_denoising_strength_outside_0_to_1_is_refused(group: str, value: Any) -> None:
    refused({group: {"denoising_strength": value}}, "denoising_strength")


@pytest.mark.parametrize("value", [0, -1, 13, 99, 1.5, True, "2", None])
def test_H084_clip_skip_beyond_the_layers_is_refused(value: Any) -> None:
    refused({"clip_skip": value}, "clip_skip")


@pytest.mark.parametrize(
    "fields",
    [
        {"scale": 0.0},
        {"scale": 1000.0},
        {"scale": NAN},
        {"scale": -2.0},
        {"width": 10**6, "height": 64},
        {"steps": 10**9},
        {"steps": -1},
    ],
)
def test_H085_a_second_pass_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    refused({"hires": fields}, "hires")


@pytest.mark.parametrize("name", ["sampler", "schedule"])
@pytest.mark.parametrize("value", ["Euler b", "", ["Euler"], {"a": 1}, 7, None, "__class__", "x" * 2**20, "\0"])
def test_H086_a_sampler_that_is_not_there_is_refused_with_the_nearest(name: str, value: Any) -> None:
    refused({name: value}, name if name == "schedule" and not isinstance(value, str) else "")


def test_H086_the_nearest_name_is_told() -> None:
    with pytest.raises(InvalidParams, match="Euler a"):
        make_params({"sampler": "Euler aa"})


@pytest.mark.parametrize("name", ["eta", "s_churn", "s_tmin", "s_tmax", "s_noise", "sigma_min", "sigma_max", "rho"])
@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY, -1.0, 1e300, True, "1"])
def test_H087_noise_settings_that_are_no_numbers_within_bounds_are_refused(name: str, value: Any) -> None:
    refused({name: value}, name)


def test_H087_an_interval_that_ends_before_it_begins_is_refused() -> None:
    refused({"s_tmin": 2.0, "s_tmax": 1.0}, "s_tmin")
    refused({"sigma_min": 5.0, "sigma_max": 5.0}, "sigma_min")


HOSTILE: list[Any] = [None, [], {}, True, 10**400, -(10**400), 1e308, "x" * 300, "\ud800", {"__class__": 1}, [[[[]]]]]


@pytest.mark.parametrize("name", sorted(GenerationParams.model_fields))
def test_H096_every_field_takes_or_refuses_every_kind_of_value_in_a_sentence(name: str) -> None:
    for value in HOSTILE:
        made = made_of(name, value)
        assert made is None or params_from_json(made.canonical_json()) == made, (name, value)


def made_of(name: str, value: Any) -> GenerationParams | None:
    try:
        return make_params({name: value})
    except InvalidParams:
        return None


@pytest.mark.parametrize(
    "body",
    [
        b'{"steps": NaN}',
        b'{"cfg_scale": Infinity}',
        b'{"cfg_scale": 1e999}',
        b'{"steps": 20, "steps": 0}',
        b"[" * 10**5,
        b'{"a":' * 10**5,
        '{"steps": 0}'.encode("utf-16"),
        b"\xef\xbb\xbf\xff",
        b'"text"',
        b"",
        b"null",
        b'{"__proto__": {"steps": 1}}',
    ],
)
def test_H096_a_body_that_is_no_request_is_refused_by_the_reader_of_params(body: bytes) -> None:
    with pytest.raises(InvalidParams):
        params_from_json(body)


def test_H099_no_parameter_names_a_file_a_folder_or_a_pattern() -> None:
    schema = GenerationParams.model_json_schema()
    shapes = [schema, *schema["$defs"].values()]
    names = {name for shape in shapes for name in shape.get("properties", {})}
    assert len(names) > 60
    for name in names:
        assert not any(word in name for word in ("outdir", "pattern", "filename", "directory", "path", "file")), name
