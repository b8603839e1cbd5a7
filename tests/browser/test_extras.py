"""The Extras tab with real networks in a real worker: one picture, a folder, a face; and the same over the API."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import numpy as np
import pytest
from embedded import EMBEDDED_UPSCALERS
from face_models import ASTRONAUT, BOX, astronaut
from painting import picture
from PIL import Image, PngImagePlugin
from running_server import RunningServer
from steps import focused, generate, set_values, until, wait_for, wait_for_end

from webui import pictures as files

pytestmark = pytest.mark.browser

NETWORK = EMBEDDED_UPSCALERS[0].stem
TEXT = "a red apple\nSteps: 4, Sampler: Euler, Seed: 11"


def with_text(data: bytes) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", TEXT)
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def extras_of(page: Any, *chosen: bytes) -> None:
    """The tab with these pictures on it."""
    page.locator("#tab-extras-button").click()
    listed = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": data} for n, data in enumerate(chosen)]
    page.set_input_files(".extras .drop input", listed)
    page.locator(".extras-inputs img").nth(len(chosen) - 1).wait_for()


def made(page: Any, server: RunningServer, count: int = 1) -> list[bytes]:
    """The files of the results, once all are there."""
    done = page.locator(".extras-result[data-state=done]")
    wait_for(page, f"document.querySelectorAll('.extras-result[data-state=done]').length === {count}")
    links = done.locator("a[download]").evaluate_all("links => links.map(a => a.getAttribute('href'))")
    return [(server.data_dir / link).read_bytes() for link in sorted(links)]


def over_api(server: RunningServer, data: bytes, **fields: Any) -> bytes:
    body = json.dumps({"image": base64.b64encode(data).decode(), **fields}).encode()
    reply = server.post("/sdapi/v1/extra-single-image", body, {"content-type": "application/json"})
    assert reply.status == 200, reply.body
    return base64.b64decode(json.loads(reply.body)["image"])


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


def test_the_embedded_network_is_chosen_at_once_and_enlarges_as_over_the_api(page: Any, server: RunningServer) -> None:
    given = with_text(picture(32, 24))
    extras_of(page, given)
    assert page.locator("[data-name=upscaler]").input_value() == NETWORK
    page.keyboard.press("Control+Enter")  # what this tab is for
    [large] = made(page, server)
    assert Image.open(io.BytesIO(large)).size == (128, 96)
    text = files.read_text(large)[0]
    assert text.startswith(TEXT)
    assert f"Postprocess upscaler: {NETWORK}" in text
    assert pixels(large) == pixels(over_api(server, given, upscaler_1=NETWORK, upscaling_resize=4))
    plain = Image.open(io.BytesIO(given)).convert("RGB").resize((128, 96), Image.Resampling.LANCZOS)
    assert pixels(large) != plain.tobytes()


def test_pictures_are_removed_one_after_the_other_by_the_keyboard(page: Any) -> None:
    extras_of(page, picture(16, 24), picture(24, 16), picture(16, 16))
    page.get_by_role("button", name="Remove 1.png").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Remove 1.png").wait_for(state="detached")
    until(lambda: focused(page) == "Remove 2.png")


def test_a_folder_is_one_job_and_each_picture_is_what_it_would_be_alone(page: Any, server: RunningServer) -> None:
    given = [picture(16, 24), with_text(picture(24, 16))]
    extras_of(page, *given)
    told = server.json("/status") | {"saving": {"image_format": "png", "image_quality": 83}}  # by the settings
    page.route(re.compile("//[^/]+/status$"), lambda route: route.fulfill(json=told))
    page.get_by_role("button", name="Enlarge 2 pictures").press("Enter")
    large = made(page, server, 2)
    wait_for(page, "document.activeElement.textContent === 'Enlarge 2 pictures'")
    [folder] = [view for view in server.json("/jobs?limit=1")["jobs"] if view["params"]["extras"]]
    assert folder["sources"] == 2
    assert (folder["params"]["image_format"], folder["params"]["image_quality"]) == ("png", 83)
    alone = [over_api(server, data, upscaler_1=NETWORK, upscaling_resize=4) for data in given]
    assert {pixels(data) for data in large} == {pixels(data) for data in alone}
    assert any("a red apple" in files.read_text(data)[0] for data in large)


def test_a_face_is_restored_in_the_page_and_over_the_api(page: Any, server: RunningServer) -> None:
    extras_of(page, ASTRONAUT.read_bytes())
    page.locator("[data-name=upscaler]").select_option("None")
    page.locator("[data-name=scale]").fill("1")
    assert page.locator("[data-name=visibility]").is_hidden()
    page.locator("[data-name=model]").select_option("GFPGANv1.4")
    page.locator("[data-name=visibility]").fill("0.5")
    page.get_by_role("button", name="Enlarge", exact=True).click()
    [restored] = made(page, server)
    left, top, right, bottom = BOX
    face = (left + 20, top + 30, right - 20, bottom - 30)
    both = (astronaut(), Image.open(io.BytesIO(restored)).convert("RGB"))
    before, after = (np.asarray(image.crop(face), dtype=float) for image in both)
    assert (after - before).mean(axis=(0, 1))[0] > 12  # the stand-in for the network makes faces red
    assert "Face restoration: GFPGANv1.4, Face restoration visibility: 0.5" in files.read_text(restored)[0]
    same = over_api(server, ASTRONAUT.read_bytes(), gfpgan_visibility=0.5)
    assert pixels(same) == pixels(restored)
    listed = server.json("/sdapi/v1/face-restorers")
    assert [one["name"] for one in listed] == ["codeformer", "GFPGANv1.4"]


def test_the_form_sends_its_face_restoration_with_the_prompt(page: Any) -> None:
    page.locator("#group-faces button.label-wrap").click()
    page.get_by_label("Restore faces").check()
    page.locator("#choose-f-faces-model select").select_option("codeformer")
    set_values(page, prompt="a red apple", steps=1, width=64, height=64)
    view = wait_for_end(page, generate(page))
    assert view["params"]["faces"]["model"] == "codeformer"
    assert "no face was found" in page.locator("#stage .warnings").inner_text()
