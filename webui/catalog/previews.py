"""Pictures and notes beside a model file: NAME.png shows what it draws, NAME.json is what its user wrote about it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from webui.catalog.models import ModelFile
from webui.catalog.scan import PICTURE_SUFFIXES
from webui.catalog.sidecar import MAX_NOTE_LENGTH, MAX_NOTES_SIZE
from webui.errors import BadModelFile, InvalidParams
from webui.paths import write_atomic

ENDINGS = (
    *(
        f"{middle}{suffix}"
        for middle in ("", ".preview")
        for suffix in (".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif")
    ),
)
TEXTS = ("description", "notes", "activation text", "negative text", "sd version")
WEIGHT = "preferred weight"
MAX_WEIGHT = 100.0


def find_previews(models: Iterable[ModelFile]) -> dict[Path, Path]:
    """The picture of each model that has one. Every folder is listed once."""
    listed: dict[Path, set[str]] = {}
    found: dict[Path, Path] = {}
    for model in models:
        folder = model.path.parent
        if folder not in listed:
            try:
                with os.scandir(folder) as entries:
                    listed[folder] = {entry.name for entry in entries}
            except OSError:
                listed[folder] = set()
        name = next((name for name in _names(model) if name in listed[folder]), None)
        if name is not None:
            found[model.path] = folder / name
    return found


def preview_of(model: ModelFile) -> Path | None:
    """The picture of one model."""
    return find_previews([model]).get(model.path)


def write_preview(model: ModelFile, png: bytes) -> Path:
    """Show the model by this PNG from now on. Raises OSError."""
    path = model.path.with_name(f"{model.stem}{'.preview' if _is_picture(model) else ''}.png")
    write_atomic(path, png)
    return path


def _is_picture(model: ModelFile) -> bool:
    """Whether the model is itself a picture with an embedding in it, so that NAME.png would be a model too."""
    return model.path.suffix.lower() in PICTURE_SUFFIXES


def _names(model: ModelFile) -> Iterable[str]:
    """What its preview may be called, the name that counts first at the front."""
    if not _is_picture(model):
        return [model.stem + ending for ending in ENDINGS]
    own = [model.path.name] if model.path.suffix.lower() in ENDINGS else []
    return [*(model.stem + ending for ending in ENDINGS if ending.startswith(".preview")), *own]


def write_notes(model: ModelFile, notes: Mapping[str, Any]) -> None:
    """Write what a user says about a model into NAME.json; entries of other programs stay as they are.

    `notes` may hold the texts of `TEXTS` and "preferred weight". Raises `InvalidParams`, `BadModelFile` when what is
    there is no JSON object, or OSError; the file before stays beside it as NAME.json.bak.
    """
    changes = {key: _text(key, notes[key]) for key in TEXTS if key in notes}
    weight = notes.get(WEIGHT, 0.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not -MAX_WEIGHT <= weight <= MAX_WEIGHT:
        raise InvalidParams(f"{WEIGHT}: is not a number between -{MAX_WEIGHT:g} and {MAX_WEIGHT:g}.")
    path = model.path.with_name(f"{model.stem}.json")
    content = {**_present(path), **changes}
    if WEIGHT in notes:
        content[WEIGHT] = weight
    data = json.dumps(content, indent=4, ensure_ascii=False).encode()
    if len(data) > MAX_NOTES_SIZE:
        raise InvalidParams(f"The notes are larger than {MAX_NOTES_SIZE // 1024} KB.", "Shorten them.")
    write_atomic(path, data, backup=True)


def _present(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_NOTES_SIZE + 1).decode("utf-8-sig"))
    except (ValueError, RecursionError, OSError):
        content = None
    if not isinstance(content, dict):
        raise BadModelFile(f"{path.name} is there and is not a JSON object.", "Correct or remove it, then try again.")
    return content


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_NOTE_LENGTH:
        raise InvalidParams(f"{key}: is not a text of at most {MAX_NOTE_LENGTH:,} characters.")
    return value.encode("utf-8", "replace").decode().replace("\0", "")
