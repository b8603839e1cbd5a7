"""The canvas on the real page: what hands and keys do to the mask."""

from __future__ import annotations

import io
from typing import Any

import pytest
from painting import choose, mask_of, on_screen, open_tab, pen, picture, stroke, touch
from PIL import Image
from running_server import RunningServer
from steps import focused, until, wait_for

pytestmark = pytest.mark.browser


@pytest.fixture
def canvas(pages: Any) -> Any:
    """A page with a picture of 128 x 128 to inpaint."""
    page = pages.open()
    open_tab(page, "inpaint")
    choose(page, picture())
    page.evaluate("latent.canvas.setBrush(0.125)")  # 16 pixels across
    return page


def test_a_stroke_masks_what_it_covers_and_is_undone_and_done_again(canvas: Any) -> None:
    stroke(canvas, (32, 64), (96, 64))
    drawn = mask_of(canvas)
    assert drawn.getpixel((64, 64)) == drawn.getpixel((33, 64)) == 255
    assert drawn.getpixel((64, 60)) == 255
    assert drawn.getpixel((64, 75)) == drawn.getpixel((10, 64)) == 0
    canvas.keyboard.press("Control+z")
    assert mask_of(canvas).getextrema() == (0, 0)
    canvas.keyboard.press("Control+Shift+z")
    assert mask_of(canvas) == drawn
    for button in (canvas.get_by_role("button", name=name) for name in ("Undo", "Redo")):
        button.press("Enter")
        assert button.is_disabled()
        assert button.evaluate("node => node === document.activeElement")
    assert mask_of(canvas) == drawn
    canvas.locator("[data-tool=eraser]").click()
    stroke(canvas, (64, 64), (96, 64))
    erased = mask_of(canvas)
    assert erased.getpixel((80, 64)) == 0
    assert erased.getpixel((40, 64)) == 255


def test_a_stroke_that_crosses_itself_is_no_stronger_there(canvas: Any) -> None:
    canvas.evaluate("latent.canvas.softness = 1")
    stroke(canvas, (32, 32), (96, 32))
    once = mask_of(canvas)
    canvas.keyboard.press("Delete")
    stroke(canvas, (32, 32), (96, 32), (32, 32))
    assert mask_of(canvas) == once
    assert sum(count > 0 for count in once.histogram()) > 30, "a soft edge has many greys"


def test_lasso_fill_invert_and_clear(canvas: Any) -> None:
    canvas.locator("[data-tool=lasso]").click()
    stroke(canvas, (20, 20), (60, 20), (60, 60), (20, 60))
    lasso = mask_of(canvas)
    assert lasso.getpixel((40, 40)) == lasso.getpixel((22, 22)) == lasso.getpixel((57, 57)) == 255
    assert lasso.getpixel((17, 40)) == lasso.getpixel((63, 40)) == 0
    canvas.keyboard.press("i")
    inverted = mask_of(canvas)
    assert (inverted.getpixel((40, 40)), inverted.getpixel((0, 0))) == (0, 255)
    canvas.keyboard.press("Delete")
    canvas.keyboard.press("b")
    stroke(canvas, (80, 80), (110, 80), (110, 110), (80, 110), (80, 80))
    assert mask_of(canvas).getpixel((95, 95)) == 0
    canvas.keyboard.press("g")
    stroke(canvas, (95, 95))
    filled = mask_of(canvas)
    assert filled.crop((80, 80, 110, 110)).getextrema() == (255, 255), "no seam between outline and inside"
    assert filled.getpixel((20, 20)) == 0


def test_the_keyboard_alone_draws(canvas: Any) -> None:
    canvas.locator(".paint-port").focus()
    canvas.keyboard.press("Enter")
    for _ in range(5):
        canvas.keyboard.press("ArrowRight")
    canvas.keyboard.press("Enter")
    drawn = mask_of(canvas)
    assert drawn.getpixel((64, 64)) == drawn.getpixel((82, 64)) == 255
    assert drawn.getpixel((40, 64)) == 0
    size = canvas.evaluate("latent.canvas.radius")
    canvas.keyboard.press("]")
    assert canvas.evaluate("latent.canvas.radius") > size
    canvas.keyboard.press("+")
    assert canvas.evaluate("!latent.canvas.view.fitted")
    canvas.keyboard.press("f")
    assert canvas.locator(".paint.full").is_visible()
    canvas.keyboard.press("Escape")
    assert canvas.locator(".paint.full").count() == 0


