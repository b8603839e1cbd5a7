"""The groups of `GenerationParams` for pictures that are there already: bounds, names, what goes with what."""

from __future__ import annotations

from typing import Any

import pytest

from webui.errors import InvalidParams
from webui.params import make_params, params_from_json

A, B = "a" * 64, "b" * 64


def test_a_request_without_pictures_has_no_group_and_is_txt2img() -> None:
    params = make_params({})
    assert (params.init, params.inpaint, params.hires, params.sd_upscale, params.extras) == (None,) * 5
    assert params.kind == "txt2img"
    assert params.inputs == ()


def test_groups_come_back_from_json_as_they_were() -> None:
    params = make_params(
        {
            "init": {"image": A, "denoising_strength": 0.5, "frame": {"left": 64}},
            "inpaint": {"mask": B, "blur_x": 0, "soft": {"mask_influence": 0.25}},
            "tiling_x": True,
        }
    )
    assert params_from_json(params.canonical_json()) == params
    assert params.kind == "img2img"
    assert params.changed(steps=5).inpaint == params.inpaint


def test_every_picture_that_a_request_needs_is_named_once() -> None:
    params = make_params({"init": {"image": A}, "inpaint": {"mask": A}})
    assert params.inputs == (A,)
    assert make_params({"hires": {"first_pass": B}}).inputs == (B,)
    assert make_params({"extras": {"image": A}}).inputs == (A,)
    assert make_params({"extras": {"image": A}}).kind == "extras"


def test_names_of_the_second_pass_are_canonical() -> None:
    hires = make_params({"hires": {"sampler": "dpm++ 2m karras"}}).hires
    assert hires is not None
    assert (hires.sampler, hires.schedule) == ("DPM++ 2M", "Karras")


def test_minus_zero_in_a_group_is_written_as_what_it_equals() -> None:
    texts = {make_params({"init": {"image": A, "extra_noise": zero}}).canonical_json() for zero in (0.0, -0.0)}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"inpaint": {}}, "inpaint needs a picture"),
        ({"sd_upscale": {}}, "sd_upscale needs a picture"),
        ({"init": {"image": A}, "hires": {}}, "hires is for pictures made from nothing"),
        ({"init": {"image": A, "frame": {"left": 8}}}, "init.frame"),
        ({"init": {"image": A}, "inpaint": {}, "sd_upscale": {}}, "sd_upscale draws the whole"),
        ({"init": {"image": "../" + A[3:]}}, "init.image"),
        ({"init": {"image": A.upper()}}, "init.image"),
        ({"init": {"image": A + "\n"}}, "init.image"),
        ({"init": {"image": A, "denoising_strength": 1.5}}, "init.denoising_strength"),
        ({"init": {"image": A, "background": "white"}}, "init.background"),
        ({"init": {"image": A, "resize": "x"}}, "init.resize: extra"),
        ({"hires": {"sampler": "Eular"}}, 'Did you mean "Euler"'),
        ({"hires": {"scale": 0.5}}, "hires.scale"),
        ({"extras": {"image": "x"}}, "extras.image"),
        ({"extras": {"image": A, "width": 64}}, "both a width and a height"),
        ({"extras": {"image": A, "upscaler": "\ud800"}}, "extras.upscaler"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(data: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        make_params(data)
    assert reason in str(caught.value)
