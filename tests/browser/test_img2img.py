"""From a picture to a picture on the real page with the real model: inpaint, send-to, hires, folders."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import pytest
from painting import choose, mask_of, open_tab, picture, stroke
from PIL import Image, ImageChops
from running_server import RunningServer
from steps import Late, focused, generate, ready, set_values, shown_picture, until, wait_for, wait_for_end

pytestmark = pytest.mark.browser

FEW = {"steps": 4, "sampler": "Euler", "seed": "5"}


@pytest.fixture(scope="module")
def made(server: RunningServer) -> dict[str, Any]:
    """A picture that is there already: its job, once for the module."""
    body = json.dumps({"prompt": "a red apple", "steps": 4, "sampler": "Euler", "seed": 11}).encode()
    job = json.loads(server.post("/jobs", body, {"content-type": "application/json"}).body)["id"]
    deadline = time.monotonic() + 240
    while (view := server.json(f"/jobs/{job}"))["state"] in ("pending", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert view["state"] == "done", view
    return dict(view)


def result(server: RunningServer, view: dict[str, Any]) -> Image.Image:
    return Image.open(server.outputs / view["images"][0]["path"]).convert("RGB")


@pytest.mark.parametrize(("width", "hand"), [(1440, "mouse"), (390, "touch")])
def test_inpaint_changes_what_is_masked_and_not_one_bit_of_the_rest(
    pages: Any, server: RunningServer, width: int, hand: str
) -> None:
    phone = {"has_touch": True, "is_mobile": True} if hand == "touch" else {}
    page = pages.open(viewport={"width": width, "height": 844}, **phone)
    open_tab(page, "inpaint")
    start = picture()
    choose(page, start)
    set_values(page, prompt="a green car", **FEW, **{"init.denoising_strength": 1})
    stroke(page, (40, 40), (64, 64), (90, 60), hand=hand)
    mask = mask_of(page)
    view = wait_for_end(page, generate(page))
    assert view["params"]["inpaint"]["mask"]
    before, after = Image.open(io.BytesIO(start)).convert("RGB"), result(server, view)
    assert after.size == before.size
    changed = ImageChops.difference(before, after).convert("L")
    used = server.get(f"/inputs/{view['params']['inpaint']['mask']}").body
    assert Image.open(io.BytesIO(used)).tobytes() == mask.tobytes(), "the mask that was used is the one that was drawn"
    assert changed.getpixel((64, 64)) or changed.getpixel((60, 60)) or changed.getpixel((85, 61))
    left, top, right, bottom = mask.getbbox()
    reach = 3 * view["params"]["inpaint"]["blur_x"]  # how far the mask's blur goes
    outside = Image.new("L", before.size, 255)
    outside.paste(0, (left - reach, top - reach, right + reach, bottom + reach))
    kept = ImageChops.multiply(changed, outside)
    assert kept.getbbox() is None
    assert ImageChops.multiply(changed, mask).getbbox() is not None


def test_an_added_frame_makes_the_picture_larger_and_keeps_the_old_part(page: Any, server: RunningServer) -> None:
    open_tab(page, "inpaint")
    start = picture()
    choose(page, start)
    set_values(page, **FEW, width=192, height=128, **{"init.frame.right": 64, "inpaint.blur_x": 0, "inpaint.blur_y": 0})
    view = wait_for_end(page, generate(page))
    after = result(server, view)
    assert view["params"]["init"]["frame"] == {"left": 0, "top": 0, "right": 64, "bottom": 0}
    assert view["params"]["inpaint"]["blur_x"] == 0
    assert after.size == (192, 128)
    assert after.crop((0, 0, 128, 128)).tobytes() == Image.open(io.BytesIO(start)).convert("RGB").tobytes()


def test_a_sketch_is_what_the_picture_starts_from(page: Any, server: RunningServer) -> None:
    open_tab(page, "sketch")
    choose(page, picture())
    page.evaluate("latent.canvas.colour = '#00ff00'")
    stroke(page, (20, 20), (100, 20))
    set_values(page, **FEW)
    view = wait_for_end(page, generate(page))
    assert view["params"]["inpaint"] is None
    used = Image.open(io.BytesIO(server.get(f"/inputs/{view['params']['init']['image']}").body)).convert("RGB")
    assert used.getpixel((60, 20)) == (0, 255, 0)
    assert used.getpixel((60, 70)) == Image.open(io.BytesIO(picture())).convert("RGB").getpixel((60, 70))


def test_an_inpaint_sketch_draws_where_it_was_painted_from_the_colours_that_were_painted(
    page: Any, server: RunningServer
) -> None:
    open_tab(page, "inpaint sketch")
    start = picture()
    choose(page, start)
    page.evaluate("latent.canvas.colour = '#00ff00'")
    stroke(page, (20, 20), (100, 20))
    set_values(page, **FEW, **{"init.denoising_strength": 0})
    view = wait_for_end(page, generate(page))
    before = Image.open(io.BytesIO(start)).convert("RGB")
    painted = Image.open(io.BytesIO(server.get(f"/inputs/{view['params']['init']['image']}").body)).convert("RGB")
    mask = Image.open(io.BytesIO(server.get(f"/inputs/{view['params']['inpaint']['mask']}").body))
    assert (painted.getpixel((60, 20)), mask.getpixel((60, 20))) == ((0, 255, 0), 255)
    assert mask.getpixel((60, 70)) == 0
    changed = ImageChops.difference(before, painted).convert("L").point(lambda value: 255 if value else 0)
    assert ImageChops.multiply(changed, mask.point(lambda value: 0 if value else 255)).getbbox() is None
    after = result(server, view)
    red, green, blue = after.getpixel((60, 20))
    assert green > 150 > max(red, blue), "with a strength of 0 the colours are kept"
    assert after.getpixel((60, 100)) == before.getpixel((60, 100))


def test_the_picture_that_was_chosen_last_is_the_one_to_start_from(page: Any) -> None:
    open_tab(page, "img2img")
    late = Late(page, "**/inputs", first=1)
    for width in (96, 64):
        file = {"name": f"{width}.png", "mimeType": "image/png", "buffer": picture(width, 64)}
        page.set_input_files(".start-drop input[type=file]", file)
        late.wait()
    wait_for(page, "latent.canvas?.width === 64 && latent.form.values['init.image']")
    reference = page.evaluate("latent.form.values['init.image']")
    late.come()
    page.wait_for_timeout(300)
    assert page.evaluate("latent.canvas.width") == 64
    assert page.evaluate("latent.form.values['init.image']") == reference
    page.evaluate(
        """() => { window.widths = []; const { load } = latent.canvas;
        latent.canvas.load = function (image, width, height) { widths.push(width); return load.call(this, image, width, height); }; }"""  # noqa: E501
    )
    choose(page, picture(96, 64))
    wait_for(page, "r => latent.form.values['init.image'] !== r", arg=reference)
    page.wait_for_timeout(300)
    assert page.evaluate("widths") == [96], "the picture before it never comes back"
    fitted = page.evaluate("async () => (await latent.tabs.img2img()).fittingSize({ width: 2048, height: 3072 }, 1e9)")
    assert (fitted["width"], fitted["height"]) == (1368, 2048)
    page.get_by_role("button", name="Reset all values").click()
    page.locator("#toasts").get_by_role("button", name="Undo").wait_for()
    wait_for(page, "!latent.form.values['init.image'] && !document.documentElement.dataset.picture")


def test_the_stage_sends_its_picture_with_its_parameters(page: Any, made: dict[str, Any]) -> None:
    page.evaluate("view => latent.stage.follow(view.id, view)", made)
    shown_picture(page)
    set_values(page, prompt="something else", seed="3")
    page.locator("#stage [data-send=inpaint]").click()
    wait_for(
        page, "latent.tabs.current === 'img2img' && latent.form.values.prompt === 'a red apple' && latent.canvas?.width"
    )
    values = page.evaluate("latent.form.values")
    assert (values["seed"], values["steps"], values["width"]) == ("11", 4, 128)
    assert page.evaluate("document.documentElement.dataset.mode") == "inpaint"
    page.locator("#tab-txt2img-button").click()
    page.locator("#stage [data-send=extras]").click()
    page.locator(".extras-inputs img").wait_for()


def test_png_info_and_history_send_pictures_on(page: Any, server: RunningServer, made: dict[str, Any]) -> None:
    path = server.outputs / made["images"][0]["path"]
    page.locator("#tab-png-info-button").click()
    page.set_input_files(".png-info input[type=file]", path)
    page.locator(".png-info [data-send=img2img]").click()
    wait_for(page, "latent.form.values.prompt === 'a red apple' && latent.canvas?.width === 128")
    assert page.evaluate("document.documentElement.dataset.mode") == "img2img"
    page.evaluate("latent.form.set({ prompt: '' })")
    page.locator("#tab-history-button").click()
    page.get_by_role("gridcell", name="a red apple").last.click()  # other tests make pictures without words
    page.locator("#history-viewer [data-send=inpaint]").click()
    wait_for(page, "latent.tabs.current === 'img2img' && latent.form.values.prompt !== ''")
    assert not page.locator("#history-viewer").is_visible()


def test_one_click_makes_the_picture_larger_with_its_own_parameters(
    page: Any, server: RunningServer, made: dict[str, Any]
) -> None:
    page.evaluate("view => latent.stage.follow(view.id, view)", made)
    shown_picture(page)
    set_values(page, prompt="something else", **{"hires.scale": 2, "hires.upscaler": "Lanczos"})
    job = generate(page, lambda: page.locator("#stage [data-send=hires]").click())
    view = wait_for_end(page, job)
    assert view["params"]["prompt"] == "a red apple"
    assert view["params"]["seed"] == 11
    assert view["params"]["hires"]["first_pass"]
    assert result(server, view).size == (256, 256)


def test_a_batch_is_stopped_even_before_the_page_has_seen_its_job(page: Any, server: RunningServer) -> None:
    open_tab(page, "batch")
    set_values(page, **{**FEW, "steps": 150}, width=64, height=64)
    chosen = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": picture(64, 64)} for n in range(2)]
    page.set_input_files(".start-batch input[type=file]:not([webkitdirectory])", chosen)
    page.evaluate("""() => {
        window.follow = latent.folders.follow;
        latent.folders.follow = async (...given) => { await window.gate; return window.follow(...given); };
        window.gate = new Promise((open) => { window.open_gate = open; });
    }""")
    job = generate(page, lambda: page.get_by_role("button", name="Start the batch").click())
    assert focused(page) == "Start the batch"
    page.locator(".start-batch").get_by_role("button", name="Stop").press("Enter")
    wait_for_end(page, job, "interrupted")
    page.evaluate("() => { window.open_gate(); latent.folders.follow = window.follow; }")
    page.get_by_role("button", name="Go on").wait_for()
    until(lambda: focused(page) == "Go on")  # in the place of the one that was pressed


def test_a_folder_is_one_job_that_goes_on_where_it_was_stopped(page: Any, server: RunningServer) -> None:
    open_tab(page, "batch")
    set_values(page, **{**FEW, "steps": 150}, width=64, height=64)  # still at work when Stop is pressed
    chosen = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": picture(64 + 8 * n, 64)} for n in range(2)]
    page.set_input_files(".start-batch input[type=file]:not([webkitdirectory])", chosen)
    job = generate(page, lambda: page.get_by_role("button", name="Start the batch").click())
    page.locator(".start-batch").get_by_role("button", name="Stop").click()
    wait_for(page, f"['interrupted', 'cancelled'].includes(latent.stage.view.state) && '{job}'")
    page.reload()
    ready(page)
    page.get_by_text("2 pictures · ", exact=False).wait_for()
    again = generate(page, lambda: page.get_by_role("button", name="Go on").click())
    view = wait_for_end(page, again)
    assert view["sources"] == 2
    assert [image["index"] for image in view["images"]] == [0, 1]
    assert not any("Stopped at step" in image["infotext"] for image in view["images"])
    page.get_by_text("2 pictures · 2 made", exact=False).wait_for()
