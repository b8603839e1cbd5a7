"""`encode`: a picture and its parameters text as the bytes of a file."""

from __future__ import annotations

import io
from collections.abc import Mapping

from PIL import Image, PngImagePlugin, features

from webui.pictures.containers import EXIF_MARK
from webui.pictures.exif import comment_block

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "avif": ".avif"}
# Pixels; libjpeg stops a little before the 65,535 of its format, and what is longer as AVIF cannot be opened again.
MAX_SIDE = {"jpeg": 65_500, "webp": 16_383, "avif": 32_768}
MAX_JPEG_TEXT = 65_000  # bytes: an EXIF segment of a JPEG ends at 64 KB
INFOTEXT_KEY = "parameters"
_FULL_COLOUR_QUALITY = 95  # from here on colour is stored at full resolution
# Takes half as long as the usual way, for files of the same size: the filtered pixels of a picture hardly ever repeat,
# so it is in vain to look for what was there before, but for runs of one value.
_PNG_STRATEGY = Image.RLE
_AVIF_SPEED = 8  # of 0 to 10; twice as fast as the usual 6 for files a few hundredths larger


def file_format(image_format: str, width: int, height: int, infotext: str = "") -> str:
    """The format a picture is really written in: "png" where the chosen one cannot hold its size or its text.

    Also where this Pillow was built without AVIF.
    """
    limit = MAX_SIDE.get(image_format)
    if limit is None or width > limit or height > limit:
        return "png"
    if image_format == "jpeg" and len(comment_block(_clean(infotext))) > MAX_JPEG_TEXT:
        return "png"
    return "png" if image_format == "avif" and not features.check("avif") else image_format


def encode(
    image: Image.Image,
    image_format: str = "png",
    quality: int = 90,
    infotext: str = "",
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """The file's bytes, in the format that `file_format` names.

    PNG: the infotext is the chunk `parameters`, the first after IHDR (tEXt where Latin-1 can say it, else iTXt),
    followed by the chunks of `extra`. JPEG, WEBP and AVIF: the infotext is EXIF's UserComment, "UNICODE" and UTF-16 in
    big-endian order; they have no place for `extra`. `quality` is for these three. Nothing else of the image (profile,
    texts it was read with) is written.
    """
    chosen = file_format(image_format, image.width, image.height, infotext)
    buffer = io.BytesIO()
    image = _bare(image)
    if chosen == "png":
        _save_png(image, infotext, extra or {}, buffer)
        return buffer.getvalue()
    picture = image if image.mode in ("RGB", "L") or (chosen != "jpeg" and image.mode == "RGBA") else _flat(image)
    exif = EXIF_MARK + comment_block(_clean(infotext)) if infotext else b""
    full_colour = quality >= _FULL_COLOUR_QUALITY
    if chosen == "jpeg":
        picture.save(buffer, "JPEG", quality=quality, subsampling=0 if full_colour else 2, exif=exif)
    elif chosen == "avif":
        subsampling = "4:4:4" if full_colour else "4:2:0"
        picture.save(buffer, "AVIF", quality=quality, subsampling=subsampling, speed=_AVIF_SPEED, exif=exif)
    else:
        picture.save(buffer, "WEBP", quality=quality, exif=exif)
    return buffer.getvalue()


def _save_png(image: Image.Image, infotext: str, extra: Mapping[str, str], buffer: io.BytesIO) -> None:
    chunks = PngImagePlugin.PngInfo()
    texts = {INFOTEXT_KEY: infotext, **extra} if infotext else dict(extra)
    for key, text in texts.items():
        chunks.add_text(key.encode("latin-1", "replace").decode("latin-1")[:79], _clean(text))
    image.save(buffer, "PNG", pnginfo=chunks, compress_level=1, compress_type=_PNG_STRATEGY)


def _clean(text: str) -> str:
    """Without what a text chunk cannot hold: NUL ends it, a lone surrogate has no bytes."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _bare(image: Image.Image) -> Image.Image:
    """The same pixels without what the source carried: Pillow would write profiles, comments and EXIF again."""
    bare = image.copy()
    bare.info = {key: value for key, value in image.info.items() if key == "transparency"}
    return bare


def _flat(image: Image.Image) -> Image.Image:
    """RGB; what is transparent becomes white."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    base = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(base, layer).convert("RGB")
