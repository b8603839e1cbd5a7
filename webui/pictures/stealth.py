"""Text hidden in the lowest bits of a picture's pixels, as some programs write it so that it survives sites that strip
metadata. Column by column, a mark, a length in bits, then the text, plain or compressed with gzip.
"""

from __future__ import annotations

import json
import zlib

from PIL import Image

from webui.errors import BadPicture
from webui.pictures.opening import open_image

# The mark names where the bits are and whether the text is compressed.
_MARKS = {
    b"stealth_pnginfo": ("A", False),
    b"stealth_pngcomp": ("A", True),
    b"stealth_rgbinfo": ("RGB", False),
    b"stealth_rgbcomp": ("RGB", True),
}
_PLACES = (("A", ("RGBA",)), ("RGB", ("RGBA", "RGB")))  # channels, and the modes of pictures that have them
_MARK_LENGTH = 15  # bytes
_LENGTH_BYTES = 4
_LOWEST_BIT = bytes(ord("0") + (value & 1) for value in range(256))


def read_stealth(data: bytes, max_bytes: int, image: Image.Image | None = None) -> tuple[str, dict[str, str]]:
    """(infotext, other texts) hidden in the pixels of a PNG or WEBP file; ("", {}) where there is nothing.

    `image` is the same file where it is open already. Only the bits that hold the text are gathered, and never more
    than `max_bytes` of it.
    """
    try:
        image = image or open_image(data)
    except BadPicture:
        return "", {}
    for channels, modes in _PLACES:
        text = _read_channels(image, channels, max_bytes) if image.mode in modes else None
        if text is not None:
            return _split(text)
    return "", {}


def without_stealth(image: Image.Image) -> Image.Image:
    """The picture without a text in its pixels. Lowest bits change where there is one, and nothing else ever."""
    for channels, modes in _PLACES:
        if image.mode not in modes or _MARKS.get(_bits(image, channels, 0, _MARK_LENGTH), ("",))[0] != channels:
            continue
        bands = dict(zip(image.getbands(), image.split(), strict=True))
        for name in channels:
            bands[name] = bands[name].point([value | 1 if name == "A" else value & 254 for value in range(256)])
        image = Image.merge(image.mode, list(bands.values()))
    return image


def _read_channels(image: Image.Image, channels: str, max_bytes: int) -> str | None:
    header = _MARK_LENGTH + _LENGTH_BYTES
    start = _bits(image, channels, 0, header)
    known = _MARKS.get(start[:_MARK_LENGTH])
    if known is None or known[0] != channels or len(start) < header:
        return None
    length = int.from_bytes(start[_MARK_LENGTH:], "big") // 8
    if not 0 < length <= max_bytes:
        return None
    content = _bits(image, channels, header, length)
    if known[1]:
        try:
            content = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(content, max_bytes)
        except zlib.error:
            return None
    return content.decode("utf-8", "replace")


def _bits(image: Image.Image, channels: str, skip: int, count: int) -> bytes:
    """`count` bytes after the first `skip`, gathered from the lowest bits; fewer where the picture ends."""
    per_column = image.height * len(channels)  # bits
    first, last = skip * 8 // per_column, -(-(skip + count) * 8 // per_column)
    if first >= image.width:
        return b""
    strip = image.crop((first, 0, min(last, image.width), image.height))
    plane = strip.getchannel("A") if channels == "A" else strip.convert("RGB")
    bits = plane.transpose(Image.Transpose.TRANSPOSE).tobytes().translate(_LOWEST_BIT)
    offset = skip * 8 - first * per_column
    wanted = bits[offset : offset + count * 8]
    whole = len(wanted) // 8
    return int(wanted[: whole * 8], 2).to_bytes(whole, "big") if whole else b""


def _whole(text: str) -> str:
    """Without lone surrogates: JSON may hold them, and no encoding can."""
    return text.encode("utf-8", "replace").decode()


def _split(text: str) -> tuple[str, dict[str, str]]:
    """NovelAI hides its chunks as one JSON object; everybody else the parameters text."""
    if text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text, {}
        if isinstance(value, dict) and "Comment" in value and "Software" in value:
            chunks = {_whole(key)[:79]: _whole(entry) for key, entry in value.items() if isinstance(entry, str)}
            return "", dict(list(chunks.items())[:100])
    return text, {}
