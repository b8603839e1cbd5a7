"""From AUTOMATIC1111's words to params, without a server: scripts that are fields here, and infotexts that fill."""

from __future__ import annotations

import base64
import io
import json
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from webui import infotext
from webui.api.making import Made, Result
from webui.api.sdapi.answers import generation_answer
from webui.api.sdapi.from_infotext import with_infotext
from webui.api.sdapi.options import CHECKPOINT, FORMAT, OPTIONS, VAE
from webui.api.sdapi.pictures import extras_params
from webui.api.sdapi.requests import ExtrasSingle, Img2Img, Txt2Img
from webui.api.sdapi.translate import Order, Tools, img2img, txt2img
from webui.errors import InvalidParams
from webui.operations import FaceRestoration, Hires
from webui.params import GenerationParams, make_params

DEFAULTS = {key: option.default for key, option in OPTIONS.items()} | {CHECKPOINT: None, VAE: None, FORMAT: "png"}
TOOLS = Tools(lambda prompt, negative, names: (prompt, negative), lambda data: "a" * 64, {})


def picture() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def made(**fields: Any) -> GenerationParams:
    request = with_infotext(Txt2Img(**fields))
    return txt2img(Txt2Img(**fields), {**DEFAULTS, **request.override_settings}, TOOLS).jobs[0]


def inpainted(**fields: Any) -> GenerationParams:
    body = Img2Img(init_images=[picture()], mask=picture(), **fields)
    request = with_infotext(body)
    return img2img(body, {**DEFAULTS, **request.override_settings}, TOOLS).jobs[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"refiner_checkpoint": "other", "refiner_switch_at": 0.6},
        {"alwayson_scripts": {"Refiner": {"args": [True, "other", 0.6]}}},
    ],
)
def test_a_refiner_is_named_by_fields_or_by_the_script_of_that_name(fields: dict[str, Any]) -> None:
    params = made(**fields)
    assert (params.refiner, params.refiner_switch_at) == ("other", 0.6)


def test_a_refiner_that_is_off_is_none() -> None:
    for fields in (
        {"refiner_checkpoint": "None", "refiner_switch_at": 0.8},
        {"refiner_checkpoint": "", "refiner_switch_at": 0.8},
        {"alwayson_scripts": {"refiner": {"args": [False, "other", 0.6]}}},
    ):
        assert made(**fields).refiner is None
    with pytest.raises(InvalidParams, match="refiner_switch_at"):
        made(refiner_checkpoint="other", refiner_switch_at=7)


def test_soft_inpainting_is_the_script_of_that_name() -> None:
    script = {"Soft Inpainting": {"args": [True, 2, 0.3, 5.0]}}
    soft = inpainted(alwayson_scripts=script).inpaint.soft  # type: ignore[union-attr]
    assert soft is not None
    assert (soft.schedule_bias, soft.preservation_strength, soft.transition_contrast_boost) == (2.0, 0.3, 5.0)
    assert soft.difference_contrast == 2.0, "what was not sent has its default"
    off = inpainted(alwayson_scripts={"Soft Inpainting": {"args": [False, 2]}})
    assert off.inpaint is not None
    assert off.inpaint.soft is None
    with pytest.raises(InvalidParams, match="schedule_bias"):
        inpainted(alwayson_scripts={"soft inpainting": {"args": [True, "much"]}})


def test_an_infotext_fills_the_second_pass_the_refiner_and_the_noise() -> None:
    first = make_params(
        {
            "prompt": "a cat",
            "seed": 5,
            "width": 64,
            "height": 96,
            "rng": "NV",
            "tiling_x": True,
            "tiling_y": True,
            "zero_terminal_snr": True,
            "refiner": "other",
            "refiner_switch_at": 0.7,
            "hires": {"upscaler": "Lanczos", "scale": 1.5, "steps": 7, "denoising_strength": 0.4, "sampler": "Heun"},
        }
    )
    text = infotext.format(first, index=0, model_name="x", model_hash="0123456789")
    params = made(infotext=text)
    assert params.hires == Hires(upscaler="Lanczos", scale=1.5, steps=7, denoising_strength=0.4, sampler="Heun")
    for name in ("prompt", "seed", "width", "height", "rng", "tiling_x", "tiling_y", "zero_terminal_snr", "refiner"):
        assert getattr(params, name) == getattr(first, name), name
    assert params.refiner_switch_at == 0.7
    own = made(infotext=text, enable_hr=False, seed=9, override_settings={"randn_source": "CPU"})
    assert (own.hires, own.seed, own.rng) == (None, 9, "CPU"), "what the request gives itself is stronger"


