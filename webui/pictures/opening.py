"""`open_image`: the one way from bytes that came from outside to pixels."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL import Image, features

from webui.errors import BadPicture
from webui.operations import MAX_RESULT_PIXELS
from webui.pictures.containers import EXIF_MARK, Format, exif_of, jpeg_segments, picture_size, png_chunks, sniff
from webui.pictures.exif import ORIENTATION, read_exif

MAX_PIXELS = 64 * 2**20  # of a picture that is decoded beside others
MAX_BYTES = 256 * 2**20  # of a file
MAX_TEXT_BYTES = 16 * 2**20  # all text chunks of a PNG together, as they are in the file
MAX_EXIF_BYTES = 2**20  # all EXIF segments of a JPEG together
_FORMATS: tuple[Format, ...] = ("PNG", "JPEG", "WEBP", "AVIF")
AT_ONCE = 2  # pictures that the server holds decoded: up to `MAX_PIXELS`, each takes a quarter of a gigabyte
_TEXT_CHUNKS = frozenset({"tEXt", "zTXt", "iTXt"})

_turn = threading.BoundedSemaphore(AT_ONCE)
_gathering = threading.Lock()  # held by who waits for turns, so that no two wait with a part of them each

# What turns a picture upright, by its EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(data: bytes, *, max_pixels: int = MAX_PIXELS, formats: tuple[Format, ...] = _FORMATS) -> Image.Image:
    """The picture, decoded, upright, in the mode it was stored in (at most 8 bits a channel); of many frames the first.

    Raises `BadPicture` for every other kind of file, for one that is larger than `max_pixels` (known before anything
    is decoded), truncated or damaged, and for one that carries more text than a picture needs.
    """
    kind = check(data, max_pixels, formats)
    turned: object = None
    try:
        with _undecoded(io.BytesIO(data), kind) as source:
            if source.width * source.height > max_pixels:
                raise _too_large(source.width, source.height, max_pixels)
            source.load()
            # Of several frames one alone is taken out; a single one need not be in memory twice.
            image = source.copy() if getattr(source, "is_animated", False) or kind == "GIF" else source
            turned = source.getexif().get(ORIENTATION) if kind == "AVIF" else None  # Pillow has it from `irot`, too
    except BadPicture:
        raise
    except MemoryError:
        raise BadPicture("There is not enough memory for this picture.", "Use a smaller one.") from None
    except Exception:  # a hostile file can fail in many ways; each of them means the same here
        raise BadPicture(
            "The picture is damaged or incomplete.", "Save or download it again, then try once more."
        ) from None
    image = _in_8_bits(image) if image.mode.startswith("I") else image
    orientation = turned or read_exif(exif_of(data, kind)).get(ORIENTATION)
    if isinstance(orientation, int) and orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    # Profiles and texts of the source must not reach what is saved; the transparent colour is part of the pixels.
    image.info = {key: value for key, value in image.info.items() if key == "transparency"}
    image.format = kind
    return image


def _in_8_bits(grey: Image.Image) -> Image.Image:
    """Grey of 16 bits as "L" by its upper 8, as Pillow reads colours of 16 bits; "LA" where a value is transparent.

    Pillow's own conversion would cut at 255, which makes nearly all of a picture white.
    """
    import numpy as np

    values = np.asarray(grey)
    image = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    transparent = grey.info.get("transparency")
    if isinstance(transparent, int):
        image.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return image


@contextlib.contextmanager
def opened(data: bytes, *, formats: tuple[Format, ...] = _FORMATS) -> Iterator[Image.Image]:
    """`open_image` for what answers requests: whoever comes third waits until the picture of another is done with.

    A picture above `MAX_PIXELS` (a panorama, a scan, what was enlarged) takes up to a gigabyte: it has all turns.
    The block must open no other picture, and keep none. Raises as `open_image` does.
    """
    width, height = upright_size(data) or (0, 0)
    turns, max_pixels = (AT_ONCE, MAX_RESULT_PIXELS) if width * height > MAX_PIXELS else (1, MAX_PIXELS)
    with _turns(turns):
        yield open_image(data, max_pixels=max_pixels, formats=formats)


@contextlib.contextmanager
def both_opened(one: bytes, other: bytes) -> Iterator[tuple[Image.Image, Image.Image]]:
    """`opened` for two pictures that are needed side by side."""
    with _turns(AT_ONCE):
        yield open_image(one, max_pixels=MAX_RESULT_PIXELS), open_image(other, max_pixels=MAX_RESULT_PIXELS)


@contextlib.contextmanager
def _turns(number: int) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        with _gathering:
            for _ in range(number):
                held.enter_context(_turn)
        yield


def open_own(file: Path | bytes, size: tuple[int, int]) -> Image.Image:
    """A picture of this program's own making, (width, height) as it was told, decoded.

    A sheet, or what was enlarged, may be above Pillow's limit for pictures of others: it is not asked.
    Raises OSError for what is no such picture, or damaged.
    """
    with io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as source:
        kind = sniff(source.read(16))
        source.seek(0)
        if kind is None:
            raise OSError("it is no picture")
        try:
            picture = _undecoded(source, kind)
            if picture.size != size:
                raise OSError("it has another size")
            picture.load()
        except (SyntaxError, ValueError, IndexError, TypeError, struct.error) as error:
            raise OSError(f"it is damaged: {error}") from None
    return picture


def _undecoded(source: IO[bytes], kind: Format) -> Image.Image:
    """What Pillow's own `open` gives, which refuses some sizes that are allowed here. Raises as a damaged file may."""
    Image.init()  # before it, Pillow knows the commonest formats alone
    return Image.OPEN[kind][0](source, "")


