"""/sdapi/v1 in detail, over a real queue and a stand-in engine. What a real client does is in test_webuiapi."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from embedded import EMBEDDED_CHECKPOINT, install_embedded
from fastapi import Depends, FastAPI
from painter import Atelier, atelier, with_checkpoint
from PIL import Image
from starlette.requests import Request
from starlette.testclient import TestClient

from webui.api.encoded import decode_picture
from webui.api.openai import openai_routes
from webui.api.viewer import identify_by, only_viewer
from webui.errors import InvalidParams, TooBusy
from webui.history import History
from webui.identity import Viewer

API = "/sdapi/v1"
SMALL: dict[str, Any] = {"steps": 2, "width": 64, "height": 64, "sampler_name": "Euler a", "seed": 5}


def viewer_of(request: Request) -> Viewer:
    name = request.headers.get("x-user", "")
    return Viewer(name, admin=name == "")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atelier]:
    root = with_checkpoint(tmp_path_factory.mktemp("sdapi"))
    install_embedded(root, "second")
    (root / "styles.csv").write_text('name,prompt,negative_prompt\nink,"{prompt}, ink drawing",photo\n')
    with atelier(root, viewer_of=viewer_of) as found:
        assert post(found, "/options", {"sd_model_checkpoint": EMBEDDED_CHECKPOINT.stem}).status_code == 200
        yield found


def post(house: Atelier, route: str, body: Any = None, user: str = "") -> Any:
    headers = {"content-type": "application/json", "x-user": user}
    return house.client.post(API + route, content=json.dumps({} if body is None else body), headers=headers)


def txt2img(house: Atelier, **fields: Any) -> dict[str, Any]:
    answer = post(house, "/txt2img", {**SMALL, "prompt": "an apple", **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    found["info"] = json.loads(found["info"])
    return found


def params_of(house: Atelier, answer: dict[str, Any]) -> dict[str, Any]:
    """What the job of an answer was really asked for."""
    params: dict[str, Any] = house.client.get(f"/jobs/{answer['info']['job_id']}").json()["params"]
    return params


def picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def as_base64(size: tuple[int, int] = (64, 64), colour: Any = "red") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


# --- txt2img ----------------------------------------------------------------------------------------------------------


def test_the_answer_has_pictures_the_request_and_info_in_that_programs_words(house: Atelier) -> None:
    answer = txt2img(house, negative_prompt="blurry", n_iter=2, batch_size=2, subseed=9)
    assert [picture(image).size for image in answer["images"]] == [(64, 64)] * 4
    assert answer["parameters"]["prompt"] == "an apple"
    assert answer["parameters"]["sampler_index"] == "Euler"
    assert answer["parameters"]["hr_scale"] == 2.0
    info = answer["info"]
    assert info["all_seeds"] == [5, 6, 7, 8]
    assert info["all_subseeds"] == [9, 10, 11, 12]
    assert info["all_prompts"] == ["an apple"] * 4
    assert info["all_negative_prompts"] == ["blurry"] * 4
    assert (info["sampler_name"], info["steps"], info["width"], info["clip_skip"]) == ("Euler a", 2, 64, 1)
    assert info["index_of_first_image"] == 0
    assert info["sd_model_name"] == EMBEDDED_CHECKPOINT.stem
    assert len(info["infotexts"]) == 4
    assert [picture(image).info["parameters"] for image in answer["images"]] == info["infotexts"]
    assert {"denoising_strength", "extra_generation_params", "styles", "job_timestamp", "version"} <= set(info)


def test_openais_links_lead_back_here_under_a_sub_path(house: Atelier) -> None:
    app = FastAPI(dependencies=[Depends(identify_by(only_viewer))])
    history, outputs = History(house.paths), house.paths.outputs
    app.include_router(openai_routes(house.jobs, house.catalog, house.store, history, outputs, "/studio"))
    client = TestClient(app, base_url="https://pics.example.org")
    answer = client.post("/v1/images/generations", json={"prompt": "x", "size": "64x64"})
    assert answer.json()["data"][0]["url"].startswith("https://pics.example.org/studio/")
    history.stop()


@pytest.mark.parametrize("n_iter", [0, -1])
def test_no_pictures_at_all_are_refused_for_several_to_start_from_too(house: Atelier, n_iter: int) -> None:
    body = {**SMALL, "init_images": [as_base64(), as_base64()], "n_iter": n_iter}
    assert post(house, "/img2img", body).status_code == 422


def test_a_job_that_nobody_can_wait_for_does_not_run(house: Atelier, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_many(*_: Any) -> None:
        raise TooBusy("Too many pages watch jobs.")

    monkeypatch.setattr(house.jobs, "watch", too_many)
    assert post(house, "/txt2img", {**SMALL, "prompt": "held"}).status_code == 503
    job = house.jobs.list(1)[0]["id"]
    monkeypatch.undo()
    assert list(house.jobs.watch(job))
    assert house.jobs.view(job)["state"] in ("cancelled", "interrupted")


def test_what_is_not_given_has_that_programs_default(house: Atelier) -> None:
    answer = post(house, "/txt2img", {"width": 64, "height": 64}).json()
    params = params_of(house, {"info": json.loads(answer["info"])})
    assert (params["steps"], params["sampler"], params["schedule"], params["cfg_scale"]) == (
        50,
        "Euler",
        "Automatic",
        7.0,
    )
    assert answer["parameters"]["width"] == 64
    assert answer["parameters"]["denoising_strength"] == 0.75


def test_nothing_is_saved_unless_that_was_asked_for(house: Atelier) -> None:
    def saved() -> int:
        return len(list(house.paths.outputs.rglob("*.png")))

    before = saved()
    hidden = txt2img(house)
    assert saved() == before
    view = house.client.get(f"/jobs/{hidden['info']['job_id']}").json()
    assert [image["path"] for image in view["images"]] == [""]
    assert house.client.get(f"/jobs/{view['id']}/pictures/0.png").status_code == 404  # handed over, and gone
    kept = txt2img(house, save_images=True)
    assert saved() == before + 1
    path = house.client.get(f"/jobs/{kept['info']['job_id']}").json()["images"][0]["path"]
    assert base64.b64decode(kept["images"][0]) == (house.paths.outputs / path).read_bytes()


def test_pictures_come_in_the_format_that_was_asked_for(house: Atelier) -> None:
    for name, kind in (("png", "PNG"), ("jpg", "JPEG"), ("JPEG", "JPEG"), ("webp", "WEBP"), ("avif", "AVIF")):
        answer = txt2img(house, override_settings={"samples_format": name, "jpeg_quality": 80})
        assert picture(answer["images"][0]).format == kind


def test_without_send_images_only_the_facts_come(house: Atelier) -> None:
    answer = txt2img(house, send_images=False)
    assert answer["images"] == []
    assert len(answer["info"]["infotexts"]) == 1


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"sampler_name": "euler A"}, ("Euler a", "Automatic")),
        ({"sampler_name": "k_dpmpp_2m", "scheduler": "KARRAS"}, ("DPM++ 2M", "Karras")),
        ({"sampler_name": "DPM++ 2M Karras"}, ("DPM++ 2M", "Karras")),
        ({"sampler_name": "dpm++ 2m karras", "scheduler": "automatic"}, ("DPM++ 2M", "Karras")),
        ({"sampler_name": "DPM++ 2M Karras", "scheduler": "sgm_uniform"}, ("DPM++ 2M", "SGM Uniform")),
        ({"sampler_name": None, "sampler_index": "PLMS"}, ("PLMS", "Automatic")),
        ({"sampler_name": "", "sampler_index": "UniPC"}, ("UniPC", "Automatic")),
    ],
)
def test_samplers_and_schedules_are_found_under_every_name(house: Atelier, names: dict[str, Any], found: Any) -> None:
    params = params_of(house, txt2img(house, **names))
    assert (params["sampler"], params["schedule"]) == found


@pytest.mark.parametrize(
    ("fields", "near"),
    [
        ({"sampler_name": "Eulr a"}, '"Euler a"'),
        ({"scheduler": "Karas"}, '"Karras"'),
        ({"styles": ["inc"]}, '"ink"'),
        ({"override_settings": {"sd_model_checkpoint": "secund"}}, "second"),
        ({"override_settings": {"sd_vae": "none-such.pt"}}, ""),
        ({"script_name": "ultimate sd upscale"}, ""),
        ({"script_name": "x/y/z plt"}, "X/Y/Z plot"),
        ({"alwayson_scripts": {"ADetailer": {"args": [True, {}]}}}, ""),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"image": "x", "module": "canny"}]}}}, ""),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(house: Atelier, fields: dict[str, Any], near: str) -> None:
    answer = post(house, "/txt2img", {**SMALL, **fields})
    assert answer.status_code == 422, answer.text
    assert near in answer.json()["detail"]
    assert answer.json()["error"]
    assert answer.json()["errors"] == answer.json()["message"]


@pytest.mark.parametrize(
    "field", ['"comments":{"a":NaN}', '"script_args":[[1e999]]', '"override_settings":{"a":-Infinity}']
)
def test_a_number_that_is_none_is_refused_before_anything_is_made(house: Atelier, field: str) -> None:
    before = house.client.get("/jobs").json()
    body = '{"prompt":"an apple","steps":1,' + field + "}"
    answer = house.client.post(f"{API}/txt2img", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert "NaN or infinite" in answer.text
    assert house.client.get("/jobs").json() == before


def test_what_is_switched_off_is_no_reason_to_refuse(house: Atelier) -> None:
    scripts = {
        "ControlNet": {"args": []},
        "ADetailer": {"args": [False, {"ad_model": "x"}]},
        "animatediff": {"args": [{"enable": False}]},
        "Refiner": {},
        "sampler": {"args": None},
    }
    answer = txt2img(house, alwayson_scripts=scripts, script_name="None", restore_faces=True, unknown_field={"a": 1})
    assert len(answer["images"]) == 1
    assert any("restore_faces" in note for note in answer["info"]["warnings"])
    assert "unknown_field" not in answer["parameters"]


def test_scripts_of_extensions_are_called_by_title_and_position(house: Atelier) -> None:
    params = params_of(house, txt2img(house, alwayson_scripts={"DETAIL": {"args": [0.5]}}))
    assert params["extensions"] == {"detail": {"amount": 0.5}}
    params = params_of(house, txt2img(house, script_name="X/Y/Z Plot", script_args=["Seed", "1,2"]))
    assert params["extensions"]["xyz-plot"]["x_values"] == "1,2"
    named = txt2img(house, alwayson_scripts={"detail": {"args": {"Amount": 0.25}}})
    assert params_of(house, named)["extensions"]["detail"] == {"amount": 0.25}
    answer = post(house, "/txt2img", {**SMALL, "alwayson_scripts": {"Detail": {"args": [0.5, 1, 2]}}})
    assert answer.status_code == 422
    assert "Amount" in answer.json()["detail"]


def test_numbers_may_be_text_and_null_means_not_given(house: Atelier) -> None:
    answer = txt2img(house, steps="3", cfg_scale="6.5", width=64.0, seed=None, prompt=None, hr_upscaler=None)
    params = params_of(house, answer)
    assert (params["steps"], params["cfg_scale"], params["prompt"]) == (3, 6.5, "")
    assert params["seed"] >= 0


def test_a_size_is_rounded_down_to_whole_cells(house: Atelier) -> None:
    answer = txt2img(house, width=77, height=65)
    assert picture(answer["images"][0]).size == (72, 64)


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 0},
        {"steps": -1},
        {"steps": 10**9},
        {"steps": 1.5},
        {"steps": True},
        {"width": 0},
        {"width": -512},
        {"width": 7},
        {"width": 2**31},
        {"width": 64.5},
        {"cfg_scale": -1e9},
        {"cfg_scale": 1e308},
        {"cfg_scale": False},
        {"cfg_scale": "NaN"},
        {"seed": -2},
        {"seed": 2**64},
        {"seed": "abc"},
        {"subseed_strength": 2},
        {"n_iter": 0},
        {"batch_size": 10**6},
        {"n_iter": 10**6},
        {"enable_hr": True, "denoising_strength": -1},
        {"enable_hr": True, "hr_scale": 0},
        {"enable_hr": True, "hr_scale": 1000},
        {"enable_hr": True, "hr_second_pass_steps": 10**9},
        {"enable_hr": True, "hr_sampler_name": "Eulr"},
        {"enable_hr": True, "firstpass_image": "http://127.0.0.1/a.png"},
        {"sampler_name": ["Euler"]},
        {"sampler_name": "x" * 10**6},
        {"sampler_name": "__class__"},
        {"eta": "nan"},
        {"s_tmin": 5, "s_tmax": 1},
        {"prompt": "\ud800"},
        {"prompt": "a" * 300_000},
        {"prompt": {}},
        {"override_settings": {"CLIP_stop_at_last_layers": 99}},
        {"override_settings": {"sd_model_checkpoint": {}}},
        {"override_settings": {"outdir_samples": "/tmp"}},
        {"override_settings": []},
        {"styles": [1]},
        {"alwayson_scripts": []},
    ],
    ids=lambda fields: " ".join(f"{name}={str(value)[:20]}" for name, value in fields.items()),
)
def test_what_cannot_be_made_is_refused_in_words(house: Atelier, fields: dict[str, Any]) -> None:
    body = json.dumps({**SMALL, **fields})
    answer = house.client.post(f"{API}/txt2img", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["message"]
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"cfg_scale": NaN}', b"\xff\xfe", b"[" * 100_000, b'"text"', b"1"]
)
def test_a_body_that_is_no_request_is_refused(house: Atelier, body: bytes) -> None:
    answer = house.client.post(f"{API}/txt2img", content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text


def test_styles_are_merged_into_the_prompts(house: Atelier) -> None:
    answer = txt2img(house, styles=["ink"], negative_prompt="blurry")
    assert answer["info"]["prompt"] == "an apple, ink drawing"
    assert answer["info"]["negative_prompt"] == "blurry, photo"
    assert answer["info"]["styles"] == ["ink"]


def test_extra_networks_are_left_out_on_request(house: Atelier) -> None:
    answer = txt2img(house, prompt="an apple<lora:x:1>", disable_extra_networks=True)
    assert params_of(house, answer)["prompt"] == "an apple"


def test_an_infotext_fills_what_was_not_given(house: Atelier) -> None:
    text = (
        "a pear\nNegative prompt: rotten\nSteps: 4, Sampler: Euler Karras, CFG scale: 5.5, Seed: 77, Size: 96x64,"
        " Model hash: 0000000000, Model: not-here, Clip skip: 2"
    )
    body = {"infotext": text, "steps": 2}
    answer = post(house, "/txt2img", body)
    assert answer.status_code == 200, answer.text
    params = params_of(house, {"info": json.loads(answer.json()["info"])})
    assert (params["prompt"], params["negative_prompt"], params["steps"]) == ("a pear", "rotten", 2)
    assert (params["sampler"], params["schedule"], params["cfg_scale"]) == ("Euler", "Karras", 5.5)
    assert (params["seed"], params["width"], params["height"], params["clip_skip"]) == (77, 96, 64, 2)
    assert params["checkpoint"] == EMBEDDED_CHECKPOINT.name  # the text's is not here


def test_the_second_pass_has_its_own_choices(house: Atelier) -> None:
    hires = params_of(
        house,
        txt2img(
            house,
            enable_hr=True,
            hr_scale=1.5,
            hr_upscaler="Latent (nearest)",
            hr_second_pass_steps=3,
            denoising_strength=0.4,
            hr_sampler_name="DPM++ 2M Karras",
            hr_scheduler="Use same scheduler",
            hr_checkpoint_name="Use same checkpoint",
            hr_prompt="sharp",
        ),
    )["hires"]
    assert (hires["scale"], hires["steps"], hires["denoising_strength"]) == (1.5, 3, 0.4)
    assert (hires["upscaler"], hires["sampler"], hires["schedule"]) == ("Latent (nearest)", "DPM++ 2M", "Karras")
    assert (hires["checkpoint"], hires["prompt"], hires["cfg_scale"]) == (None, "sharp", None)
    old = params_of(
        house, txt2img(house, enable_hr=True, width=128, height=96, firstphase_width=64, firstphase_height=64)
    )
    assert (old["width"], old["height"]) == (64, 64)
    assert (old["hires"]["width"], old["hires"]["height"], old["hires"]["upscaler"]) == (128, 96, "Latent")
    assert params_of(house, txt2img(house))["hires"] is None


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_of_a_request_end_with_it(house: Atelier) -> None:
    before = house.client.get(f"{API}/options").json()
    overrides = {"CLIP_stop_at_last_layers": 2, "sd_model_checkpoint": "second", "eta_noise_seed_delta": 31337}
    first = txt2img(house, override_settings=overrides, override_settings_restore_afterwards=False)
    params = params_of(house, first)
    assert (params["clip_skip"], params["checkpoint"], params["ensd"]) == (2, "second.safetensors", 31337)
    assert first["info"]["sd_model_name"] == "second"
    failed = post(house, "/txt2img", {**SMALL, "prompt": "fail", "override_settings": overrides})
    assert failed.status_code == 503
    assert failed.json()["error"] == "OutOfMemory"
    after = params_of(house, txt2img(house))
    assert (after["clip_skip"], after["checkpoint"], after["ensd"]) == (1, EMBEDDED_CHECKPOINT.name, 0)
    assert house.client.get(f"{API}/options").json() == before


def test_many_requests_with_options_of_their_own_do_not_mix(house: Atelier) -> None:
    def ask(number: int) -> tuple[Any, Any]:
        name = (EMBEDDED_CHECKPOINT.stem, "second")[number % 2]
        skip = number % 3 + 1
        overrides = {"sd_model_checkpoint": name, "CLIP_stop_at_last_layers": skip}
        answer = txt2img(house, prompt=f"number {number}", steps=1, override_settings=overrides)
        info = answer["info"]
        return (name, skip, f"number {number}"), (info["sd_model_name"], info["clip_skip"], info["prompt"])

    with ThreadPoolExecutor(8) as pool:
        for asked, made in pool.map(ask, range(24)):
            assert asked == made


def test_an_option_that_was_set_holds_for_later_requests_and_is_told(house: Atelier) -> None:
    options = house.client.get(f"{API}/options").json()
    assert options["send_seed"] is True
    assert post(house, "/options", {"send_seed": False, "CLIP_stop_at_last_layers": 2, "no_such": 1}).json() is None
    try:
        told = house.client.get(f"{API}/options").json()
        assert (told["send_seed"], told["CLIP_stop_at_last_layers"]) == (False, 2)
        assert "no_such" not in told
        assert params_of(house, txt2img(house))["clip_skip"] == 2
        assert house.client.post("/jobs", json={"prompt": "x", "steps": 1}).status_code == 201
        native = house.client.get("/jobs", params={"limit": 1}).json()["jobs"][0]
        assert native["params"]["clip_skip"] == 1  # the native routes know no options
    finally:
        assert post(house, "/options", {"send_seed": True, "CLIP_stop_at_last_layers": 1}).status_code == 200
    assert house.client.get(f"{API}/options").json()["send_seed"] is True


def test_selecting_a_checkpoint_holds_until_another_is_selected(house: Atelier) -> None:
    title = house.client.get(f"{API}/options").json()["sd_model_checkpoint"]
    try:
        assert post(house, "/options", {"sd_model_checkpoint": "second"}).status_code == 200
        assert house.client.get(f"{API}/options").json()["sd_model_checkpoint"].startswith("second.safetensors")
        assert params_of(house, txt2img(house))["checkpoint"] == "second.safetensors"
        refused = post(house, "/options", {"sd_model_checkpoint": "secund", "CLIP_stop_at_last_layers": 3})
        assert refused.status_code == 422
        assert house.client.get(f"{API}/options").json()["CLIP_stop_at_last_layers"] == 1
    finally:
        post(house, "/options", {"sd_model_checkpoint": title})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"outdir_samples": "/etc"}, 403),
        ({"samples_filename_pattern": "../../x"}, 403),
        ({"api_enable_requests": True}, 403),
        ({"CLIP_stop_at_last_layers": "two"}, 422),
        ({"CLIP_stop_at_last_layers": True}, 422),
        ({"jpeg_quality": 1000}, 400),
        ({"send_seed": "yes"}, 422),
        ({"samples_format": "gif"}, 422),
        ({"s_churn": 10**400}, 422),
        ({"quicksettings_list": [{}]}, 422),
        ({"face_restoration_model": "\ud800"}, 422),
        ({"CLIP_stop_at_last_layers": 99}, 422),
        ({"rho": -1}, 422),
        ({"eta_ddim": -0.5}, 422),
        ({"s_tmin": 5, "s_tmax": 3}, 422),
        ({"img2img_background_color": "red"}, 422),
        ({"inpainting_mask_weight": 2}, 422),
    ],
)
def test_an_option_that_cannot_be_changes_nothing(house: Atelier, body: dict[str, Any], status: int) -> None:
    before = house.client.get(f"{API}/options").json()
    answer = post(house, "/options", {"send_size": False, **body})
    assert answer.status_code == status, answer.text
    assert house.client.get(f"{API}/options").json() == before


def test_options_are_for_administrators_and_a_file_that_is_damaged_is_none(house: Atelier) -> None:
    assert post(house, "/options", {"send_seed": False}, user="anna").status_code == 403
    assert house.client.get(f"{API}/options", headers={"x-user": "anna"}).status_code == 200
    from webui.api.sdapi.options import OptionBook

    path = house.paths.data_dir / "broken.json"
    for text in ("{", "[]", '{"send_seed": "x", "CLIP_stop_at_last_layers": 2, "other": 1}', "[" * 100_000):
        path.write_text(text)
        told = OptionBook(path, house.store, house.catalog, house.jobs).told()
        assert told["send_seed"] is True
        assert told["CLIP_stop_at_last_layers"] == (2 if "other" in text else 1)
    path.write_text('{"CLIP_stop_at_last_layers": 99, "img2img_background_color": "red", "rho": 5.0}')
    told = OptionBook(path, house.store, house.catalog, house.jobs).told()
    assert (told["CLIP_stop_at_last_layers"], told["img2img_background_color"], told["rho"]) == (1, "#ffffff", 5.0)


def test_no_answer_tells_a_path_or_a_secret(house: Atelier) -> None:
    for route in ("/options", "/cmd-flags", "/sd-models", "/sd-vae", "/loras", "/memory", "/upscalers"):
        text = house.client.get(API + route).text
        assert str(house.paths.data_dir) not in text, route
        assert "password" not in text


# --- img2img and extras -----------------------------------------------------------------------------------------------


def img2img(house: Atelier, **fields: Any) -> Any:
    return post(house, "/img2img", {**SMALL, "prompt": "an apple", "init_images": [as_base64()], **fields})


def test_img2img_starts_from_the_picture_and_draws_where_the_mask_is_white(house: Atelier) -> None:
    answer = img2img(
        house,
        init_images=["data:image/png;base64," + as_base64((96, 64))],
        mask=as_base64((32, 32), "white"),
        mask_blur=7,
        inpainting_fill=1,
        inpaint_full_res=True,
        inpaint_full_res_padding=16,
        inpainting_mask_invert=True,
        resize_mode=2,
        denoising_strength=0.5,
        override_settings={"img2img_fix_steps": True, "inpainting_mask_weight": 0.5},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["parameters"]["init_images"] is None
    assert answer.json()["parameters"]["mask"] is None
    params = params_of(house, {"info": json.loads(answer.json()["info"])})
    init, inpaint = params["init"], params["inpaint"]
    assert (init["resize_mode"], init["denoising_strength"], init["exact_steps"]) == ("Resize and fill", 0.5, True)
    stored = house.client.get(f"/inputs/{init['image']}/info").json()
    assert (stored["width"], stored["height"]) == (96, 64)
    assert (inpaint["invert"], inpaint["blur_x"], inpaint["blur_y"], inpaint["fill"]) == (True, 7, 7, "original")
    assert (inpaint["only_masked"], inpaint["padding"], inpaint["conditioning_mask_strength"]) == (True, 16, 0.5)


def test_sd_upscale_is_called_as_that_programs_tests_do(house: Atelier) -> None:
    answer = img2img(house, script_name="sd upscale", script_args=["", 8, "Lanczos", 2.0])
    assert answer.status_code == 200, answer.text
    upscale = params_of(house, {"info": json.loads(answer.json()["info"])})["sd_upscale"]
    assert (upscale["overlap"], upscale["upscaler"], upscale["scale"]) == (8, "Lanczos", 2.0)
    for wrong in (["", "much"], ["", 8, "Lanczos", 100], ["", 8, 5]):
        assert img2img(house, script_name="SD upscale", script_args=wrong).status_code == 422, wrong


def test_several_pictures_are_drawn_one_by_one_with_seeds_that_count_up(house: Atelier) -> None:
    images = [as_base64(colour=colour) for colour in ("red", "blue")]
    answer = img2img(house, init_images=images, n_iter=2, include_init_images=True)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["images"]) == 4
    assert json.loads(answer.json()["info"])["all_seeds"] == [5, 6, 7, 8]
    assert answer.json()["parameters"]["init_images"] == images


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"init_images": []}, "no picture"),
        ({"init_images": None}, "no picture"),
        ({"init_images": ["http://127.0.0.1/x.png"]}, "not fetched"),
        ({"init_images": ["https://[::1]/x.png"]}, "not fetched"),
        ({"init_images": ["file:///etc/passwd"]}, "not fetched"),
        ({"init_images": ["gopher://x"]}, "not fetched"),
        ({"init_images": ["data:image/png"]}, "data URI"),
        ({"init_images": ["!!!!"]}, "base64"),
        ({"init_images": [""]}, "empty"),
        ({"init_images": [base64.b64encode(b"<svg xmlns='x'/>").decode()]}, "picture"),
        ({"mask": "http://169.254.169.254/"}, "not fetched"),
        ({"resize_mode": 7}, "resize_mode"),
        ({"mask": "AAAA", "inpainting_fill": 9}, "inpainting_fill"),
        ({"denoising_strength": 2}, "denoising_strength"),
    ],
)
def test_what_is_no_picture_is_refused_and_never_fetched(house: Atelier, fields: dict[str, Any], says: str) -> None:
    if fields.get("mask") == "AAAA":
        fields = {**fields, "mask": as_base64()}
    answer = img2img(house, **fields)
    assert answer.status_code == 422, answer.text
    assert says in answer.json()["message"]


def test_base64_is_read_in_all_its_forms_and_nothing_else() -> None:
    data = bytes(range(256))
    plain, url_safe = base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()
    forms = (
        plain,
        url_safe,
        plain.rstrip("="),
        "\n".join(plain[n : n + 76] for n in range(0, len(plain), 76)),
        f"data:image/png;base64,{plain}",
        f" data:image/jpeg;charset=utf-8;base64, {plain}\r\n",
        f"data:;base64,{plain}",
    )
    for form in forms:
        assert decode_picture(form) == data, form[:40]
    for wrong in ("data:image/png", "data:image/png,abc", "a", "ä", "*" * 8, "data:text/html;base64", "A" * (10**8)):
        with pytest.raises(InvalidParams):
            decode_picture(wrong)


def test_extras_enlarge_pictures_and_save_none(house: Atelier) -> None:
    before = len(list(house.paths.outputs.rglob("*.png")))
    answer = post(
        house, "/extra-single-image", {"image": as_base64((32, 16)), "upscaling_resize": 2, "upscaler_1": "Lanczos"}
    )
    assert answer.status_code == 200, answer.text
    assert picture(answer.json()["image"]).size == (64, 32)
    assert "html_info" in answer.json()
    same = post(house, "/extra-single-image", {"image": as_base64((32, 16)), "model": "clip"}).json()
    assert picture(same["image"]).size == (32, 16)  # no upscaler: the size stays
    named = [{"data": as_base64((16, 16)), "name": "a"}, {"data": as_base64((8, 8)), "name": "b"}]
    many = post(
        house, "/extra-batch-images", {"imageList": named, "upscaler_1": "Lanczos", "upscaling_resize": 4}
    ).json()
    assert [picture(image).size for image in many["images"]] == [(64, 64), (32, 32)]
    inputs = sum(".inputs" in path.parts for path in house.paths.outputs.rglob("*.png"))
    assert len(list(house.paths.outputs.rglob("*.png"))) - inputs <= before


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"image": "http://127.0.0.1/x.png"},
        {"image": "AAAA"},
        {"upscaling_resize": 0},
        {"upscaling_resize": 100},
        {"gfpgan_visibility": 2},
        {"resize_mode": 2},
        {"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 10**6},
    ],
)
def test_extras_that_cannot_be_are_refused(house: Atelier, body: dict[str, Any]) -> None:
    body = {"image": as_base64(), **body} if body else body
    assert post(house, "/extra-single-image", body).status_code == 422


def test_a_picture_tells_its_parameters(house: Atelier) -> None:
    made = txt2img(house, negative_prompt="blurry")["images"][0]
    info = post(house, "/png-info", {"image": made}).json()
    assert info["info"].startswith("an apple\nNegative prompt: blurry\nSteps: 2")
    assert info["parameters"]["Prompt"] == "an apple"
    assert info["parameters"]["Steps"] == "2"
    assert info["items"] == {}
    assert post(house, "/png-info", {"image": as_base64()}).json() == {"info": "", "items": {}, "parameters": {}}
    assert post(house, "/png-info", {}).status_code == 422
    assert post(house, "/interrogate", {"image": made, "model": "clip"}).status_code == 404


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_is_zero_at_rest_and_grows_while_a_job_runs(house: Atelier) -> None:
    answer = house.client.get(f"{API}/progress")
    assert re.fullmatch(r"\d+\.\d{4}", answer.headers["x-process-time"])
    idle = answer.json()
    assert (idle["progress"], idle["eta_relative"], idle["current_image"]) == (0, 0, None)
    assert idle["state"]["job_count"] == 0
    house.hold()
    with ThreadPoolExecutor(1) as pool:
        body = {**SMALL, "prompt": "held", "n_iter": 2, "force_task_id": "task(a1)"}
        answer = pool.submit(post, house, "/txt2img", body, "anna")

        def progress(user: str = "anna", **query: Any) -> dict[str, Any]:
            found: dict[str, Any] = house.client.get(f"{API}/progress", params=query, headers={"x-user": user}).json()
            return found

        while not progress()["state"]["job_count"]:
            assert not answer.done(), answer.result().text
            time.sleep(0.01)
        held = progress()
        assert held["progress"] >= 0.01
        assert held["state"]["job_count"] == 2
        assert progress("berta")["state"]["job_count"] == 0  # neither how far nor what somebody else's is
        task = house.client.post("/internal/progress", json={"id_task": "task(a1)"}, headers={"x-user": "anna"}).json()
        assert (task["active"], task["queued"], task["completed"]) == (True, False, False)
        other = house.client.post(
            "/internal/progress", json={"id_task": "task(a1)"}, headers={"x-user": "berta"}
        ).json()
        assert (other["active"], other["queued"], other["completed"]) == (False, False, False)
        assert post(house, "/interrupt", user="berta").status_code == 403
        assert progress()["state"]["job_count"] == 2
        house.let_go()
        made = answer.result()
    assert made.status_code == 200
    assert len(made.json()["images"]) == 2
    assert progress()["progress"] == 0
    done = house.client.post("/internal/progress", json={"id_task": "task(a1)"}, headers={"x-user": "anna"}).json()
    assert done["completed"] is True


def test_previews_are_told_while_the_job_runs(house: Atelier) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, house, "/txt2img", {**SMALL, "prompt": "slow", "steps": 60, "force_task_id": "t"})
        while not (found := house.client.get(f"{API}/progress").json())["current_image"]:
            assert not answer.done(), answer.result().text
            time.sleep(0.01)
        assert picture(found["current_image"]).format == "JPEG"
        assert house.client.get(f"{API}/progress?skip_current_image=true").json()["current_image"] is None
        task = house.client.post("/internal/progress", json={"id_task": "t"}).json()
        assert task["live_preview"].startswith("data:image/jpeg;base64,")
        assert post(house, "/interrupt").json() == {}
        made = answer.result()
    assert made.status_code == 200
    assert made.json()["images"] == []  # it was ended in its first picture
    assert json.loads(made.json()["info"])["all_seeds"] == []


def test_skip_goes_on_with_the_next_picture(house: Atelier) -> None:
    house.hold()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, house, "/txt2img", {**SMALL, "prompt": "held", "n_iter": 2})
        while not house.client.get(f"{API}/progress").json()["state"]["job_count"]:
            time.sleep(0.01)
        threading.Timer(0.2, house.let_go).start()
        assert post(house, "/skip").json() is None
        assert len(answer.result().json()["images"]) == 2


def test_waiting_tasks_are_told_by_their_names(house: Atelier) -> None:
    house.hold()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, house, "/txt2img", {**SMALL, "prompt": "held"})
        while "running" not in {view["state"] for view in house.client.get("/jobs").json()["jobs"]}:
            time.sleep(0.01)
        second = pool.submit(post, house, "/txt2img", {**SMALL, "force_task_id": "task(b)"})
        while "task(b)" not in (waiting := house.client.get("/internal/pending-tasks").json())["tasks"]:
            time.sleep(0.01)  # a job is in the queue before its name is known
        assert waiting["size"] == 1
        queued = house.client.post("/internal/progress", json={"id_task": "task(b)"}).json()
        assert (queued["queued"], queued["textinfo"]) == (True, "In queue: 1")
        house.let_go()
        assert first.result().status_code == second.result().status_code == 200


def test_a_full_queue_says_when_to_come_back(house: Atelier) -> None:
    house.hold()
    settings = house.store.current
    from dataclasses import replace

    house.jobs.apply_settings(replace(settings, queue=replace(settings.queue, max_pending=1)))
    running = house.client.post("/jobs", json={"prompt": "held", "steps": 1}).json()["id"]
    try:
        while house.client.get(f"/jobs/{running}").json()["state"] == "pending":
            time.sleep(0.01)
        waiting = house.client.post("/jobs", json={"prompt": "x", "steps": 1}).json()["id"]
        answer = post(house, "/txt2img", SMALL)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        house.client.post(f"/jobs/{waiting}/cancel")
    finally:
        house.jobs.apply_settings(settings)
        house.let_go()


# --- lists ------------------------------------------------------------------------------------------------------------


def test_lists_have_the_shapes_that_clients_read(house: Atelier) -> None:
    def get(route: str) -> Any:
        answer = house.client.get(API + route)
        assert answer.status_code == 200, route
        return answer.json()

    euler = next(one for one in get("/samplers") if one["name"] == "Euler a")
    assert euler["aliases"] == ["k_euler_a", "k_euler_ancestral"]
    assert all(isinstance(value, str) for value in euler["options"].values())
    karras = next(one for one in get("/schedulers") if one["label"] == "Karras")
    assert (karras["name"], karras["default_rho"]) == ("karras", 7.0)
    models = get("/sd-models")
    assert {model["model_name"] for model in models} == {EMBEDDED_CHECKPOINT.stem, "second"}
    assert set(models[0]) == {"title", "model_name", "hash", "sha256", "filename", "config"}
    assert [one["name"] for one in get("/upscalers")][:3] == ["None", "Lanczos", "Nearest"]
    assert {"name": "Latent"} in get("/latent-upscale-modes")
    assert get("/prompt-styles") == [{"name": "ink", "prompt": "{prompt}, ink drawing", "negative_prompt": "photo"}]
    assert get("/embeddings") == {"loaded": {}, "skipped": {}}
    scripts = get("/scripts")
    assert {"x/y/z plot", "detail"} <= set(scripts["txt2img"])
    assert set(scripts["img2img"]) - set(scripts["txt2img"]) == {"sd upscale"}
    info = next(one for one in get("/script-info") if one["name"] == "detail")
    assert (info["is_alwayson"], info["args"][0]["label"], info["args"][0]["maximum"]) == (True, "Amount", 1.0)
    assert any(one["name"] == "xyz-plot" and one["enabled"] for one in get("/extensions"))
    memory = get("/memory")
    assert memory["ram"]["total"] > 0
    assert "error" in memory["cuda"]
    assert get("/cmd-flags")["gradio_auth"] is None
    empty = ("hypernetworks", "face-restorers", "realesrgan-models", "loras", "sd-vae")
    assert all(get(f"/{name}") == [] for name in empty)
    for name in ("checkpoints", "vae", "loras", "embeddings"):
        assert post(house, f"/refresh-{name}").json() is None


def test_networks_are_listed_under_the_names_that_prompts_use(house: Atelier) -> None:
    from safetensors.numpy import save_file

    folders = {"Lora": "grain", "embeddings": "bad-hands"}
    down = np.zeros((4, 320), np.float32)
    tensors = {
        "Lora": {
            "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": down,
            "lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight": down.T.copy(),
        },
        "embeddings": {"emb_params": np.zeros((3, 768), np.float32)},
    }
    files = [house.paths.data_dir / "models" / folder / f"{name}.safetensors" for folder, name in folders.items()]
    for file, folder in zip(files, folders, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors[folder], file, metadata={"ss_output_name": "film grain"} if folder == "Lora" else None)
    try:
        assert post(house, "/refresh-loras").json() is None
        lora = house.client.get(f"{API}/loras").json()[0]
        assert (lora["name"], lora["alias"], lora["path"]) == ("grain", "film grain", "Lora/grain.safetensors")
        assert lora["metadata"]["ss_output_name"] == "film grain"
        every = house.client.get(f"{API}/embeddings").json()
        found = {**every["loaded"], **every["skipped"]}["bad-hands"]
        assert (found["shape"], found["vectors"]) == (768, 3)
    finally:
        for file in files:
            file.unlink()
        post(house, "/refresh-loras")


def test_models_leave_memory_and_come_back(house: Atelier) -> None:
    def pid() -> int | None:
        found: int | None = house.jobs._supervisor.pid
        return found

    before = pid()
    assert post(house, "/unload-checkpoint", user="anna").status_code == 403
    assert post(house, "/unload-checkpoint").json() == {}
    while pid() in (None, before) or house.jobs.worker()["state"] != "ready":
        time.sleep(0.01)
    assert txt2img(house)["images"]
    assert post(house, "/reload-checkpoint").json() == {}
    assert txt2img(house)["images"]


def test_controlnets_clients_find_their_routes_and_no_units(house: Atelier) -> None:
    get = house.client.get
    assert isinstance(get("/controlnet/version").json()["version"], int)
    assert get("/controlnet/model_list").json() == {"model_list": []}
    assert get("/controlnet/module_list").json()["module_list"] == ["none"]
    assert get("/controlnet/control_types").status_code == 200
    assert get("/controlnet/settings").json() == {"control_net_unit_count": 0}
    image = as_base64()
    same = house.client.post("/controlnet/detect", json={"controlnet_images": [image]}).json()
    assert same == {"images": [image], "info": "Success"}
    other = house.client.post("/controlnet/detect", json={"controlnet_module": "canny", "controlnet_images": [image]})
    assert other.status_code == 422
