"""Bringing a picture to a size: the resize modes of img2img, and what SD upscale and hires do, each as one function.

Rounding follows AUTOMATIC1111 to the pixel, so that old pictures come out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.operations import Frame, ResizeMode

_LANCZOS_REACH = 3  # pixels of the result, to each side
_STRIP_PIXELS = 2**24  # that are worked on at a time, so that a panorama takes no more memory than its own pixels

Box = tuple[int, int, int, int]  # left, top, right, bottom
Size = tuple[int, int]  # width, height
Resize = Callable[[Image.Image, Size], Image.Image]
"""Makes a picture that size; Lanczos, unless an upscaler is to do it."""


def lanczos(image: Image.Image, size: Size) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS)


def lanczos_of_rows(rows: Iterable[NDArray[np.uint8]], whole: Size, size: Size) -> Image.Image:
    """`lanczos` of an RGB picture of the size `whole`, which is nowhere smaller than `size`, and never there at once.

    `rows`: its pieces (H, W, 3), from the top to the bottom; no more of them are kept than the next row is made of.
    """
    width, height = size
    result, done = Image.new("RGB", size), 0
    kept, first = Image.new("RGB", (width, 0)), 0  # pieces at their final width; the number of their first row
    scale = whole[1] / height
    for piece in rows:
        kept = _above(kept, Image.fromarray(piece).resize((width, len(piece)), Image.Resampling.LANCZOS))
        there = first + kept.height
        ready = height if there == whole[1] else max(done, int(there / scale) - _LANCZOS_REACH)
        if ready == done:
            continue
        box = (0, done * scale - first, width, min(ready * scale - first, kept.height))
        result.paste(kept.resize((width, ready - done), Image.Resampling.LANCZOS, box=box), (0, done))
        done = ready
        needless = max(0, int((done - _LANCZOS_REACH) * scale) - first)
        kept, first = cut(kept, (0, needless, width, kept.height)), first + needless
    return result


def _above(upper: Image.Image, lower: Image.Image) -> Image.Image:
    whole = Image.new(upper.mode, (upper.width, upper.height + lower.height))
    whole.paste(upper, (0, 0))
    whole.paste(lower, (0, upper.height))
    return whole


def resized(image: Image.Image, size: Size, mode: ResizeMode, resize: Resize = lanczos) -> Image.Image:
    """The picture at that size. The modes are those of `operations.Init`; "latent upscale" is stretched here, too."""
    if mode == "Crop and resize":
        return cropped(image, size, resize)
    if mode == "Resize and fill":
        return filled(image, size, resize)
    return resize(image, size)


def cropped(image: Image.Image, size: Size, resize: Resize = lanczos) -> Image.Image:
    """As large as is needed to cover the size, what is too much cut off at both sides alike."""
    inner = _scaled(image.size, size, cover=True)
    return _centred(resize(image, inner), size)


def filled(image: Image.Image, size: Size, resize: Resize = lanczos) -> Image.Image:
    """As large as fits into the size; the outermost rows or columns fill what is left."""
    inner = _scaled(image.size, size, cover=False)
    small = resize(image, inner)
    whole = _centred(small, size)
    (width, height), (left, top) = size, _offset(inner, size)
    if inner[1] < height:
        _stretch(whole, small, (0, 0, small.width, 1), (0, 0, width, top))
        _stretch(whole, small, (0, small.height - 1, small.width, small.height), (0, top + inner[1], width, height))
    elif inner[0] < width:
        _stretch(whole, small, (0, 0, 1, small.height), (0, 0, left, height))
        _stretch(whole, small, (small.width - 1, 0, small.width, small.height), (left + inner[0], 0, width, height))
    return whole


def framed(image: Image.Image, frame: Frame) -> Image.Image:
    """The picture with pixels added at its sides, each the nearest one of the picture's edge."""
    width, height = image.size
    size = (width + frame.left + frame.right, height + frame.top + frame.bottom)
    whole = Image.new(image.mode, size)
    whole.paste(image, (frame.left, frame.top))
    right, bottom = frame.left + width, frame.top + height
    _stretch(whole, image, (0, 0, 1, height), (0, frame.top, frame.left, bottom))
    _stretch(whole, image, (width - 1, 0, width, height), (right, frame.top, size[0], bottom))
    rows = whole.copy()
    _stretch(whole, rows, (0, frame.top, size[0], frame.top + 1), (0, 0, size[0], frame.top))
    _stretch(whole, rows, (0, bottom - 1, size[0], bottom), (0, bottom, *size))
    return whole


def middle(size: Size, wanted: Size) -> Box:
    """The box of `wanted` in the middle of `size`; the odd pixel is cut at the far side."""
    left, top = max(0, size[0] - wanted[0]) // 2, max(0, size[1] - wanted[1]) // 2
    return left, top, left + min(size[0], wanted[0]), top + min(size[1], wanted[1])


def strips(size: Size) -> Iterator[Box]:
    """Boxes over the full width that cover a picture from top to bottom, for what is done to each pixel alone."""
    width, height = size
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)


def cut(image: Image.Image, box: Box) -> Image.Image:
    """The part in a box inside the picture. Pillow's own `crop` refuses one above its limit for pictures of others."""
    if box == (0, 0, *image.size):
        return image
    part = Image.new(image.mode, (box[2] - box[0], box[3] - box[1]))
    part.paste(image, (-box[0], -box[1]))
    return part


def _scaled(size: Size, wanted: Size, *, cover: bool) -> Size:
    """The size at the picture's own ratio that covers `wanted`, or fits into it."""
    wider = wanted[0] / wanted[1] > size[0] / size[1]
    by_width = wider == cover
    width = wanted[0] if by_width else max(1, size[0] * wanted[1] // size[1])
    height = max(1, size[1] * wanted[0] // size[0]) if by_width else wanted[1]
    return width, height


def _offset(inner: Size, size: Size) -> tuple[int, int]:
    return size[0] // 2 - inner[0] // 2, size[1] // 2 - inner[1] // 2


def _centred(image: Image.Image, size: Size) -> Image.Image:
    whole = Image.new(image.mode, size)
    whole.paste(image, _offset(image.size, size))
    return whole


def _stretch(whole: Image.Image, source: Image.Image, box: Box, target: Box) -> None:
    """Fill `target` of a picture with `box` of another."""
    size = (target[2] - target[0], target[3] - target[1])
    if min(size) > 0:
        whole.paste(source.resize(size, Image.Resampling.NEAREST, box=box), target[:2])
