"""`read_text`: the parameters text and the other texts that a picture file carries, wherever its program put them."""

from __future__ import annotations

import io
import zlib

from PIL import Image

from webui.errors import BadPicture
from webui.pictures.containers import exif_of, png_chunks, sniff
from webui.pictures.exif import DESCRIPTION, MAKE, MODEL, USER_COMMENT, decode_comment, read_exif
from webui.pictures.opening import MAX_BYTES, MAX_PIXELS, MAX_TEXT_BYTES
from webui.pictures.stealth import read_stealth

MAX_INFOTEXT = 256 * 2**10  # bytes
MAX_CHUNK = 4 * 2**20  # bytes of any other text (a workflow can be long); the rest is cut off
_MAX_CHUNK_HEAD = 300  # bytes before a chunk's text
MAX_CHUNKS = 100
_INFOTEXT_KEY = "parameters"


def read_text(data: bytes, image: Image.Image | None = None) -> tuple[str, dict[str, str]]:
    """(infotext, other texts by name) of a PNG, JPEG, WEBP, AVIF or GIF file; "" and {} where there are none.

    The order of places: EXIF's UserComment, PNG's `parameters`, GIF's comment, the lowest bits of the pixels ("stealth"
    text of PNG and WEBP, looked for only where nothing else is). ComfyUI's EXIF entries become the chunks `prompt` and
    `workflow`. An infotext past its bound is replaced by a note in the other texts. `image`, the file as `open_image`
    gave it, spares decoding it for the pixels' text. Raises `BadPicture` for what is none of these formats.
    """
    kind = sniff(data)
    if kind is None or len(data) > MAX_BYTES:
        raise BadPicture("This is not a picture whose text can be read.", "Use PNG, JPEG, WEBP, AVIF or GIF.")
    chunks = _png_texts(data) if kind == "PNG" else _gif_texts(data) if kind == "GIF" else {}
    chunks.update(_exif_texts(exif_of(data, kind)))
    infotext = chunks.pop("UserComment", "") or chunks.pop(_INFOTEXT_KEY, "") or chunks.pop("GIF comment", "")
    if not infotext and not chunks and kind in ("PNG", "WEBP"):
        infotext, chunks = read_stealth(data, MAX_INFOTEXT, image)
    if len(infotext.encode("utf-8", "replace")) > MAX_INFOTEXT:
        chunks[_INFOTEXT_KEY] = f"(too long to be shown: {len(infotext):,} characters)"
        infotext = ""
    return infotext, chunks


def _png_texts(data: bytes) -> dict[str, str]:
    """The text chunks by keyword; of one keyword the first counts."""
    texts: dict[str, str] = {}
    total = 0
    for block in png_chunks(data):
        if block.kind not in ("tEXt", "zTXt", "iTXt"):
            continue
        if len(texts) >= MAX_CHUNKS or total > MAX_TEXT_BYTES:
            break
        size = block.end - block.start
        content = data[block.start : block.start + min(size, MAX_CHUNK + _MAX_CHUNK_HEAD)]
        keyword, _, rest = content.partition(b"\0")
        text = _decode_chunk(block.kind, rest)
        total += size + len(text)
        texts.setdefault(keyword[:79].decode("latin-1"), text)
    return texts


def _decode_chunk(kind: str, rest: bytes) -> str:
    if kind == "tEXt":
        return _decode(rest, "latin-1")
    if kind == "zTXt":
        return _decode(_inflate(rest[1:]), "latin-1")
    compressed, rest = rest[:1] == b"\1", rest[2:]
    for _ in ("language", "translated keyword"):
        rest = rest.partition(b"\0")[2]
    return _decode(_inflate(rest) if compressed else rest, "utf-8")


def _decode(text: bytes, charset: str) -> str:
    return text[:MAX_CHUNK].decode(charset, "replace").replace("\0", "")


def _inflate(data: bytes) -> bytes:
    """The beginning, up to the longest chunk; b"" for damaged data."""
    try:
        return zlib.decompressobj().decompress(data, MAX_CHUNK)
    except zlib.error:
        return b""


def _exif_texts(block: bytes) -> dict[str, str]:
    entries = read_exif(block[: 2 * MAX_CHUNK])
    texts: dict[str, str] = {}
    comment = entries.get(USER_COMMENT)
    if isinstance(comment, bytes) and (text := decode_comment(comment[:MAX_CHUNK]).strip()):
        texts["UserComment"] = text
    for tag, name in ((MAKE, "Make"), (MODEL, "Model"), (DESCRIPTION, "ImageDescription")):
        value = entries.get(tag)
        if not isinstance(value, bytes):
            continue
        text = value[:MAX_CHUNK].decode("utf-8", "replace").strip("\0 ")
        label, colon, rest = text.partition(":")
        if colon and label.lower() in ("prompt", "workflow") and rest.lstrip().startswith("{"):
            texts[label.lower()] = rest
        elif text:
            texts[name] = text
    return texts


def _gif_texts(data: bytes) -> dict[str, str]:
    """The comment, through Pillow, which reads it without decoding a frame."""
    try:
        with Image.open(io.BytesIO(data), formats=("GIF",)) as image:
            if image.width * image.height > MAX_PIXELS:
                return {}
            comment = image.info.get("comment", b"")
    except Exception:  # a hostile file can fail in many ways; each of them means that it has no text
        return {}
    if not isinstance(comment, bytes) or not comment:
        return {}
    return {"GIF comment": comment[:MAX_CHUNK].decode("utf-8", "replace")}
