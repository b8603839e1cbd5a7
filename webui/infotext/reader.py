"""`parse` and `parse_chunks`: which dialect a text or a picture's chunks are in, and its reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from webui.infotext import bounded_json
from webui.infotext.a1111 import read_a1111
from webui.infotext.dialects import civitai, comfyui, easydiffusion, fooocus, invokeai, novelai, plain_json, swarmui
from webui.infotext.model import NotUnderstood, ParsedInfotext, Reading
from webui.infotext.operations import says_only_what_was_done_later
from webui.infotext.typed import finish

MAX_TEXT = bounded_json.MAX_LENGTH  # characters

# In the order in which they are asked; each answers None for what is not its own.
_JSON_READERS: tuple[Callable[[dict[str, Any]], Reading | None], ...] = (
    swarmui.read,
    invokeai.read,
    comfyui.read,
    fooocus.read,
    easydiffusion.read,
    novelai.read,
    plain_json.read,
)


def parse(text: str) -> ParsedInfotext:
    """Read a parameters text in any dialect. Never raises; a text without settings is a prompt."""
    return finish(_read(text))


def parse_chunks(
    infotext: str, chunks: Mapping[str, str] | None = None, *, size: tuple[int, int] | None = None
) -> ParsedInfotext:
    """Read what `pictures.read_text` found in a file: its parameters text and its other text chunks.

    `size` is the picture's own, for a dialect that does not say it.
    """
    chunks = chunks or {}
    reading = _read(infotext) if infotext.strip() else None
    later = reading.fields if reading is not None and says_only_what_was_done_later(reading) else {}
    if reading is None or not reading.complete or later:
        found = _read_chunks(chunks, size)
        if found is not None:
            found.fields |= later
        reading = found or reading or Reading("none", complete=False)
    return finish(reading)


def _read(text: str) -> Reading:
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    text = "".join(ch for ch in text if ch >= " " or ch in "\n\t")
    if len(text) > MAX_TEXT:
        note = NotUnderstood("", "", f"the text is longer than {MAX_TEXT:,} characters")
        return Reading("text", complete=False, not_understood=[note])
    if text.lstrip().startswith("{"):
        reading = _read_json(bounded_json.load(text))
        if reading is not None:
            return reading
    reading = read_a1111(text)
    civitai.add_resources(reading, text)
    return reading


def _read_json(value: Any) -> Reading | None:
    if not isinstance(value, dict):
        return None
    return next((reading for reader in _JSON_READERS if (reading := reader(value)) is not None), None)


def _read_chunks(chunks: Mapping[str, str], size: tuple[int, int] | None) -> Reading | None:
    """The chunks that other programs use instead of, or beside, the parameters text."""
    reading = novelai.read_chunks(chunks, size) or invokeai.read_chunks(chunks) or easydiffusion.read_chunks(chunks)
    if reading is not None:
        return reading
    for name in ("prompt", "workflow", "Comment", "generation_data", "Description"):
        reading = _read_json(bounded_json.load(chunks.get(name, "")))
        if reading is not None:
            return reading
    text = chunks.get("Comment") or chunks.get("Description") or ""
    return _read(text) if text.strip() else None
