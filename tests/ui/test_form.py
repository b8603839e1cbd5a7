"""Form values <-> GenerationParams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from webui.errors import InvalidParams
from webui.operations import FaceRestoration, Frame, Hires, Init, Inpaint, SdUpscale, SoftInpainting, Source
from webui.params import GenerationParams
from webui.prompt import StyleBook
from webui.ui.common import form_spec, params_from_values, values_from_params
from webui.ui.field import MODES, SECTIONS
from webui.ui.fields import BY_NAME, FIELDS, GROUPS, KEYS


def values(**changed: Any) -> list[Any]:
    defaults = {field.name: field.default for field in FIELDS} | {"width": 128, "height": 128}
    return [{**defaults, **changed}[key] for key in KEYS]


def test_every_parameter_that_a_user_sets_is_on_the_form() -> None:
    groups = set(SECTIONS) - {""}
    paths = {
        f"{path}.{name}" if path else name for path, group in SECTIONS.items() for name in type(group).model_fields
    }
    elsewhere = {"image_format", "image_quality", "save", "extras", "hires.first_pass"}
    assert paths - groups - set(KEYS) == elsewhere
    assert set(KEYS) - paths == {"styles", "mode", "hires.on", "sd_upscale.on", "inpaint.soft.on", "faces.on"}


def test_every_field_explains_itself() -> None:
    for field in FIELDS:
        assert field.tip.endswith("."), field.name
        assert field.label[0].isupper()
    grouped = [name for group in GROUPS for name in group.names]
    assert len(grouped) == len(set(grouped))


def test_a_fresh_form_is_the_default_request() -> None:
    assert params_from_values(values()) == GenerationParams(width=128, height=128)


REFERENCE, MASK = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    "wanted",
    [
        GenerationParams(hires=Hires(upscaler="Lanczos", scale=1.5, sampler="Euler", cfg_scale=3.0, prompt="more")),
        GenerationParams(init=Init(image=REFERENCE, denoising_strength=0.4, resize_mode="Crop and resize")),
        GenerationParams(init=Init(image=REFERENCE), sd_upscale=SdUpscale(upscaler="Lanczos", overlap=32)),
        GenerationParams(init=Init(image=REFERENCE), inpaint=Inpaint(mask=MASK, fill="latent noise", only_masked=True)),
        GenerationParams(
            init=Init(image=REFERENCE, frame=Frame(left=64, bottom=8)),
            inpaint=Inpaint(soft=SoftInpainting(schedule_bias=2.0)),
        ),
        GenerationParams(tiling_x=True, vae_tiling="On"),
        GenerationParams(faces=FaceRestoration(model="GFPGANv1.4", visibility=0.5, codeformer_weight=0.25)),
    ],
)
def test_what_is_done_with_a_picture_goes_through_the_form_unchanged(wanted: GenerationParams) -> None:
    params = wanted.changed(width=128, height=128)
    widgets = values_from_params(params.model_dump(mode="json"))
    assert params_from_values(values(**widgets)) == params


def test_the_mode_decides_which_groups_count() -> None:
    all_on = {"init.image": REFERENCE, "inpaint.mask": MASK, "init.frame.left": 8}
    all_on |= {"hires.on": True, "sd_upscale.on": True, "inpaint.soft.on": True}
    all_on |= {"faces.on": True}
    found = {mode: params_from_values(values(mode=mode, **all_on)) for mode in MODES}
    groups = {
        mode: [name for name in ("init", "inpaint", "hires", "sd_upscale") if getattr(params, name) is not None]
        for mode, params in found.items()
    }
    assert groups == {
        "txt2img": ["hires"],
        "img2img": ["init", "sd_upscale"],
        "sketch": ["init", "sd_upscale"],
        "batch": ["init", "sd_upscale"],
        "inpaint": ["init", "inpaint"],
        "inpaint sketch": ["init", "inpaint"],
        "inpaint upload": ["init", "inpaint"],
    }
    assert all(params.faces == FaceRestoration() for params in found.values())
    assert found["inpaint"].init == Init(image=REFERENCE, frame=Frame(left=8))
    assert found["img2img"].init == Init(image=REFERENCE)
    with pytest.raises(InvalidParams, match="another version"):
        params_from_values(values(mode="paint"))


def test_values_as_widgets_send_them_are_understood() -> None:
    params = params_from_values(
        values(steps=25.0, cfg_scale=5, seed=" 12345678901234567890 ".strip()[:18], eta=None, sigmas="10, 5.5; 0"),
        image_format="webp",
    )
    assert params.steps == 25
    assert isinstance(params.steps, int)
    assert params.cfg_scale == 5.0
    assert params.seed == 123456789012345678
    assert params.eta is None
    assert params.sigmas == (10.0, 5.5, 0.0)
    assert params.image_format == "webp"


def test_the_pictures_of_a_folder_come_as_a_list_and_anything_else_is_refused() -> None:
    found = params_from_values(values(mode="batch", sources=f'[{{"image": "{REFERENCE}", "name": "a.png"}}]'))
    assert found.sources == (Source(image=REFERENCE, name="a.png"),)
    assert found.init == Init()
    assert values_from_params(found.model_dump(mode="json"))["sources"] == ""
    for wrong in ("{}", "[1]", "no list", 7):
        with pytest.raises(InvalidParams):
            params_from_values(values(mode="batch", sources=wrong))


def test_an_empty_number_means_its_default() -> None:
    assert params_from_values(values(steps=None, seed="", variation_seed=None)).steps == 20
    assert params_from_values(values(seed="")).seed == -1


def test_params_come_back_as_the_same_values() -> None:
    params = GenerationParams(
        prompt="a", steps=7, seed=2**62 + 1, eta=0.5, sigmas=(3.0, 1.25, 0.0), width=64, height=192, rng="NV"
    )
    widgets = values_from_params(params.model_dump(mode="json"))
    assert widgets["seed"] == str(2**62 + 1)
    assert params_from_values([widgets.get(key, "") for key in KEYS]) == params


def test_chosen_styles_are_merged_into_the_prompts(tmp_path: Path) -> None:
    (tmp_path / "styles.csv").write_text('name,prompt,negative_prompt\nPhoto,"photo of {prompt}",blurry\nEnd,8k,\n')
    book = StyleBook(lambda: [tmp_path / "styles.csv"], tmp_path / "styles.csv")
    params = params_from_values(values(prompt="a cat", negative_prompt="dark", styles="Photo\nEnd"), book)
    assert (params.prompt, params.negative_prompt) == ("photo of a cat, 8k", "dark, blurry")
    again = params_from_values(values(prompt=params.prompt, negative_prompt="dark, blurry", styles="Photo\nEnd"), book)
    assert again == params
    with pytest.raises(InvalidParams, match='no style "Phot"'):
        params_from_values(values(styles="Phot"), book)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", "abc"),
        ("seed", "1.5"),
        ("seed", "9" * 30),
        ("seed", {"a": [1]}),
        ("sigmas", "1, x"),
        ("sigmas", [1]),
        ("prompt", {"a": [1, 2]}),
        ("prompt", 5),
        ("steps", 20.5),
        ("steps", True),
        ("width", 100),
        ("sampler", ["Euler"]),
        ("pad_conds", "yes"),
        ("styles", ["Photo"]),
        ("styles", "Photo"),
        ("cfg_scale", float("nan")),
    ],
)
def test_what_no_widget_sends_is_refused_in_words(name: str, value: Any) -> None:
    with pytest.raises(InvalidParams) as caught:
        params_from_values(values(**{name: value}))
    assert caught.value.message


def test_a_page_of_another_version_is_told_to_reload() -> None:
    with pytest.raises(InvalidParams, match="another version"):
        params_from_values(values()[:-1])


def test_the_script_gets_the_same_table() -> None:
    spec = form_spec()
    assert spec["keys"] == list(KEYS)
    assert spec["fields"]["steps"]["low"] == 1
    assert spec["fields"]["sampler"]["choices"][0] == "DPM++ 2M"
    assert spec["groups"]["size"] == ["width", "height"]
    for name, field in BY_NAME.items():
        if field.slider and name not in ("width", "height"):
            assert field.span is not None
            assert field.span[0] <= field.default <= field.span[1]