def test_fingers_draw_pinch_and_do_not_draw_while_pinching(pages: Any) -> None:
    page = pages.open(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    open_tab(page, "inpaint")
    choose(page, picture())
    stroke(page, (32, 64), (64, 64), (96, 64), hand="touch")
    drawn = mask_of(page)
    assert drawn.getpixel((64, 64)) == 255
    scale = page.evaluate("latent.canvas.view.scale")
    (a, b, c, d) = on_screen(page, (60, 64), (68, 64), (40, 64), (88, 64))
    touch(page, [[a], [a, b], [c, d]])
    assert page.evaluate("latent.canvas.view.scale") > scale * 2
    assert mask_of(page) == drawn
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_pen_draws_by_its_pressure_and_the_hand_that_holds_it_draws_nothing(pages: Any) -> None:
    page = pages.open(has_touch=True)
    open_tab(page, "inpaint")
    choose(page, picture())
    page.evaluate("latent.canvas.setBrush(0.25)")  # 32 pixels across
    heights = []
    for pressure, y in ((0.1, 32), (1.0, 80)):
        pen(page, [(32, y), (64, y), (96, y)], pressure)
        heights.append(columns_height(mask_of(page).crop((0, y - 24, 128, y + 24))))
    assert heights[0] < heights[1] / 2, heights
    drawn = mask_of(page)

    page.evaluate("latent.canvas.penAt = performance.now() + 1e6")  # the pen was lifted a moment ago
    a, b = on_screen(page, (20, 60), (60, 100))
    touch(page, [[a], [b]])
    assert mask_of(page) == drawn
    assert page.evaluate("latent.canvas.surface.done.length") == 2

    page.evaluate("latent.canvas.penAt = -Infinity")
    page.locator(".paint-port").press("0")  # the finger moved the picture
    pen(page, [(20, 110), (110, 110)], 1.0, palm=on_screen(page, (64, 20))[0])
    assert page.evaluate("latent.canvas.surface.done.length") == 3, "the palm neither draws nor ends the stroke"
    after = mask_of(page)
    assert after.getpixel((64, 110)) == 255
    assert after.getpixel((64, 20)) == drawn.getpixel((64, 20)) == 0


def columns_height(mask: Image.Image) -> int:
    """How high what is painted is."""
    _, top, _, bottom = mask.getbbox() or (0, 0, 0, 0)
    return bottom - top


def test_the_edge_of_a_mask_is_made_softer_and_that_is_one_step(canvas: Any) -> None:
    canvas.evaluate("latent.canvas.setBrush(0.5)")
    stroke(canvas, (64, 64), (65, 64))
    hard = mask_of(canvas)
    for _ in range(4):
        canvas.keyboard.press("s")
    soft = mask_of(canvas)
    assert soft.getpixel((64, 64)) == 255
    greys = [sum(0 < value < 255 for value in mask.crop((0, 64, 128, 65)).tobytes()) for mask in (hard, soft)]
    assert greys[1] >= greys[0] + 6
    assert sum(soft.tobytes()) == pytest.approx(sum(hard.tobytes()), rel=0.05), "as much is masked as before"
    canvas.keyboard.press("i")
    for _ in range(4):
        canvas.keyboard.press("s")
    assert mask_of(canvas).getpixel((0, 0)) == 255, "a mask up to the picture's edge stays full there"
    for _ in range(9):
        canvas.keyboard.press("Control+z")
    assert mask_of(canvas) == hard


def test_the_mask_alone_travels_as_a_small_grey_picture_of_full_size(pages: Any, server: RunningServer) -> None:
    page = pages.open()
    sent: list[bytes] = []
    page.on("request", lambda r: r.method == "POST" and r.url.endswith("/inputs") and sent.append(r.post_data_buffer))
    open_tab(page, "inpaint")
    choose(page, picture(3000, 2000))
    sent.clear()
    with page.expect_response(lambda r: r.url.endswith("/inputs") and r.request.method == "POST") as response:
        stroke(page, (400, 300), (2500, 1700))
    reference = response.value.json()["reference"]
    assert len(sent) == 1
    assert len(sent[0]) < 200_000
    kept = Image.open(io.BytesIO(server.get(f"/inputs/{reference}").body))
    assert (kept.format, kept.mode, kept.size) == ("PNG", "L", (3000, 2000))
    assert kept.tobytes() == mask_of(page).tobytes()
    wait_for(page, "r => latent.form.values['inpaint.mask'] === r", arg=reference)


def test_picture_and_mask_are_there_again_after_a_reload(canvas: Any) -> None:
    stroke(canvas, (32, 64), (96, 64))
    drawn = mask_of(canvas)
    wait_for(canvas, "latent.form.values['inpaint.mask']")
    canvas.reload()
    wait_for(canvas, "latent.canvas?.surface && !latent.canvas.surface.empty")
    assert mask_of(canvas) == drawn


def test_a_mask_comes_from_a_file_or_from_what_is_transparent(pages: Any) -> None:
    page = pages.open()
    open_tab(page, "inpaint upload")
    choose(page, picture(mode="RGBA"))
    page.get_by_role("button", name="Mask from alpha").click()
    wait_for(page, "latent.canvas.surface.canUndo")
    assert mask_of(page).getbbox() == (64, 0, 128, 128)
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (0, 0, 64, 32))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    page.set_input_files(
        ".start-mask input[type=file]", {"name": "mask.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    )
    wait_for(page, "latent.canvas.surface.done.length === 2")
    assert mask_of(page) == mask
    page.get_by_role("button", name="Remove", exact=True).press("Enter")
    until(lambda: focused(page) == "Choose a picture")
    choose(page, picture())
    until(lambda: focused(page) == "Change")


def test_dragging_an_edge_adds_a_frame_in_steps_of_eight(canvas: Any) -> None:
    handle = canvas.get_by_role("slider", name="Pixels added at the right")
    box = handle.bounding_box()
    scale = canvas.evaluate("latent.canvas.view.scale")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    canvas.mouse.move(x, y)
    canvas.mouse.down()
    canvas.mouse.move(x + 41 * scale, y, steps=4)
    canvas.mouse.up()
    wait_for(canvas, "latent.form.values['init.frame.right'] === 40 && latent.form.values.width === 168")
    handle.press("ArrowLeft")
    wait_for(canvas, "latent.form.values['init.frame.right'] === 32")
    assert "160 × 128" in canvas.locator(".paint-facts").inner_text()