def test_an_infotext_fills_what_is_done_with_the_picture_and_its_mask() -> None:
    text = (
        "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64, Denoising strength: 0.4, "
        "Mask blur: 6, Inpaint area: Only masked, Masked area padding: 16, Masked content: latent noise, "
        "Noise multiplier: 1.1, Resize mode: Crop and resize"
    )
    params = inpainted(infotext=text)
    assert params.init is not None
    assert params.inpaint is not None
    assert (params.init.denoising_strength, params.init.noise_multiplier) == (0.4, 1.1)
    assert params.init.resize_mode == "Crop and resize"
    assert (params.inpaint.blur_x, params.inpaint.blur_y, params.inpaint.padding) == (6, 6, 16)
    assert params.inpaint.only_masked
    assert params.inpaint.fill == "latent noise"
    assert inpainted(infotext=text, mask_blur=2).inpaint.blur_x == 2  # type: ignore[union-attr]


def test_restore_faces_names_the_options_model_and_is_noted_where_there_is_none() -> None:
    def order(restores: bool, **fields: Any) -> Any:
        tools = Tools(TOOLS.styled, TOOLS.keep, {}, lambda name: restores and name == "CodeFormer")
        return txt2img(Txt2Img(**fields), DEFAULTS, tools)

    faces = order(True, restore_faces=True).jobs[0].faces
    assert faces == FaceRestoration(model="CodeFormer", codeformer_weight=0.5)
    assert order(True).jobs[0].faces is None
    without = order(False, restore_faces=True)
    assert without.jobs[0].faces is None
    assert "models/GFPGAN" in without.notes[0]
    text = infotext.format(make_params({"prompt": "a", "faces": {"model": "GFPGANv1.4"}}))
    request = with_infotext(Txt2Img(infotext=text))
    assert (request.restore_faces, request.override_settings["face_restoration_model"]) == (True, "GFPGANv1.4")


def test_the_visibilities_of_extras_are_gfpgan_before_codeformer() -> None:
    def faces(**fields: Any) -> Any:
        context = SimpleNamespace(inputs=SimpleNamespace(add=lambda *_: SimpleNamespace(reference="a" * 64)))
        return extras_params(context, ExtrasSingle(**fields), picture(), "image", "").faces  # type: ignore[arg-type]

    assert faces() is None
    assert faces(gfpgan_visibility=0.5) == FaceRestoration(model="GFPGAN", visibility=0.5, codeformer_weight=0.0)
    assert faces(codeformer_visibility=1, codeformer_weight=0.7) == FaceRestoration(
        model="CodeFormer", codeformer_weight=0.7
    )
    assert faces(gfpgan_visibility=0.5, codeformer_visibility=0.25) == FaceRestoration(
        model="GFPGAN", visibility=0.5, model_2="CodeFormer", visibility_2=0.25, codeformer_weight=0.0
    )


def test_a_script_s_grid_comes_before_its_pictures_and_is_counted() -> None:
    params = make_params({"prompt": "a castle", "seed": 5, "variation_seed": 0})
    whole = params.changed(extensions={"xyz-plot": {"x_type": "Seed", "x_values": "5, 6"}})
    pictures = [
        Made({"infotext": infotext.format(one, model_name="m", model_hash=None), "seed": one.seed, "index": n}, data)
        for n, (one, data) in enumerate([(params, b"five"), (params.changed(seed=6), b"six"), (whole, b"grid")])
    ]
    view = {"params": whole.model_dump(), "warnings": [], "started": None, "id": "1"}
    result, order = Result(view, tuple(pictures)), Order((whole,), ())
    answer = generation_answer(Txt2Img(), order, [result], keep_inputs=False, scripts={"xyz-plot"})
    assert [base64.b64decode(data) for data in answer["images"]] == [b"grid", b"five", b"six"]
    info = json.loads(answer["info"])
    assert info["index_of_first_image"] == 1
    assert info["all_seeds"] == [5, 5, 6]
    assert "xyz-plot" in info["infotexts"][0]
