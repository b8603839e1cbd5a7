"""Hands on the canvas: a picture chosen, strokes by mouse, by finger and by keyboard."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image, ImageDraw
from steps import wait_for

Point = tuple[float, float]  # of the picture, in pixels


def picture(width: int = 128, height: int = 128, *, mode: str = "RGB") -> bytes:
    """A PNG with something in every corner; with mode RGBA its right half is transparent."""
    image = Image.new("RGB", (width, height), (70, 120, 190))
    draw = ImageDraw.Draw(image)
    for step in range(0, width, 8):
        draw.line((step, 0, width - step, height), fill=(step * 255 // width, 180, 90))
    draw.ellipse((width // 4, height // 4, width * 3 // 4, height * 3 // 4), fill=(190, 60, 50))
    if mode == "RGBA":
        alpha = Image.new("L", (width, height), 255)
        ImageDraw.Draw(alpha).rectangle((width // 2, 0, width, height), fill=0)
        image.putalpha(alpha)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def open_tab(page: Any, mode: str) -> None:
    """The img2img tab in one of its modes."""
    page.locator("#tab-img2img-button").click()
    page.locator(f".start-modes [data-mode='{mode}']").click()


def choose(page: Any, data: bytes, name: str = "start.png") -> None:
    """Choose the picture to start from, and wait until it is on the canvas."""
    page.set_input_files(".start-drop input[type=file]", {"name": name, "mimeType": "image/png", "buffer": data})
    wait_for(page, "() => latent.form.values['init.image'] && latent.canvas?.width && latent.canvas.image.complete")


def on_screen(page: Any, *points: Point) -> list[Point]:
    """Where those pixels of the picture are in the window."""
    page.locator(".paint-port").scroll_into_view_if_needed()
    return [
        tuple(place)
        for place in page.evaluate(
            """async points => { const frame = () => new Promise(requestAnimationFrame);
            await frame(); await frame(); // what has just appeared has its place
            const box = latent.canvas.port.getBoundingClientRect();
            return points.map(([x, y]) => { const at = latent.canvas.view.toPort({ x, y });
              return [box.left + at.x, box.top + at.y]; }); }""",
            [list(point) for point in points],
        )
    ]


def stroke(page: Any, *points: Point, hand: str = "mouse") -> None:
    """Draw through those pixels of the picture, and wait until the step is done."""
    before = page.evaluate("latent.canvas.surface.done.length")
    places = on_screen(page, *points)
    if hand == "mouse":
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=5)
        page.mouse.up()
    else:
        touch(page, [[place] for place in places])
    wait_for(page, "before => latent.canvas.surface.done.length === before + 1", arg=before)


def touch(page: Any, frames: list[list[Point]]) -> None:
    """Fingers over time: each frame is where they are; the first sets them down, and after the last they are lifted."""
    session = page.context.new_cdp_session(page)

    def send(kind: str, places: list[Point]) -> None:
        points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", frames[0])
    for frame in frames[1:]:
        send("touchMove", frame)
    send("touchEnd", [])
    session.detach()


def pen(page: Any, points: list[Point], pressure: float, palm: Point | None = None) -> None:
    """Draw with a pen through those pixels of the picture; `palm`: where a hand rests in the window meanwhile."""
    places = on_screen(page, *points)
    session = page.context.new_cdp_session(page)

    def send(kind: str, place: Point) -> None:
        held = {"button": "left", "buttons": 1, "clickCount": 1, "force": pressure, "pointerType": "pen"}
        session.send("Input.dispatchMouseEvent", {"type": kind, "x": place[0], "y": place[1], **held})

    send("mousePressed", places[0])
    for place in places[1:]:
        if palm is not None:
            touch(page, [[palm], [(palm[0] + 30, palm[1])]])
        send("mouseMoved", place)
    send("mouseReleased", places[-1])
    session.detach()


def mask_of(page: Any) -> Image.Image:
    """The mask as it stands on the canvas."""
    width, height = page.evaluate("[latent.canvas.width, latent.canvas.height]")
    data = page.evaluate(
        """() => new Promise((done) => { const reader = new FileReader();
        reader.onload = () => done(reader.result.split(',')[1]);
        reader.readAsDataURL(new Blob([latent.canvas.surface.data])); })"""
    )
    return Image.frombytes("L", (width, height), base64.b64decode(data))
