"""`encode`: a picture and its parameters text as the bytes of a file."""

from __future__ import annotations

import io
from collections.abc import Mapping

from PIL import Image, PngImagePlugin

from webui.pictures.containers import EXIF_MARK
from webui.pictures.exif import comment_block

MAX_SIDE = {"jpeg": 65_500, "webp": 16_383}  # pixels; libjpeg stops a little before the 65,535 of the format
MAX_JPEG_TEXT = 65_000  # bytes: an EXIF segment of a JPEG ends at 64 KB
INFOTEXT_KEY = "parameters"
_FULL_COLOUR_QUALITY = 95  # from here on colour is stored at full resolution


def file_format(image_format: str, width: int, height: int, infotext: str = "") -> str:
    """The format a picture is really written in: "png" where JPEG or WEBP cannot hold its size or its text."""
    limit = MAX_SIDE.get(image_format)
    if limit is None or width > limit or height > limit:
        return "png"
    if image_format == "jpeg" and len(comment_block(_clean(infotext))) > MAX_JPEG_TEXT:
        return "png"
    return image_format


def encode(
    image: Image.Image,
    image_format: str = "png",
    quality: int = 90,
    infotext: str = "",
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """The file's bytes, in the format that `file_format` names.

    PNG: the infotext is the chunk `parameters`, the first after IHDR (tEXt where Latin-1 can say it, else iTXt),
    followed by the chunks of `extra`. JPEG and WEBP: the infotext is EXIF's UserComment, "UNICODE" and UTF-16 in
    big-endian order; they have no place for `extra`. `quality` is for these two. Nothing else of the image (profile,
    texts it was read with) is written.
    """
    chosen = file_format(image_format, image.width, image.height, infotext)
    buffer = io.BytesIO()
    image = _bare(image)
    if chosen == "png":
        _save_png(image, infotext, extra or {}, buffer)
        return buffer.getvalue()
    picture = image if image.mode in ("RGB", "L") or (chosen == "webp" and image.mode == "RGBA") else _flat(image)
    exif = EXIF_MARK + comment_block(_clean(infotext)) if infotext else b""
    if chosen == "jpeg":
        subsampling = 0 if quality >= _FULL_COLOUR_QUALITY else 2
        picture.save(buffer, "JPEG", quality=quality, subsampling=subsampling, exif=exif)
    else:
        picture.save(buffer, "WEBP", quality=quality, exif=exif)
    return buffer.getvalue()


def _save_png(image: Image.Image, infotext: str, extra: Mapping[str, str], buffer: io.BytesIO) -> None:
    chunks = PngImagePlugin.PngInfo()
    texts = {INFOTEXT_KEY: infotext, **extra} if infotext else dict(extra)
    for key, text in texts.items():
        chunks.add_text(key.encode("latin-1", "replace").decode("latin-1")[:79], _clean(text))
    image.save(buffer, "PNG", pnginfo=chunks)


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
