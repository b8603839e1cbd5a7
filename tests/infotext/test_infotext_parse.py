"""Parameters texts of others are read as AUTOMATIC1111 reads them, typed within bounds, whatever they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui import infotext
from webui.infotext.versions import parse_version
from webui.params import GenerationParams, make_params

EXAMPLES = json.loads((Path(__file__).parent / "examples.json").read_text(encoding="utf-8"))
SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x768"


def params(text: str) -> dict[str, Any]:
    return infotext.parse(text).params


def reasons(text: str) -> dict[str, str]:
    return {entry.key: entry.reason for entry in infotext.parse(text).not_understood}


@pytest.mark.parametrize("case", EXAMPLES, ids=range(1, len(EXAMPLES) + 1))
def test_every_verified_example(case: dict[str, Any]) -> None:
    parsed = infotext.parse(case["text"])
    result = {"Prompt": parsed.prompt, "Negative prompt": parsed.negative_prompt, **parsed.fields}
    found = {key: value for key, value in result.items() if value and (key, value) != ("Schedule type", "Automatic")}
    assert found == {key: str(value) for key, value in case["result"].items()}


@pytest.mark.parametrize("case", EXAMPLES, ids=range(1, len(EXAMPLES) + 1))
def test_every_example_makes_valid_params(case: dict[str, Any]) -> None:
    assert isinstance(make_params(params(case["text"])), GenerationParams)


def test_settings_become_typed_fields() -> None:
    found = params(EXAMPLES[3]["text"])
    assert (found["steps"], found["cfg_scale"], found["seed"]) == (30, 6.0, 12345)
    assert (found["sampler"], found["schedule"]) == ("DPM++ 2M SDE", "Exponential")
    assert (found["width"], found["height"], found["clip_skip"]) == (1024, 1024, 2)
    assert (found["checkpoint"], found["vae"]) == ("sd_xl_base_1.0 [31e35c80fc]", "sdxl_vae.safetensors")


def test_the_models_a_text_names_are_listed_with_their_hashes() -> None:
    parsed = infotext.parse(EXAMPLES[3]["text"])
    assert [(r.kind, r.name, r.digest) for r in parsed.resources] == [
        ("checkpoint", "sd_xl_base_1.0", "31e35c80fc"),
        ("vae", "sdxl_vae.safetensors", "235745af8d"),
        ("lora", "filmgrain", "63cabf0b2a0d"),
        ("lora", "add_detail", "7c6bad76eb54"),
        ("embedding", "EasyNegative", "66a7279a88dd"),
    ]
    assert parsed.lora_hashes == {"filmgrain": "63cabf0b2a0d", "add_detail": "7c6bad76eb54"}
    assert parsed.embedding_hashes == {"EasyNegative": "66a7279a88dd"}


def test_what_a_text_with_settings_does_not_say_is_the_default() -> None:
    found = params(f"a\n{SETTINGS}")
    assert (found["rng"], found["clip_skip"], found["eta"], found["emphasis"]) == ("GPU", 1, None, "Original")
    assert found["negative_prompt"] == ""
    assert not {"checkpoint", "vae", "batch_size", "image_format"} & found.keys()


def test_our_own_picture_that_names_no_vae_was_decoded_with_the_baked_one() -> None:
    """The form may have another one, and "Automatic" would take one that came since."""
    ours = f"a\n{SETTINGS}, Model hash: 0123456789, Model: m"
    version = ", Version: Latent WebUI 0.1.0"
    assert params(ours + version)["vae"] == "None"
    assert params(f"{ours}, VAE: x.safetensors{version}")["vae"] == "x.safetensors"
    assert params(f"{ours}, VAE: 512x512{version}")["vae"] == "512x512"
    assert "vae" not in params(f"{ours}, Version: v1.10.1")
    assert "vae" not in params("a\nNegative prompt: b")


def test_our_own_text_of_a_request_or_a_sheet_leaves_the_choice_of_the_vae_as_it_was() -> None:
    """Neither is of one decoded picture, so neither would name the VAE that decoded."""
    assert params(f"a\n{SETTINGS}, Model: m, Version: Latent WebUI 0.1.0")["vae"] == "Automatic"
    sheet = "Model hash: 0123456789, Model: m, Script: X/Y/Z plot, Grid layout: 1, Version: Latent WebUI 0.1.0"
    assert params(f"a\n{SETTINGS}, {sheet}")["vae"] == "Automatic"


def test_a_text_without_settings_is_a_prompt_and_says_nothing_else() -> None:
    assert params("a cat, Steps: 3, x: y") == {"prompt": "a cat, Steps: 3, x: y"}
    assert params("a\nNegative prompt: b") == {"prompt": "a", "negative_prompt": "b"}
    assert params("") == {}


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("DPM++ 2M Karras", ("DPM++ 2M", "Automatic")),
        ("DPM++ 2M Exponential", ("DPM++ 2M", "Exponential")),
        ("Euler Karras", ("Euler", "Karras")),
        ("DPM++ 2M SDE SGMUniform", ("DPM++ 2M SDE", "SGM Uniform")),
        ("k_euler_a", ("Euler a", "Automatic")),
        ("euler a", ("Euler a", "Automatic")),
    ],
)
def test_old_sampler_names_carry_their_schedule(sampler: str, expected: tuple[str, str]) -> None:
    found = params(f"a\nSteps: 20, Sampler: {sampler}, CFG scale: 7, Seed: 1")
    assert (found["sampler"], found["schedule"]) == expected


def test_before_1_9_a_sampler_without_suffix_had_the_uniform_schedule() -> None:
    old = "a\nSteps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 1, Version: "
    assert params(old + "v1.8.0")["schedule"] == "Uniform"
    assert params(old + "v1.9.0")["schedule"] == "Automatic"
    assert params(old + "f2.0.1v1.10.1-previous")["schedule"] == "Automatic"
    assert params(old.replace("DPM++ 2M", "DPM++ 2M Karras") + "v1.8.0")["schedule"] == "Automatic"


@pytest.mark.parametrize(
    ("version", "schedule"),
    [
        ("f0.0.17v1.8.0rc-latest-276-g29be1da7", "Uniform"),
        ("f0.0.17v1.8.0rc", "Uniform"),
        ("f1.0.0v1.9.0rc", "Automatic"),
        ("f2.0.1v1.10.1-previous-659-gc055f2d4", "Automatic"),
        ("f2.0", "Automatic"),
        ("fv1.8.0", "Automatic"),
    ],
)
def test_forge_has_the_schedules_of_the_version_it_is_built_on(version: str, schedule: str) -> None:
    assert params(f"a\nSteps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 1, Version: {version}")["schedule"] == schedule


def test_an_unknown_sampler_is_said_with_near_matches() -> None:
    text = "a\nSteps: 20, Sampler: Eular a, CFG scale: 7, Seed: 1"
    assert "sampler" not in params(text)
    assert '"Euler a"' in reasons(text)["Sampler"]


def test_a_size_that_is_no_multiple_of_a_latent_cell_is_rounded_down_and_said() -> None:
    text = "a\nSteps: 20, Sampler: Euler, Seed: 1, Size: 1000x515"
    assert (params(text)["width"], params(text)["height"]) == (1000, 512)
    assert "1000x512" in reasons(text)["Size"]


def test_settings_without_a_counterpart_are_listed() -> None:
    found = reasons(f"a\n{SETTINGS}, Hires upscale: 2, ADetailer model: face, Version: v1.10.1, User: me")
    assert set(found) == {"Hires upscale", "ADetailer model"}


def test_dynamic_thresholding_is_read_in_the_percent_of_its_extension() -> None:
    text = f"a\n{SETTINGS}, Dynamic thresholding enabled: True, Mimic scale: 5, Threshold percentile: 99.5"
    assert params(text)["dynamic_thresholding_percentile"] == 0.995
    assert params(text)["dynamic_thresholding_mimic_scale"] == 5.0
    assert params(f"a\n{SETTINGS}, Threshold percentile: 99.5")["dynamic_thresholding_percentile"] == 0.0


def test_loras_of_the_old_extension_become_tags() -> None:
    text = f"a\n{SETTINGS}, AddNet Module 1: LoRA, AddNet Model 1: film(abc123), AddNet Weight A 1: 0.7"
    assert infotext.parse(text).prompt == "a\n<lora:film:0.7>"


def test_prompt_and_settings_may_stand_on_one_line() -> None:
    parsed = infotext.parse(f"a cat, nice Negative prompt: bad, {SETTINGS}")
    assert (parsed.prompt, parsed.negative_prompt) == ("a cat, nice", "bad")
    assert parsed.params["steps"] == 20


def test_civitai_names_its_models_in_json() -> None:
    text = (
        f'a\n{SETTINGS}, Civitai resources: [{{"type":"checkpoint","modelName":"Juggernaut","modelVersionName":"X"}},'
        '{"type":"lora","weight":0.8,"modelName":"Film"}], Civitai metadata: {}'
    )
    parsed = infotext.parse(text)
    assert parsed.dialect == "Civitai"
    assert [(r.kind, r.name, r.weight) for r in parsed.resources] == [
        ("checkpoint", "Juggernaut X", ""),
        ("lora", "Film", "0.8"),
    ]
    hashes = infotext.parse(f'a\n{SETTINGS}, Hashes: {{"model": "6ce0161689", "lora:film": "63cabf0b2a"}}').resources
    assert [(r.kind, r.name, r.digest) for r in hashes] == [
        ("checkpoint", "", "6ce0161689"),
        ("lora", "film", "63cabf0b2a"),
    ]


@pytest.mark.parametrize(
    ("line", "dialect"),
    [
        (f"{SETTINGS}, Version: v1.10.1", "A1111"),
        (f"{SETTINGS}, Version: f2.0.1v1.10.1-previous-659-gc055f2d4", "Forge"),
        (f"{SETTINGS}, App: SD.Next, Parser: native", "SD.Next"),
        (f"{SETTINGS}, Performance: Speed, Scheduler: karras, Version: Fooocus v2.5", "Fooocus"),
        (f"{SETTINGS}, Version: Latent WebUI 0.1.0", "Latent WebUI"),
    ],
)
def test_the_program_that_wrote_a_text_is_recognised(line: str, dialect: str) -> None:
    assert infotext.parse(f"a\n{line}").dialect == dialect


def test_fooocus_writes_its_schedule_under_another_key() -> None:
    found = params(f"a\n{SETTINGS}, Scheduler: karras, Performance: Speed")
    assert found["schedule"] == "Karras"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v1.10.1", (1, 10, 1, 0)),
        ("1.6.0", (1, 6, 0, 0)),
        ("v1.7.0-133-gde03882d", (1, 7, 0, 133)),
        ("1.8.0-RC", (1, 8, 0, -1)),
        ("f2.0.1v1.10.1-previous", None),
        ("Latent WebUI 0.1.0", None),
        ("ComfyUI", None),
        ("", None),
        (None, None),
    ],
)
def test_versions_of_a1111_alone_are_versions(text: str | None, version: tuple[int, ...] | None) -> None:
    assert parse_version(text) == version


def test_old_pictures_keep_their_reading_of_the_prompt() -> None:
    assert params(f"at 12:30\n{SETTINGS}, Version: v1.10.1")["prompt_compatibility"] is True
    assert params(f"(a BREAK b)\n{SETTINGS}, Version: v1.10.1")["prompt_compatibility"] is True
    assert params(f"a BREAK b\n{SETTINGS}, Version: v1.10.1")["prompt_compatibility"] is False
    for forge in ("f2.0.1v1.10.1-previous-659-gc055f2d4", "f0.0.17v1.8.0rc-latest-276-g29be1da7"):
        assert params(f"at 12:30\n{SETTINGS}, Version: {forge}")["prompt_compatibility"] is True
        assert params(f"(a BREAK b)\n{SETTINGS}, Version: {forge}")["prompt_compatibility"] is True
        assert params(f"at noon\n{SETTINGS}, Version: {forge}")["prompt_compatibility"] is False
    assert params(f"at 12:30\n{SETTINGS}, Version: Latent WebUI 0.1.0")["prompt_compatibility"] is False


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("time 12:30 <lora:x:1>", True),
        ("cat:2 <hypernet:h:0.5>", True),
        ("time 12:30\n<lora:x:1>", True),
        ("time 12:30 <lora:x:1><lora:y:0.5>", True),
        ("time 12<lora:x:1>:30", True),
        ("a cat <lora:x:1>", False),
        ("a cat <lora:x:1", True),  # no tag: it is not closed
        ("a <lora:x:1> AND b:2 <lora:y:1>", False),
        ("time 12:30 <lora:>", False),  # no tag without a name
    ],
)
def test_a_number_at_the_end_counts_before_the_tags_of_networks(prompt: str, expected: bool) -> None:
    assert params(f"{prompt}\n{SETTINGS}, Version: v1.10.1")["prompt_compatibility"] is expected


def test_a_prompt_of_opened_tags_alone_is_read_at_once() -> None:
    assert params(f"{'<a:' * 100_000}>:2\n{SETTINGS}, Version: v1.10.1")


def test_the_dictionary_of_a1111_has_its_defaults() -> None:
    found = infotext.parse(f"(a)\n{SETTINGS}").as_a1111()
    assert found["Prompt"] == "(a)"
    assert (found["Clip skip"], found["RNG"], found["Emphasis"]) == ("1", "GPU", "Original")
    assert "Emphasis" not in infotext.parse(f"a\n{SETTINGS}").as_a1111()


# --- hostile texts ---------------------------------------------------------------------------------------------------


def test_H072_impossible_numbers_are_left_out_with_the_reason() -> None:
    text = "a\nSteps: NaN, Sampler: Euler, Seed: 1" + "0" * 30 + ", Size: -1x0, CFG scale: inf, Clip skip: 1e3"
    assert {"steps", "seed", "cfg_scale", "width"}.isdisjoint(params(text))
    assert set(reasons(text)) == {"Steps", "Seed", "CFG scale", "Clip skip", "Size"}
    assert params(text)["clip_skip"] == 1
    assert params("a\nSteps: 20, Sampler: Euler, Seed: " + "9" * 100_000)["steps"] == 20


def test_H072_values_that_are_impossible_together_are_left_out_together() -> None:
    text = f"a\n{SETTINGS}, Sigma tmin: 5, Sigma tmax: 1, Schedule min sigma: 9, Schedule max sigma: 2"
    assert {"s_tmin", "s_tmax", "sigma_min", "sigma_max"}.isdisjoint(params(text))
    assert reasons(text)["s_tmin and s_tmax"] == "s_tmin is above s_tmax."
    assert {"width", "height"}.isdisjoint(params("a\nSteps: 1, Sampler: Euler, Seed: 1, Size: 16384x16384"))


def test_H073_keys_that_name_paths_and_options_do_nothing() -> None:
    text = f"a\n{SETTINGS}, sd_model_checkpoint: /etc/passwd, outdir_samples: /tmp, Clip skip: 999, __class__: x"
    assert set(reasons(text)) == {"sd_model_checkpoint", "outdir_samples", "Clip skip", "__class__"}
    assert set(params(text)) <= set(GenerationParams.model_fields)
    assert params(f"a\n{SETTINGS}, Model: ../../etc/passwd")["checkpoint"] == "../../etc/passwd"  # a name to look up


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "line",
    [
        ", ".join(f"Key {i}: {i}" for i in range(10_000)),
        "Steps: 20, Sampler: Euler, Seed: 1, Key: " + "x" * 1_000_000,
        "Steps: 20, Sampler: Euler, Seed: 1, " + "a b-c/" * 200_000,
        "Steps: 20, Sampler: Euler, Seed: 1, " + 'aa:"' * 200_000,
        "Steps: 20, Sampler: Euler, Seed: 1, " + 'aa:"\\' * 200_000,
        "Steps: 20, Sampler: Euler, Seed: 1, " + ":" * 1_000_000,
        "Steps: 20, Sampler: Euler, Seed: 1, k1:" + " " * 1_000_000,
        'Steps: 20, Sampler: Euler, Seed: 1, Quoted: "a \\"b\\", c: d\\n<lora:../../x:1>", Last: 2',
    ],
)
def test_H074_a_hostile_settings_line_costs_its_length(line: str) -> None:
    parsed = infotext.parse(f"<lora:../../x:1>\n{line}")
    assert parsed.prompt == "<lora:../../x:1>"
    assert len(parsed.fields) <= 2000
    assert len(parsed.not_understood) <= 201


def test_H074_quotes_colons_and_line_breaks_inside_a_quoted_value_belong_to_it() -> None:
    parsed = infotext.parse(f'a\n{SETTINGS}, Quoted: "a \\"b\\", c: d\\ne", Last: 2')
    assert parsed.fields["Quoted"] == 'a "b", c: d\ne'
    assert parsed.fields["Last"] == "2"


def test_H062_control_characters_are_gone() -> None:
    parsed = infotext.parse(f"a\0b\x1b[31m\r\nc\r\n{SETTINGS}, Key one: x\x1b]0;y\x07")
    assert parsed.prompt == "ab[31m\nc"
    assert "\x1b" not in "".join(parsed.fields.values())


@pytest.mark.timeout(20)
def test_a_text_past_any_length_is_refused_as_data() -> None:
    parsed = infotext.parse("a " * 3_000_000)
    assert parsed.params == {}
    assert "longer than" in parsed.not_understood[0].reason


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text: str) -> None:
    make_params(infotext.parse(text).params)


keys = st.sampled_from(
    ["Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model", "Model hash", "VAE", "Clip skip",
     "ENSD", "Eta", "RNG", "Version", "First pass size", "Hypernet", "Custom sigmas", "NGMS", "Variation seed",
     "Exact prompt", "Seed resize from", "Noise Schedule", "Emphasis", "Threshold percentile", "Lora hashes",
     "Hashes", "Refiner"]
)  # fmt: skip
values = st.sampled_from(
    ["", "1", "-1", "0", "NaN", "1e999", "True", "x", "512x512", "0x0", "99999999999x1", '"a, b"', '"', "Karras",
     "v1.5.0", "Euler", "{", "[1,2", "1,2", '"1, 2"', "9" * 50, "\u0663", "½"]
) | st.text(max_size=10)  # fmt: skip


@given(st.lists(st.tuples(keys, values), max_size=12), st.sampled_from(["a", "a\nNegative prompt: b", "[a:b:3]", ""]))
def test_any_settings_line_gives_params_within_their_bounds(pairs: list[tuple[str, str]], head: str) -> None:
    line = ", ".join(f"{key}: {value}" for key, value in pairs)
    parsed = infotext.parse(f"{head}\n{line}")
    make_params(parsed.params)
    assert all(isinstance(value, str) for value in parsed.fields.values())


@pytest.mark.parametrize(
    "text",
    [
        '{"positive_prompt": "\\ud83d cat", "steps": 5, "seed": 1}',
        f'a cat\n{SETTINGS}, Wildcard prompt: "a \\udc00, b"',
    ],
)
def test_half_a_character_in_json_is_replaced(text: str) -> None:
    found = infotext.parse(text)
    assert "cat" in found.params["prompt"]
    json.dumps([found.params, found.as_a1111()], ensure_ascii=False).encode()