def upright_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) as `open_image` would give the picture, by its header alone; None where that does not say it."""
    kind = sniff(data)
    size = picture_size(data, kind) if kind else None
    if kind is None or size is None or not all(size):
        return None
    turned = read_exif(exif_of(data, kind)).get(ORIENTATION) in (5, 6, 7, 8)
    return (size[1], size[0]) if turned else size


def check(data: bytes, max_pixels: int, formats: tuple[Format, ...]) -> Format:
    """The format of a file that may be decoded. Raises `BadPicture`."""
    if len(data) > MAX_BYTES:
        raise BadPicture(f"The file is larger than {MAX_BYTES // 2**20} MB.", "Use a smaller picture.")
    kind = sniff(data)
    if kind is None or kind not in formats:
        raise BadPicture("This is not a picture that can be opened here.", f"Use one of {', '.join(formats)}.")
    if kind == "AVIF" and not features.check("avif"):
        raise BadPicture("AVIF cannot be opened by the Pillow that is installed here.", "Save it as PNG first.")
    size = picture_size(data, kind)
    if size is None:
        raise BadPicture("The picture is damaged: it does not say its size.", "Save or download it again.")
    width, height = size
    if not width or not height:
        raise BadPicture("The picture is empty: one of its sides is 0.", "Save or download it again.")
    if width * height > max_pixels:
        raise _too_large(width, height, max_pixels)
    if kind == "PNG":
        text = sum(block.end - block.start for block in png_chunks(data) if block.kind in _TEXT_CHUNKS)
        if text > MAX_TEXT_BYTES:
            raise BadPicture(f"The picture carries {text // 2**20} MB of text.", "Save it again without the text.")
    if kind == "JPEG":
        exif = sum(
            block.end - block.start
            for block in jpeg_segments(data)
            if block.kind == "E1" and data[block.start : block.start + len(EXIF_MARK)] == EXIF_MARK
        )
        if exif > MAX_EXIF_BYTES:
            raise BadPicture(f"The picture carries {exif // 2**20} MB of EXIF.", "Save it again without it.")
    return kind


def _too_large(width: int, height: int, max_pixels: int) -> BadPicture:
    return BadPicture(
        f"The picture has {width}x{height} pixels, more than the {max_pixels // 10**6} megapixels that are opened.",
        "Make it smaller first.",
    )
