"""H069-H071, H095-H101, H115: requests that hold what they should not, over a real queue and a stand-in engine."""

from __future__ import annotations

import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from painter import Atelier
from people import SMALL, as_base64, over, sdapi, submit
from PIL import Image

# --- what a request may hold ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "status"),
    [
        ({"no_such_option": 1}, 200),
        ({"outdir_samples": "/etc", "outdir_txt2img_samples": "~/x", "samples_filename_pattern": "../[prompt]"}, 422),
        ({"samples_filename_pattern": "[prompt]"}, 422),
        ({"__class__": "x", "sd_model_checkpoint.__class__": 1}, 200),
        ({"sd_model_checkpoint": {"a": 1}}, 422),
        ({"sd_model_checkpoint": "../../etc/passwd"}, 422),
        ({"CLIP_stop_at_last_layers": 99}, 422),
        ({"eta_noise_seed_delta": float("1e300")}, 422),
        ({"CLIP_stop_at_last_layers": 2, "samples_format": "webp", "randn_source": "NV"}, 200),
    ],
)
def test_H097_options_of_a_request_are_let_be_refused_or_hold_for_it_alone(
    house: Atelier, overrides: Any, status: int
) -> None:
    root = {"x-user": "root"}
    before = house.client.get("/sdapi/v1/options", headers=root).json()
    files = set(house.paths.data_dir.parent.rglob("*.png"))
    answer = sdapi(house, "txt2img", {**SMALL, "prompt": "x", "override_settings": overrides})
    assert answer.status_code == status, answer.text
    assert house.client.get("/sdapi/v1/options", headers=root).json() == before
    new = set(house.paths.data_dir.parent.rglob("*.png")) - files
    assert all(path.is_relative_to(house.paths.outputs) for path in new), new


def test_H097_options_of_a_request_end_with_it_when_it_fails_and_when_it_is_ended(house: Atelier) -> None:
    root = {"x-user": "root"}
    before = house.client.get("/sdapi/v1/options", headers=root).json()
    options = {"override_settings": {"CLIP_stop_at_last_layers": 2, "samples_format": "webp"}}
    assert sdapi(house, "txt2img", {**SMALL, "prompt": "fail", **options}).status_code == 503
    assert house.client.get("/sdapi/v1/options", headers=root).json() == before
    house.hold()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(sdapi, house, "txt2img", {**SMALL, "prompt": "held", **options})
        while not sdapi_progress(house)["state"]["job_count"]:
            assert not held.done(), held.result().text
            time.sleep(0.01)
        sdapi(house, "interrupt", {})
        house.let_go()
        assert held.result().status_code == 200
    assert house.client.get("/sdapi/v1/options", headers=root).json() == before
    after = sdapi(house, "txt2img", {**SMALL, "prompt": "x"}).json()
    assert json.loads(after["info"])["clip_skip"] == 1


def sdapi_progress(house: Atelier) -> Any:
    return house.client.get("/sdapi/v1/progress", headers={"x-user": "ann"}).json()


def test_H097_no_option_that_names_a_place_can_be_set(house: Atelier) -> None:
    for name in ("outdir_samples", "outdir_grids", "samples_filename_pattern", "directories_filename_pattern"):
        sdapi(house, "options", {name: "/tmp/elsewhere"}, "root")
        told = house.client.get("/sdapi/v1/options", headers={"x-user": "root"}).json()
        assert told.get(name) != "/tmp/elsewhere", name
    assert sdapi(house, "options", {"samples_format": "jpg"}, "ann").status_code == 403


@pytest.mark.parametrize(
    "fields",
    [
        {"alwayson_scripts": {"no such script": {"args": [True, 1]}}},
        {"alwayson_scripts": {"x" * 5000: {"args": [{"enabled": True}]}}},
        {"alwayson_scripts": {"controlnet": {"args": 7}}},
        {"alwayson_scripts": {"controlnet": "text"}},
        {"alwayson_scripts": [1, 2]},
        {"script_name": "../../x", "script_args": [None] * 1000},
        {"script_name": "X/Y/Z plot", "script_args": [0, "1-100", 0, "1-100", 0, "1-100"]},
        {"script_name": "Prompt matrix", "prompt": "|".join("abcdefghijklmnopqrstuvwxyzabcd")},
        {"script_name": 5},
        {"script_args": "text"},
    ],
)
def test_H095_H098_scripts_that_are_not_here_are_refused_or_let_be(house: Atelier, fields: dict[str, Any]) -> None:
    answer = sdapi(house, "txt2img", {**SMALL, "prompt": "x", **fields})
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 422:
        assert len(answer.text) < 3000
    assert len(answer.json().get("images", [])) <= 1
    assert sdapi(house, "txt2img", {**SMALL, "prompt": "after it"}).status_code == 200


