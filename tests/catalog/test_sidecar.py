"""NAME.yaml, NAME.json and metadata are read into types; what is hostile is refused and never run."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import pytest
from embedded import EMBEDDED_CHECKPOINT

from webui.catalog.header import read_header
from webui.catalog.sidecar import (
    Sidecar,
    TextDims,
    UnetDims,
    UserNotes,
    VaeDims,
    from_configs,
    merged,
    read_metadata,
    read_notes,
    read_yaml,
    validated,
)
from webui.errors import BadModelFile

SD15 = """
model:
  base_learning_rate: 1.0e-04
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    timesteps: 1000
    image_size: 64
    scale_factor: 0.18215
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        in_channels: 4
        out_channels: 4
        model_channels: 320
        attention_resolutions: [ 4, 2, 1 ]
        num_res_blocks: 2
        channel_mult: [ 1, 2, 4, 4 ]
        num_heads: 8
        transformer_depth: 1
        context_dim: 768
    first_stage_config:
      params:
        embed_dim: 4
        ddconfig: {z_channels: 4, in_channels: 3, out_ch: 3, ch: 128, ch_mult: [1, 2, 4, 4], num_res_blocks: 2}
"""


def yaml(text: str) -> Sidecar:
    return read_yaml(text.encode())


def test_the_published_configuration_of_sd15_is_understood():
    found = yaml(SD15)
    assert found.unet == UnetDims(4, 4, 320, (1, 2, 4, 4), 2, (4, 2, 1), 8, None, 1, 768)
    assert found.vae == VaeDims(3, 3, 128, (1, 2, 4, 4), 2, 4, None)
    assert (found.linear_start, found.linear_end, found.timesteps, found.image_size) == (0.00085, 0.012, 1000, 64)
    assert (found.parameterization, found.text) == (None, None)


def test_the_embedded_checkpoint_says_the_same_beside_the_file_and_in_its_metadata():
    beside = read_yaml(EMBEDDED_CHECKPOINT.with_suffix(".yaml").read_bytes())
    inside = read_metadata(read_header(EMBEDDED_CHECKPOINT).metadata)
    assert inside is not None
    assert (beside.parameterization, inside.parameterization) == ("v", "v")
    assert beside.vae is not None
    assert beside.vae.norm_num_groups is None  # 32, as every tool takes it
    assert replace(beside.vae, norm_num_groups=32) == inside.vae
    assert beside.unet is not None
    assert inside.unet is not None
    assert (beside.unet.channel_mult, inside.unet.channel_mult) == ((1, 2, 3), (1, 2, 3))
    assert set(inside.unet.attention_resolutions or ()) == set(beside.unet.attention_resolutions or ()) == {2, 4}
    assert inside.text == TextDims(128, 512, 3, 2, 77, 49408, "quick_gelu")
    assert inside.native_size == 128


def test_a_list_of_equal_numbers_is_that_number_and_minus_one_is_nothing():
    found = yaml("model: {params: {unet_config: {params: {num_res_blocks: [2, 2, 2], num_heads: -1}}}}")
    assert found.unet == UnetDims(num_res_blocks=2)


@pytest.mark.parametrize("text", ["", "{}", "model: 3", "a: [1, 2]", "model: {params: {unet_config: null}}"])
def test_a_yaml_that_is_about_something_else_says_nothing(text: str):
    assert yaml(text) == Sidecar()


@pytest.mark.parametrize(
    ("target", "meant"),
    [("sgm.denoiser_scaling.VScaling", "v"), ("sgm.denoiser_scaling.EpsScaling", None), ("3", None)],
)
def test_the_configurations_of_sdxl_say_velocity_by_the_name_of_a_scaling(target: str, meant: Any):
    text = f"model: {{params: {{denoiser_config: {{params: {{scaling_config: {{target: {target}}}}}}}}}}}"
    assert yaml(text) == Sidecar(parameterization=meant)


def test_H054_the_names_of_classes_are_never_looked_at():
    hostile = "model: {target: os.system, params: {timesteps: 10, unet_config: {target: subprocess.Popen, params: {}}}}"
    assert yaml(hostile) == Sidecar(timesteps=10)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['exit 1']", "!!python/name:os.system", "!!python/object:x {}"]
)
def test_H054_python_tags_are_refused(tag: str):
    with pytest.raises(BadModelFile):
        yaml(f"model: {{params: {{timesteps: {tag}}}}}")


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "${oc.env:LATENT_SECRET}", "${model.params.image_size}", "${"])
def test_H054_nothing_is_interpolated(value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LATENT_SECRET", "77")
    with pytest.raises(BadModelFile) as caught:
        yaml(f"model: {{params: {{image_size: 64, timesteps: '{value}'}}}}")
    assert "77" not in str(caught.value)
    assert os.environ["HOME"] not in str(caught.value)


def test_H054_an_alias_bomb_is_refused():
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
    with pytest.raises(BadModelFile):
        yaml(f"a0: &a0 [x, x, x]\n{levels}\nmodel: {{params: *a11}}")


@pytest.mark.parametrize(
    "text", ["[" * 5000, "a: " + "{b: " * 3000, "\t- x", "a: b: c", "\x00", "model: *nothing", "- 1"]
)
def test_H054_a_yaml_that_cannot_be_parsed_is_refused_in_one_printable_sentence(text: str):
    with pytest.raises(BadModelFile) as caught:
        yaml(text)
    assert caught.value.message.isprintable()


def test_H054_bytes_that_are_no_text_and_files_that_are_too_long_are_refused():
    for data in (b"\xff\xfe\x00", b"#" * 70_000):
        with pytest.raises(BadModelFile):
            read_yaml(data)


@pytest.mark.parametrize(
    "entry",
    [
        "timesteps: 0",
        "timesteps: 1e9",
        "timesteps: yes",
        "linear_start: .nan",
        "linear_start: 2.0",
        "scale_factor: .inf",
        "parameterization: x0",
        "parameterization: [v]",
        "image_size: -64",
        "unet_config: {params: {model_channels: 1000000000}}",
        "unet_config: {params: {channel_mult: [1, 2, 99999]}}",
        f"unet_config: {{params: {{channel_mult: {[1] * 50}}}}}",
        "unet_config: {params: {num_res_blocks: [1, 2]}}",
        "unet_config: {params: {context_dim: '768'}}",
        "first_stage_config: {params: {ddconfig: {norm_num_groups: 0}}}",
        "cond_stage_config: {params: {hidden_size: 1000000000}}",
        "cond_stage_config: {params: {num_hidden_layers: -2}}",
    ],
)
def test_H052_a_number_out_of_bounds_is_refused(entry: str):
    with pytest.raises(BadModelFile, match="cannot be used"):
        yaml(f"model: {{params: {{{entry}}}}}")


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": 10**9},
        {"num_hidden_layers": -3},
        {"hidden_size": "128"},
        {"hidden_size": 1.5},
        {"hidden_act": "os.system"},
        {"vocab_size": True},
        {"hidden_size": 10**400},
    ],
)
def test_H052_a_config_json_out_of_bounds_is_refused(config: dict[str, object]):
    with pytest.raises(BadModelFile):
        validated(from_configs(None, None, config))


@pytest.mark.parametrize("channels", [[], [0, 1], [-64, 128], [64, 100], ["64"], [64.0], "64", 64, [64] * 9, [10**9]])
def test_H052_channels_that_are_no_multiples_are_refused(channels: object):
    with pytest.raises(BadModelFile):
        validated(from_configs({"block_out_channels": channels}, None, None))


def test_heads_are_read_as_diffusers_writes_them():
    sd1 = validated(from_configs({"block_out_channels": [320, 640], "attention_head_dim": 8}, None, None)).unet
    sd2 = validated(from_configs({"block_out_channels": [320, 640], "attention_head_dim": [5, 10]}, None, None)).unet
    assert sd1 is not None
    assert sd2 is not None
    assert (sd1.num_heads, sd1.num_head_channels) == (8, None)
    assert (sd2.num_heads, sd2.num_head_channels) == (None, 64)


def test_another_noise_schedule_than_the_scaled_linear_one_is_refused():
    for scheduler in ({"beta_schedule": "linear"}, {"trained_betas": [0.1]}):
        with pytest.raises(BadModelFile, match="noise schedule"):
            from_configs(None, None, None, scheduler)


@pytest.mark.parametrize(
    ("metadata", "size"),
    [
        ({"native_resolution": "128"}, 128),
        ({"modelspec.resolution": "1024x1024"}, 1024),
        ({"modelspec.resolution": "768x1344"}, 1016),
        ({"native_resolution": "256", "modelspec.resolution": "512"}, 256),
    ],
)
def test_the_native_size_is_read_from_metadata(metadata: dict[str, str], size: int):
    found = read_metadata(metadata)
    assert found is not None
    assert found.native_size == size


@pytest.mark.parametrize("text", ["", "x", "512x", "0", "-512", "9999999x1", "512x512x512", "٥١٢x٥١٢x", "1e9"])
def test_a_native_size_that_makes_no_sense_is_not_said(text: str):
    assert read_metadata({"native_resolution": text}) is None


@pytest.mark.parametrize(("said", "meant"), [("epsilon", "eps"), ("v_prediction", "v"), ("v", "v"), ("eps", "eps")])
def test_the_prediction_type_is_read_in_every_usual_spelling(said: str, meant: str):
    for key in ("prediction_type", "modelspec.prediction_type", "modelspec.predict_key"):
        assert read_metadata({key: said}) == Sidecar(parameterization=meant)  # type: ignore[arg-type]
    assert read_metadata({"prediction_type": "sample"}) is None


def test_the_matrix_for_quick_previews_is_read():
    rows = [[0.1, 0.2, 0.3], [1, 0, -1], [0, 0, 0], [0.5, 0.5, 0.5]]
    found = read_metadata({"latent_rgb_factors": json.dumps(rows), "latent_rgb_bias": "[0.1, 0.1, 0.1]"})
    assert found is not None
    assert found.latent_rgb_factors == tuple(tuple(map(float, row)) for row in rows)
    assert found.latent_rgb_bias == (0.1, 0.1, 0.1)


@pytest.mark.parametrize(
    "text", ["[[1, 2]]", "[[1, 2, NaN]]", "[[1, 2, 1e9]]", '"x"', "[]", "{", "[[1, 2, 3, 4]]", "[" * 10_000]
)
def test_a_matrix_for_quick_previews_that_is_none_is_refused(text: str):
    with pytest.raises(BadModelFile):
        read_metadata({"latent_rgb_factors": text})


def test_what_stands_beside_the_file_is_believed_before_what_stands_inside():
    beside = Sidecar(parameterization="v", unet=UnetDims(context_dim=8))
    inside = Sidecar(parameterization="eps", timesteps=100, unet=UnetDims(context_dim=9, num_heads=2))
    assert merged(beside, inside) == Sidecar(
        parameterization="v", timesteps=100, unet=UnetDims(context_dim=8, num_heads=2)
    )
    assert merged(beside, None) == beside
    assert merged(None, inside) == inside
    assert merged(None, None) is None


def test_notes_are_read_as_users_keep_them():
    notes = {
        "description": "made for icons",
        "sd version": "SD1",
        "activation text": "an icon of",
        "preferred weight": 1,
        "negative text": "",
        "notes": "see <b>site</b>",
        "vae": "sharp.vae.safetensors",
        "something else": [1],
    }
    found, problems = read_notes(json.dumps(notes).encode())
    assert problems == []
    assert found == UserNotes(
        "made for icons", "see <b>site</b>", "sharp.vae.safetensors", "an icon of", "", 1.0, "SD1"
    )


def test_entries_of_the_notes_that_are_no_texts_are_set_aside_one_by_one():
    found, problems = read_notes(
        json.dumps(
            {"vae": {"__class__": 1}, "preferred weight": "high", "notes": "kept", "description": "x" * 200_000}
        ).encode()
    )
    assert found == UserNotes(notes="kept")
    assert len(problems) == 3


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'"' + b"x" * 300_000 + b'"'])
def test_notes_that_are_no_notes_are_set_aside_with_a_sentence(data: bytes):
    found, problems = read_notes(data)
    assert found is None
    assert len(problems) == 1


@pytest.mark.parametrize("weight", ["NaN", "Infinity", "1e999", "true", "1e5"])
def test_a_weight_that_is_no_usual_number_is_set_aside(weight: str):
    found, problems = read_notes(f'{{"preferred weight": {weight}}}'.encode())
    assert found == UserNotes()
    assert len(problems) == 1
