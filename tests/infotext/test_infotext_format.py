"""The parameters text is written as everybody reads it, and reads back exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from webui import infotext
from webui.names import SAMPLER_NAMES, SCHEDULE_NAMES
from webui.params import MAX_SEED, GenerationParams, make_params

BASE = {"prompt": "a cat", "width": 512, "height": 768, "seed": 5, "sampler": "Euler a", "rng": "GPU"}


def text(**changes: Any) -> str:
    return infotext.format(make_params({**BASE, **changes}), version=None)


def last_line(**changes: Any) -> str:
    return text(**changes).rpartition("\n")[2]


def test_three_parts_each_on_its_own_line() -> None:
    assert infotext.format(make_params({**BASE, "negative_prompt": "blurry\nlowres"})) == (
        "a cat\nNegative prompt: blurry\nlowres\n"
        "Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 5, Size: 512x768, "
        "Version: Latent WebUI 0.1.0"
    )


def test_an_empty_prompt_or_negative_prompt_has_no_line() -> None:
    assert text(prompt="").startswith("Steps: 20")
    assert text(prompt="", negative_prompt="n").startswith("Negative prompt: n\nSteps: 20")
    assert "Negative" not in text()


def test_the_keys_are_in_the_order_users_know() -> None:
    params = make_params(
        {**BASE, "variation_seed": 9, "variation_strength": 0.25, "seed_resize_width": 512, "seed_resize_height": 512,
         "clip_skip": 2, "ensd": 31337, "rng": "NV", "negative_guidance_min_sigma": 1.5, "eta": 0.5, "s_noise": 1.01}
    )  # fmt: skip
    line = infotext.format(
        params, model_name="m", model_hash="0123456789", vae_name="v.pt", vae_hash="abc",
        extra=[("Lora hashes", "a: 1, b: 2"), ("Nothing", None), ("Denoising strength", 0.5)], version="v1",
    ).rpartition("\n")[2]  # fmt: skip
    assert line == (
        "Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 5, Size: 512x768, "
        "Model hash: 0123456789, Model: m, VAE hash: abc, VAE: v.pt, Variation seed: 9, Variation seed strength: 0.25, "
        "Seed resize from: 512x512, Clip skip: 2, ENSD: 31337, RNG: NV, Eta: 0.5, NGMS: 1.5, Sigma noise: 1.01, "
        'Lora hashes: "a: 1, b: 2", Denoising strength: 0.5, Version: v1'
    )


@pytest.mark.parametrize(
    ("changes", "pair"),
    [
        ({"rng": "CPU"}, "RNG: CPU"),
        ({"sampler": "DDIM", "eta": 1.0}, "Eta DDIM: 1"),
        ({"zero_terminal_snr": True}, "Noise Schedule: Zero Terminal SNR"),
        ({"discard_penultimate_sigma": True}, "Discard penultimate sigma: True"),
        ({"sigmas": (3.0, 0.5)}, 'Custom sigmas: "3, 0.5"'),
        ({"vae": "None"}, "VAE: None"),
        ({"checkpoint": "a, b"}, 'Model: "a, b"'),
        ({"checkpoint": "Model"}, 'Model: "Model"'),
        ({"checkpoint": '"quoted"'}, 'Model: "\\"quoted\\""'),
        ({"old_prompt_timelines": True}, "Old prompt editing timelines: True"),
        ({"prompt_compatibility": True}, "A1111 prompt parsing: True"),
        ({"dynamic_thresholding_percentile": 0.995}, "Mimic scale: 7, Threshold percentile: 99.5"),
        ({"cfg_scale": 7.5}, "CFG scale: 7.5"),
    ],
)
def test_a_setting_is_there_when_it_is_not_the_default(changes: dict[str, Any], pair: str) -> None:
    assert pair in last_line(**changes)
    assert pair not in last_line()


def test_a_variation_of_no_strength_is_not_there() -> None:
    assert "Variation" not in text(variation_seed=7)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a, b", '"a, b"'),
        ("a: b", '"a: b"'),
        ("multi\nline", '"multi\\nline"'),
        ('say "hi"', 'say "hi"'),
        ('"quoted"', '"\\"quoted\\""'),
        ("512x512", "512x512"),
        (" spaced ", '" spaced "'),
        ("日本語", "日本語"),
        ("日, 本", '"日, 本"'),
        (7.0, "7.0"),
        (True, "True"),
    ],
)
def test_values_of_others_are_quoted_where_reading_needs_it(value: object, written: str) -> None:
    written_text = infotext.format(make_params(BASE), extra=[("Some key", value)], version=None)
    assert written_text.endswith(f"Some key: {written}")
    read = infotext.parse(written_text).fields
    assert read.get("Some key", "x".join((read.get("Some key-1", ""), read.get("Some key-2", "")))) == str(value)


def test_an_extra_value_that_equals_its_key_is_the_key_alone() -> None:
    assert infotext.format(make_params(BASE), extra=[("Tiling", "Tiling")], version=None).endswith(", Tiling")


def test_hashes_of_networks_are_a_list_that_reads_back() -> None:
    value = infotext.hash_list([("film: a, b", "63cabf0b2a0d"), ("x", "7c6bad76eb54"), ("none", "")])
    written = infotext.format(make_params(BASE), extra=[("Lora hashes", value), ("TI hashes", infotext.hash_list([]))])
    assert infotext.parse(written).lora_hashes == {"film a b": "63cabf0b2a0d", "x": "7c6bad76eb54"}
    assert "TI hashes" not in written


def test_picture_n_of_a_job_carries_its_own_seeds_and_no_batch() -> None:
    params = make_params({**BASE, "batch_size": 2, "batch_count": 3})
    assert "Seed: 9" in infotext.format(params, index=4)
    assert "Batch" not in infotext.format(params, index=4)
    varied = params.changed(variation_seed=100, variation_strength=0.5)
    assert "Seed: 5, " in infotext.format(varied, index=4)
    assert "Variation seed: 104" in infotext.format(varied, index=4)


# --- the round trip --------------------------------------------------------------------------------------------------

characters = st.characters(exclude_categories=["Cs"])
prompts = (
    st.text(characters, max_size=60)
    | st.lists(
        st.sampled_from(
            ["a", " ", "\n", "Negative prompt:", "Steps: 20, Sampler: x, Seed: 1", '"', ",", ":", "{", "\t", "512x512"]
        ),
        max_size=8,
    ).map("".join)
)  # fmt: skip
names = st.text(characters, max_size=20) | st.sampled_from(["Model", "VAE", "512x768", '"x"', "a [b]", "", " ", "None"])
positive = st.floats(0.0, 1e6)
side = st.integers(2, 256).map(lambda cells: cells * 8)
valid = st.fixed_dictionaries(
    {
        "prompt": prompts,
        "negative_prompt": prompts,
        "clip_skip": st.integers(1, 12),
        "emphasis": st.sampled_from(["Original", "No norm", "Ignore", "None"]),
        "comma_backtrack": st.integers(0, 74),
        "read_as_words": st.just("") | names,
        "pad_conds": st.booleans(),
        "old_prompt_timelines": st.booleans(),
        "prompt_compatibility": st.booleans(),
        "checkpoint": st.none() | names,
        "vae": st.just("Automatic") | names,
        "sampler": st.sampled_from(list(SAMPLER_NAMES)),
        "schedule": st.sampled_from(list(SCHEDULE_NAMES)),
        "steps": st.integers(1, 1000),
        "cfg_scale": st.floats(-0.0, 100.0),
        "eta": st.none() | st.floats(0.0, 10.0),
        "s_churn": st.floats(0.0, 1000.0),
        "s_tmin": positive,
        "s_noise": st.floats(0.0, 10.0),
        "sigma_min": positive,
        "rho": st.floats(0.0, 100.0),
        "beta_alpha": st.floats(0.0, 100.0, exclude_min=True),
        "beta_beta": st.floats(0.0, 100.0, exclude_min=True),
        "sigmas": st.none() | st.lists(positive, min_size=1, max_size=20).map(tuple),
        "discard_penultimate_sigma": st.booleans(),
        "sgm_noise_multiplier": st.booleans(),
        "quantize_timesteps": st.booleans(),
        "zero_terminal_snr": st.booleans(),
        "cfg_rescale": st.floats(0.0, 1.0),
        "negative_guidance_min_sigma": positive,
        "negative_guidance_all_steps": st.booleans(),
        "skip_early_cfg": st.floats(0.0, 1.0),
        "guidance_end": st.floats(0.0, 1.0),
        "feature_reuse": st.integers(1, 10),
        "dynamic_thresholding_percentile": st.floats(0.0, 1.0),
        "dynamic_thresholding_mimic_scale": st.floats(0.0, 100.0),
        "seed": st.integers(-1, MAX_SEED),
        "rng": st.sampled_from(["CPU", "GPU", "NV"]),
        "ensd": st.integers(-(2**31), 2**31 - 1),
        "image_format": st.sampled_from(["png", "jpeg", "webp", "avif"]),
        "image_quality": st.integers(1, 100),
    }
)
sizes = st.tuples(side, side) | st.just((None, None))
resizes = st.tuples(side, side) | st.just((0, 0))
variations = st.tuples(st.integers(-1, MAX_SEED), st.floats(0.0, 1.0, exclude_min=True)) | st.just((-1, 0.0))


@settings(max_examples=150, deadline=None)
@given(valid, sizes, resizes, variations, positive | st.just(0.0), positive | st.just(0.0))
def test_every_field_survives_the_round_trip_exactly(
    data: dict[str, Any],
    size: tuple[int | None, int | None],
    resize: tuple[int, int],
    variation: tuple[int, float],
    s_tmax: float,
    sigma_max: float,
) -> None:
    data |= {"width": size[0], "height": size[1], "seed_resize_width": resize[0], "seed_resize_height": resize[1]}
    data |= {"variation_seed": variation[0], "variation_strength": variation[1]}
    data["s_tmax"] = s_tmax if s_tmax >= data["s_tmin"] else 0.0
    data["sigma_max"] = sigma_max if sigma_max > data["sigma_min"] else 0.0
    params = make_params(data)
    written = infotext.format(params)
    parsed = infotext.parse(written)
    assert make_params(parsed.params) == params
    assert parsed.not_understood == ()
    assert infotext.format(make_params(parsed.params)) == written


@given(prompts, prompts)
@example("a\nNegative prompt: b", "Negative prompt:")
@example(" a \n\n", "\n")
@example("", "512x512")
def test_prompts_survive_whatever_they_hold(prompt: str, negative: str) -> None:
    params = make_params({**BASE, "prompt": prompt, "negative_prompt": negative})
    parsed = infotext.parse(infotext.format(params))
    assert (parsed.prompt, parsed.negative_prompt) == (params.prompt, params.negative_prompt)


def test_every_field_of_the_params_is_written_or_known_not_to_be() -> None:
    decided_elsewhere = {"batch_size", "batch_count", "sources", "save"}  # the text describes one picture, in its file
    covered = set(infotext.parse(infotext.format(make_params({**BASE, "checkpoint": "x"}))).params)
    covered |= {"variation_seed", "image_format", "image_quality", "vae"}  # there when they differ: the test above
    assert covered | decided_elsewhere == set(GenerationParams.model_fields)


def test_the_text_of_the_defaults_is_short() -> None:
    assert len(infotext.format(GenerationParams())) < 120
    assert json.dumps(infotext.parse(infotext.format(GenerationParams())).fields)
