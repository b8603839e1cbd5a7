"""img2img, inpaint, hires, SD upscale, extras and tiling in the parameters text: ours exactly, A1111's as they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui import infotext
from webui.names import LATENT_UPSCALERS, SAMPLER_NAMES, SCHEDULE_NAMES
from webui.params import make_params

REFERENCE = st.integers(0, 2**64).map(lambda number: f"{number:064x}")
SHARE = st.floats(0, 1)
NAME = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(str.strip)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def group(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


FRAME = group(**{side: st.integers(0, 512) for side in ("left", "top", "right", "bottom")}).filter(
    lambda frame: any(frame.values())
)
INIT = group(
    image=REFERENCE,
    resize_mode=st.sampled_from(["Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"]),
    denoising_strength=SHARE,
    exact_steps=st.booleans(),
    noise_multiplier=st.floats(0, 1.5),
    extra_noise=SHARE,
    color_correction=st.booleans(),
    background=st.just("#10ff00"),
)
SOFT = group(schedule_bias=st.floats(0, 8), mask_influence=SHARE, difference_contrast=st.floats(0, 8))
INPAINT = group(
    mask=REFERENCE,
    invert=st.booleans(),
    blur_x=st.integers(0, 64),
    blur_y=st.integers(0, 64),
    fill=st.sampled_from(["fill", "original", "latent noise", "latent nothing"]),
    only_masked=st.booleans(),
    padding=st.integers(0, 256),
    round_mask=st.booleans(),
    conditioning_mask_strength=SHARE,
    soft=SOFT,
)
HIRES = group(
    upscaler=st.sampled_from([*LATENT_UPSCALERS, "Lanczos"]) | NAME,
    scale=st.floats(1, 8),
    width=st.integers(0, 2048),
    height=st.integers(0, 2048),
    steps=st.integers(0, 50),
    denoising_strength=SHARE,
    sampler=st.none() | st.sampled_from(list(SAMPLER_NAMES)),
    schedule=st.none() | st.sampled_from(list(SCHEDULE_NAMES)),
    cfg_scale=st.none() | st.floats(0, 30),
    prompt=WORDS,
    negative_prompt=WORDS,
    checkpoint=st.none() | NAME,
    first_pass=st.none() | REFERENCE,
)
EXTRAS = st.fixed_dictionaries(
    {"image": REFERENCE},
    optional={
        "upscaler": NAME,
        "upscaler_2": NAME,
        "upscaler_2_visibility": SHARE,
        "scale": st.floats(0.25, 8),
        "crop": st.booleans(),
    },
) | st.fixed_dictionaries({"image": REFERENCE, "width": st.integers(1, 999), "height": st.integers(1, 999)})
FACES = group(model=NAME, visibility=SHARE, model_2=NAME, visibility_2=SHARE, codeformer_weight=SHARE)
REQUESTS = st.one_of(
    st.fixed_dictionaries({"init": INIT}),
    st.fixed_dictionaries({"init": INIT, "inpaint": INPAINT}),
    st.tuples(INIT, FRAME, INPAINT).map(lambda g: {"init": {**g[0], "frame": g[1]}, "inpaint": g[2]}),
    st.fixed_dictionaries({"hires": HIRES}),
    st.fixed_dictionaries({"init": INIT, "sd_upscale": group(upscaler=NAME, scale=st.floats(1, 8))}),
    st.fixed_dictionaries({"extras": EXTRAS}),
    group(tiling_x=st.booleans(), tiling_y=st.booleans()),
    st.fixed_dictionaries({"faces": FACES}, optional={"hires": HIRES}),
)
SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"


@given(REQUESTS)
def test_every_operation_comes_back_as_the_very_same_request(fields: dict[str, Any]) -> None:
    params = make_params({"prompt": "a", "seed": 7, "variation_seed": 0, "checkpoint": "m", **fields})
    text = infotext.format(params)
    parsed = infotext.parse(text)
    again = make_params({"variation_seed": 0, "image_format": "png", **parsed.params})
    assert again == params
    assert parsed.not_understood == ()


def read(settings: str) -> Any:
    return infotext.parse(f"a cat\n{SETTINGS}, {settings}, Version: v1.10.1")


def test_hires_of_automatic1111_is_understood() -> None:
    parsed = read(
        "Denoising strength: 0.55, Hires upscale: 2, Hires steps: 15, Hires upscaler: R-ESRGAN 4x+, "
        'Hires sampler: DPM++ 2M Karras, Hires prompt: "a cat, detailed", Hires checkpoint: other [abcdef0123]'
    )
    hires = parsed.params["hires"]
    assert (hires["denoising_strength"], hires["scale"], hires["steps"]) == (0.55, 2.0, 15)
    assert (hires["sampler"], hires["schedule"]) == ("DPM++ 2M", "Karras")
    assert (hires["upscaler"], hires["checkpoint"]) == ("R-ESRGAN 4x+", "other [abcdef0123]")
    assert hires["prompt"] == "a cat, detailed"
    assert parsed.params["init"] is None
    assert parsed.not_understood == ()


def test_hires_of_before_2023_has_its_target_size() -> None:
    text = "x\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 1024x1024, Denoising strength: 0.7, "
    params = infotext.parse(text + "First pass size: 0x0").params
    assert (params["width"], params["height"]) == (512, 512)
    assert (params["hires"]["width"], params["hires"]["height"]) == (1024, 1024)


def test_same_as_the_first_pass_is_no_value() -> None:
    hires = read(
        "Denoising strength: 0.7, Hires upscale: 1.5, Hires sampler: Use same sampler, "
        "Hires schedule type: Use same scheduler, Hires checkpoint: Use same checkpoint"
    ).params["hires"]
    assert (hires["sampler"], hires["schedule"], hires["checkpoint"]) == (None, None, None)
    assert hires["upscaler"] == "Latent"


@pytest.mark.parametrize(
    ("version", "settings", "sampler", "schedule"),
    [
        ("v1.8.0", "Hires sampler: DPM++ 2M", "DPM++ 2M", "Uniform"),
        ("v1.8.0", "Hires sampler: Euler a", "Euler a", "Uniform"),
        ("v1.8.0", "Hires sampler: DPM++ 2M Karras", "DPM++ 2M", "Karras"),
        ("v1.8.0", "Hires sampler: DPM++ 2M SDE Exponential", "DPM++ 2M SDE", "Exponential"),
        ("f0.0.17v1.8.0rc-latest-276-g29be1da7", "Hires sampler: DPM++ 2M", "DPM++ 2M", "Uniform"),
        # These had a schedule of their own, whatever the first pass has.
        ("v1.8.0", "Hires sampler: Restart", "Restart", "Automatic"),
        ("v1.8.0", "Hires sampler: DPM fast", "DPM fast", "Automatic"),
        ("v1.8.0", "Hires sampler: DDIM", "DDIM", "Automatic"),
        ("v1.8.0", "Hires sampler: Use same sampler", None, None),
        ("v1.8.0", "Hires steps: 3", None, None),
        ("v1.8.0", "Hires sampler: DPM++ 2M, Hires schedule type: Karras", "DPM++ 2M", "Karras"),
        # An option for every sampler there, so the first pass has it, too.
        ("v1.8.0", "Hires sampler: DPM++ 2M, Schedule type: Exponential", "DPM++ 2M", None),
        ("v1.9.0", "Hires sampler: DPM++ 2M", "DPM++ 2M", None),
        ("v1.10.1", "Hires sampler: DPM++ 2M", "DPM++ 2M", None),
    ],
)
def test_before_1_9_a_sampler_of_the_hires_pass_carried_its_schedule(
    version: str, settings: str, sampler: str | None, schedule: str | None
) -> None:
    text = f"a cat\n{SETTINGS}, Denoising strength: 0.5, Hires upscale: 2, {settings}, Version: {version}"
    parsed = infotext.parse(text)
    hires = parsed.params["hires"]
    assert (hires["sampler"], hires["schedule"]) == (sampler, schedule)
    assert parsed.not_understood == ()


def test_img2img_of_automatic1111_is_a_form_that_waits_for_its_picture() -> None:
    parsed = read("Denoising strength: 0.4, Noise multiplier: 0.9")
    assert parsed.params["init"]["denoising_strength"] == 0.4
    assert parsed.params["init"]["noise_multiplier"] == 0.9
    assert parsed.params["init"]["image"] is None
    assert parsed.params["inpaint"] is None
    assert make_params(parsed.params).init is not None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("Mask blur: 8", {"blur_x": 8, "blur_y": 8, "fill": "original", "only_masked": False}),
        ("Mask mode: Inpaint not masked, Masked content: fill", {"invert": True, "fill": "fill", "blur_x": 0}),
        ("Mask blur: 4, Inpaint area: Only masked, Masked area padding: 64", {"only_masked": True, "padding": 64}),
        ("Mask blur: 4, Conditional mask weight: 0.5", {"conditioning_mask_strength": 0.5}),
    ],
)
def test_inpainting_of_automatic1111_is_understood(settings: str, expected: dict[str, Any]) -> None:
    parsed = read(f"Denoising strength: 0.75, {settings}")
    assert {key: parsed.params["inpaint"][key] for key in expected} == expected
    assert parsed.not_understood == ()


def test_a_mask_weight_without_a_mask_is_said_to_have_no_effect() -> None:
    """An inpainting checkpoint is told it in AUTOMATIC1111 with any picture; here it is a part of the mask."""
    parsed = read("Denoising strength: 0.5, Conditional mask weight: 0.5")
    assert parsed.params["inpaint"] is None
    assert [(entry.key, entry.value) for entry in parsed.not_understood] == [("Conditional mask weight", "0.5")]
    assert "mask" in parsed.not_understood[0].reason
    for settings in (
        "Denoising strength: 0.5, Conditional mask weight: 1",
        "Denoising strength: 0.5, Conditional mask weight: 1.0",
        "Denoising strength: 0.5, Conditional mask weight: 0.5, Mask blur: 4",
        "Conditional mask weight: 0.5",
    ):
        assert read(settings).not_understood == ()


def test_soft_inpainting_of_automatic1111_is_understood() -> None:
    soft = read(
        "Denoising strength: 0.75, Mask blur: 4, Soft inpainting enabled: True, Soft inpainting schedule bias: 2, "
        "Soft inpainting preservation strength: 0.75, Soft inpainting transition contrast boost: 3"
    ).params["inpaint"]["soft"]
    assert (soft["schedule_bias"], soft["preservation_strength"], soft["transition_contrast_boost"]) == (2.0, 0.75, 3.0)


def test_sd_upscale_of_automatic1111_is_understood() -> None:
    params = read("Denoising strength: 0.2, SD upscale overlap: 64, SD upscale upscaler: Lanczos").params
    assert (params["sd_upscale"]["overlap"], params["sd_upscale"]["upscaler"]) == (64, "Lanczos")
    assert params["init"]["denoising_strength"] == 0.2


def test_tiling_of_automatic1111_is_both_ways() -> None:
    params = read("Tiling: True").params
    assert (params["tiling_x"], params["tiling_y"]) == (True, True)


def test_a_plain_text_switches_every_group_off() -> None:
    params = infotext.parse(f"a\n{SETTINGS}").params
    assert {params[name] for name in ("init", "inpaint", "hires", "sd_upscale", "extras")} == {None}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ("Denoising strength: 7, Mask blur: 4", "Denoising strength"),
        ("Denoising strength: 0.5, Mask blur: -4", "Mask blur"),
        ("Denoising strength: 0.5, Hires upscale: 100", "Hires upscale"),
        ("Denoising strength: 0.5, Hires resize: 99999x1, Hires upscaler: Latent", "Hires resize"),
        ("Denoising strength: 0.5, Hires upscaler: Latent, Hires sampler: Eular", "Hires sampler"),
        ("Denoising strength: 0.5, Init image: ../../etc/passwd", "Init image"),
        ("Tiling: maybe", "Tiling"),
    ],
)
def test_a_value_out_of_bounds_is_left_out_and_reported(settings: str, key: str) -> None:
    parsed = read(settings)
    assert key in {entry.key for entry in parsed.not_understood}
    assert make_params(parsed.params)


def test_automatic1111s_face_restoration_is_taken_over() -> None:
    faces = read("Face restoration: CodeFormer").params["faces"]
    assert (faces["model"], faces["visibility"], faces["model_2"]) == ("CodeFormer", 1.0, "None")
    assert read("Tiling: True").params["faces"] is None


CHUNKS = {
    "NovelAI": {
        "Software": "NovelAI",
        "Description": "a castle",
        "Comment": json.dumps({"steps": 28, "sampler": "k_euler", "seed": 77, "scale": 11.0, "uc": "bad"}),
    },
    "InvokeAI": {
        "invokeai_metadata": json.dumps(
            {"app_version": "4.0", "positive_prompt": "a castle", "seed": 77, "steps": 28, "scheduler": "euler"}
        )
    },
}


@pytest.mark.parametrize("dialect", CHUNKS)
@pytest.mark.parametrize("size", [{}, {"width": 640, "height": 480}])
def test_what_was_done_later_hides_no_parameters_that_another_program_keeps_elsewhere(
    dialect: str, size: dict[str, int]
) -> None:
    request = make_params({"extras": {"image": "a" * 64, "upscaler": "Lanczos", **size}, "faces": {}})
    assert request.extras is not None
    text = infotext.extended("", request.extras, request.faces)
    read = infotext.parse_chunks(text, {**CHUNKS[dialect], "postprocessing": text})
    assert (read.dialect, read.prompt, read.params["steps"], read.params["seed"]) == (dialect, "a castle", 28, 77)
    assert make_params({"extras": read.params["extras"]}).extras == request.extras
    assert make_params({"faces": read.params["faces"]}).faces == request.faces
    assert infotext.parse_chunks(text, {}).params["extras"] == read.params["extras"]
