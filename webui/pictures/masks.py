"""Masks of inpainting as "L" pictures, 255 where the picture is drawn anew; all numbers as in AUTOMATIC1111."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter, ImageOps

from webui.operations import Frame
from webui.pictures.resizing import Box, Size, cut, strips

ROUND_ABOVE = 128  # of 255: where a rounded mask begins
_KERNEL_REACH = 2.5  # standard deviations
# (radius of a Gaussian in pixels, how often it is laid over): far colours first, near ones over them.
_FILL_ROUNDS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))


def from_picture(image: Image.Image, *, rounded: bool) -> Image.Image:
    """The mask that a file holds: its alpha where some of it is transparent, else its grey."""
    if image.mode in ("LA", "PA", "P") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255):
        alpha = image.getchannel("A")
        return alpha.point(lambda value: 255 if value > ROUND_ABOVE else 0) if rounded else alpha
    return image.convert("L")


def transparent_part(image: Image.Image) -> Image.Image:
    """White where the picture is transparent."""
    return ImageOps.invert(image.convert("RGBA").getchannel("A"))


def outside(size: Size, frame: Frame) -> Image.Image:
    """White on the pixels that a frame adds; `size` is that of the picture inside."""
    whole = Image.new("L", (size[0] + frame.left + frame.right, size[1] + frame.top + frame.bottom), 255)
    whole.paste(0, (frame.left, frame.top, frame.left + size[0], frame.top + size[1]))
    return whole


def with_frame(mask: Image.Image, frame: Frame) -> Image.Image:
    """A mask of the picture inside, together with the frame around it."""
    whole = outside(mask.size, frame)
    whole.paste(mask, (frame.left, frame.top))
    return whole


def blurred(mask: Image.Image, x: float, y: float) -> Image.Image:
    """A separable Gaussian; `x` and `y` are standard deviations in pixels. The kernel ends after 2.5 of them."""
    whole = mask.copy()
    reach = _reach(y)  # rows that a strip sees beside its own
    for left, top, right, bottom in strips(mask.size):
        above, below = max(0, top - reach), min(mask.height, bottom + reach)
        given = cut(mask, (left, above, right, below))
        if given.getbbox() is None:
            continue  # black, as it is
        values: NDArray[Any] = np.asarray(given, dtype=np.float64)
        for axis, deviation in ((1, x), (0, y)):
            values = _smoothed(values, deviation, axis)
        whole.paste(Image.fromarray(values[top - above : bottom - above].astype(np.uint8)), (left, top))
    return whole


def _reach(deviation: float) -> int:
    """Pixels to each side of the middle of a Gaussian's kernel."""
    return int(_KERNEL_REACH * deviation + 0.5)


def _smoothed(values: NDArray[Any], deviation: float, axis: int) -> NDArray[Any]:
    """Whole numbers (H, W) smoothed along an axis, rounded again."""
    from scipy.ndimage import correlate1d

    if deviation <= 0:
        return values
    offsets = np.arange(-_reach(deviation), _reach(deviation) + 1)
    weights = np.exp(-(offsets**2) / (2 * deviation**2))
    smooth: NDArray[Any] = np.rint(correlate1d(values, weights / weights.sum(), axis=axis, mode="mirror"))
    return smooth


def doubled(mask: Image.Image) -> Image.Image:
    """Twice as white: what a blurred mask lets through of the new picture reaches to the edge of the blur."""
    return mask.point(lambda value: min(2 * value, 255))


def masked_box(mask: Image.Image, padding: int, ratio: Size) -> Box | None:
    """The masked rectangle with `padding` pixels around it, widened to the shape of `ratio`; None for a black mask.

    It stays inside the picture: widened past an edge, it is moved inwards, and cut where it is larger than the picture.
    """
    found = mask.getbbox()
    if found is None:
        return None
    width, height = mask.size
    left, top = max(found[0] - padding, 0), max(found[1] - padding, 0)
    right, bottom = min(found[2] + padding, width), min(found[3] + padding, height)
    wanted = ratio[0] / ratio[1]
    if (right - left) / (bottom - top) > wanted:
        top, bottom = _widened(top, bottom, int((right - left) / wanted), height)
    else:
        left, right = _widened(left, right, int((bottom - top) * wanted), width)
    return left, top, right, bottom


def _widened(start: int, end: int, wanted: int, limit: int) -> tuple[int, int]:
    missing = wanted - (end - start)
    start, end = start - missing // 2, end + missing - missing // 2
    if end >= limit:
        start, end = start - (end - limit), limit
    if start < 0:
        start, end = 0, end - start
    return start, min(end, limit)


def fill_in(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with the masked part covered by the colours around it."""
    around = cut_out(image, mask).convert("RGBa")
    covered = Image.new("RGBA", image.size)
    for radius, repeats in _FILL_ROUNDS:
        layer = around.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(repeats):
            covered.alpha_composite(layer)
    return covered.convert("RGB")


def cut_out(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The unmasked part, transparent where the mask is white (RGBA)."""
    kept = Image.new("RGBa", image.size)
    kept.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    return kept.convert("RGBA")


def laid_over(new: Image.Image, original: Image.Image, mask: Image.Image) -> Image.Image:
    """The original over the new picture where the mask is black: there the result is the original to the last bit."""
    result = original.convert("RGB")
    for box in strips(mask.size):
        part = cut(mask, box)
        if part.getbbox() is None:
            continue
        mixed = cut(new, box).convert("RGBA")
        mixed.alpha_composite(cut_out(cut(original, box), part))
        drawn = part.point(lambda value: 255 if value else 0)
        result.paste(mixed.convert("RGB"), box, drawn)
    return result


def union(one: Image.Image, other: Image.Image) -> Image.Image:
    return ImageChops.lighter(one, other)