HOSTILE_PROMPTS = [
    "../../../etc/cron.d/x",
    "..\\..\\x",
    "CON",
    "x" * 5000,
    "[datetime<%n%s%Y>]",
    "{0.__class__}",
    "[[[]]]",
    "a/b",
    "~/x $HOME",
    "\u202egnp.exe",
    "new\nline",
]


@pytest.mark.parametrize("prompt", HOSTILE_PROMPTS, ids=range(len(HOSTILE_PROMPTS)))
def test_H099_H100_no_word_of_a_request_gets_into_a_files_name_or_place(house: Atelier, prompt: str) -> None:
    view = over(house, submit(house, "ann", prompt, negative_prompt=prompt), "ann")
    assert view["state"] == "done", view["error"]
    for image in view["images"]:
        assert re.fullmatch(r"txt2img-images/\d+-\d+\.png", image["path"]), image["path"]


STYLES = ["../x", "..\\x", "/etc/passwd", "a/../../b", "x\0y", "CON", "=1+1", "x" * 5000, 'a,b\n"c']


@pytest.mark.parametrize("name", STYLES, ids=range(len(STYLES)))
def test_H101_a_styles_name_is_a_line_of_one_file_and_never_a_path(house: Atelier, name: str) -> None:
    root = {"x-user": "root"}
    before = sorted(path for path in house.paths.data_dir.parent.rglob("*") if "styles" not in path.name)
    saved = house.client.post("/styles", json={"name": name, "prompt": "p", "negative_prompt": ""}, headers=root)
    assert saved.status_code in (200, 400, 422), saved.text
    for address in ("/styles/delete", "/styles"):
        answer = house.client.post(address, json={"name": name, "prompt": "", "before": "../../y"}, headers=root)
        assert answer.status_code in (200, 400, 404, 422), answer.text
    house.client.post("/styles/delete", json={"name": name}, headers=root)
    after = sorted(path for path in house.paths.data_dir.parent.rglob("*") if "styles" not in path.name)
    assert [p for p in after if p not in before and p.suffix not in (".sqlite-wal", ".sqlite-shm")] == []


@pytest.mark.parametrize("form", ["../x", "..%2Fx", "%2e%2e%2fx", "x" * 500, "%00"])
def test_H101_a_drafts_name_is_no_path(house: Atelier, form: str) -> None:
    answer = house.client.post(f"/history/drafts/{form}", json={"data": {"a": 1}}, headers={"x-user": "ann"})
    assert answer.status_code in (200, 404, 405, 422)
    assert not list(house.paths.data_dir.parent.rglob("x.json"))


# --- pictures in requests ---------------------------------------------------------------------------------------------


def image_request(**fields: Any) -> dict[str, Any]:
    start = as_base64(Image.new("RGB", (64, 64), "red"))
    return {**SMALL, "prompt": "x", "init_images": [start], "denoising_strength": 0.5, **fields}


def test_H069_base64_in_every_form_is_read_or_refused(house: Atelier) -> None:
    right = as_base64(Image.new("RGB", (64, 64), "blue"))
    good = [
        right,
        f"data:image/png;base64,{right}",
        f"data:image/jpeg;base64,{right}",
        f" {right}\n",
        right.rstrip("="),
    ]
    bad = [
        "data:image/png",
        "data:image/png,abc",
        "!!!!",
        "",
        "A" * 1000,
        "data:text/html;base64,PHNjcmlwdD4=",
        "é" * 40,
    ]
    for text in good:
        assert sdapi(house, "img2img", image_request(init_images=[text])).status_code == 200, text[:30]
    for text in bad:
        answer = sdapi(house, "img2img", image_request(init_images=[text]))
        assert answer.status_code in (400, 422), (text[:30], answer.status_code)
        assert text[:50] not in answer.text or len(text) < 20


def test_H070_no_address_is_ever_fetched(house: Atelier) -> None:
    """A server that would hear any request listens here; the suite fails any connection that leaves the machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        port = listener.getsockname()[1]
        addresses = [
            f"http://127.0.0.1:{port}/x.png",
            f"http://localhost:{port}/x.png",
            f"HTTP://0x7f.1:{port}/",
            f"http://[::1]:{port}/x.png",
            "http://169.254.169.254/latest/meta-data",
            "file:///etc/passwd",
            f"gopher://127.0.0.1:{port}/_x",
            f" http://127.0.0.1:{port}/",
            "//127.0.0.1/x",
            "ftp://127.0.0.1/x",
        ]
        for address in addresses:
            for body in (
                image_request(init_images=[address]),
                image_request(mask=address),
                {"image": address, "upscaling_resize": 2},
            ):
                route = "png-info" if "image" in body else "img2img"
                assert sdapi(house, route, body).status_code in (400, 422), (address, route)
            assert sdapi(house, "extra-single-image", {"image": address}).status_code in (400, 422), address
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("kind", ["other size", "black", "white", "RGBA", "one pixel", "1-bit", "only"])
def test_H071_masks_of_every_kind_are_used_or_refused(house: Atelier, kind: str) -> None:
    masks = {
        "other size": Image.new("L", (37, 91), 255),
        "black": Image.new("L", (64, 64), 0),
        "white": Image.new("L", (64, 64), 255),
        "RGBA": Image.new("RGBA", (64, 64), (255, 255, 255, 128)),
        "one pixel": Image.new("L", (1, 1), 255),
        "1-bit": Image.new("1", (64, 64), 1),
        "only": Image.new("L", (64, 64), 255),
    }
    body = image_request(mask=as_base64(masks[kind]))
    if kind == "only":
        del body["init_images"]
    answer = sdapi(house, "img2img", body)
    assert answer.status_code == (422 if kind == "only" else 200), answer.text
    if kind == "only":
        assert "init_images" in answer.text


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[" * 10**5, "application/json"),
        (b'{"prompt": "\\ud800", "steps": 1, "width": 64, "height": 64}', "application/json"),
        (b'{"cfg_scale": NaN}', "application/json"),
        ('{"steps": 0}'.encode("utf-16"), "application/json"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "application/json"),
        (b"steps=5", "application/x-www-form-urlencoded"),
        (b'{"steps": 1}', "text/plain"),
        (b'{"steps": 1}', ""),
        (b"", "application/json"),
        (b'{"prompt": "' + b"x" * (3 * 2**20) + b'"}', "application/json"),
        (b'{"steps": "20"}', "application/json"),
        (b'{"a": {"b": {"c": 1}}}', "application/json"),
    ],
)
@pytest.mark.parametrize("route", ["/jobs", "/sdapi/v1/txt2img", "/tokens", "/infotext", "/v1/images/generations"])
def test_H096_a_hostile_body_is_no_fault_of_the_server(house: Atelier, route: str, body: bytes, kind: str) -> None:
    headers = {"x-user": "ann", "content-type": kind} if kind else {"x-user": "ann"}
    answer = house.client.post(route, content=body, headers=headers)
    assert answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text
    assert str(house.paths.data_dir) not in answer.text
    for view in house.client.get("/jobs", headers={"x-user": "ann"}).json()["jobs"]:
        if view["state"] == "pending":
            house.client.post(f"/jobs/{view['id']}/cancel", headers={"x-user": "ann"})
    assert house.client.get("/status", headers={"x-user": "ann"}).status_code == 200


def test_H115_a_name_never_splits_a_header_or_a_log_line(house: Atelier) -> None:
    from webui.errors import NotFound, printable

    for name in ("a\r\nset-cookie: x=1", "\x1b[31mred", "\u2028line", "a\0b"):
        text = printable(name)
        assert not re.search(r"[\x00-\x1f\x7f\u2028]", text)
        assert "\n" not in str(NotFound(f"There is no {name}."))
        answer = house.client.get("/history/zip", params={"q": name}, headers={"x-user": "ann"})
        assert "set-cookie" not in answer.headers
        assert answer.status_code < 500
