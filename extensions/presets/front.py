"""Presets: kept as one JSON file a user, offered together with those that ship."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Body, Request

from webui.errors import InvalidParams, NotFound, SaveError
from webui.extensions import Preset, hookimpl
from webui.params import GenerationParams, params_from_json
from webui.paths import write_atomic

from .shipped import SHIPPED

MAX_PRESETS, MAX_NAME, MAX_FILE = 500, 100, 4 * 2**20
MAX_READ = 16 * MAX_FILE  # bytes; more than is written, for a file that was put there

_changing = threading.Lock()  # a change reads the file and writes it: two at once would lose one
_log = logging.getLogger(__name__)


@hookimpl
def presets(folder: Path, user: str) -> list[Preset]:
    """The user's own first. A file of theirs that cannot be read leaves those that ship."""
    try:
        own = _read(folder, user)
    except SaveError as error:
        _log.warning("%s", error)
        own = {}
    return [*(Preset(name, fields, own=True) for name, fields in sorted(own.items())), *SHIPPED]


@hookimpl
def routes(folder: Path) -> APIRouter:
    """Saving, deleting, exporting and importing one's own presets."""
    router = APIRouter(tags=["presets"])

    @router.post("/save")
    def save(request: Request, data: dict[str, Any] = Body()) -> dict[str, int]:  # noqa: B008
        """Keep a preset: `{"name": ..., "fields": {...}}`; one of the same name is replaced."""
        return _add(folder, _user(request), {str(data.get("name", "")): data.get("fields")})

    @router.post("/delete")
    def delete(request: Request, data: dict[str, Any] = Body()) -> dict[str, int]:  # noqa: B008
        """Delete a preset: `{"name": ...}`."""
        name = str(data.get("name", ""))
        with _changing:
            kept = _read(folder, _user(request))
            if name not in kept:
                raise NotFound(f'There is no preset "{name[:80]}" of yours.', "Refresh the list.")
            del kept[name]
            return _write(folder, _user(request), kept)

    @router.get("/export")
    def export(request: Request) -> dict[str, dict[str, Any]]:
        """All of one's own presets, in the form that `import` takes."""
        return _read(folder, _user(request))

    @router.post("/import")
    def take_in(request: Request, data: dict[str, Any] = Body()) -> dict[str, int]:  # noqa: B008
        """Take in what `export` gave, `{"name": {fields}}`; presets of the same names are replaced."""
        return _add(folder, _user(request), data)

    return router


def _user(request: Request) -> str:
    name: str = request.state.viewer.name
    return name


def _add(folder: Path, user: str, more: dict[str, Any]) -> dict[str, int]:
    wanted = {}
    for name, fields in more.items():
        name = " ".join(name.split())
        if not name or len(name) > MAX_NAME:
            raise InvalidParams("A preset needs a name of at most 100 characters.", "Type another name.")
        wanted[name] = _checked(fields)
    with _changing:
        kept = _read(folder, user) | wanted
        if len(kept) > MAX_PRESETS:
            raise InvalidParams(f"More than {MAX_PRESETS} presets.", "Delete some first.")
        return _write(folder, user, kept)


def _checked(fields: Any) -> dict[str, Any]:
    """The fields, each known and within its bounds, as they are written in a request."""
    if not isinstance(fields, dict) or not fields:
        raise InvalidParams("A preset holds at least one field.", "Change something in the form first.")
    params: GenerationParams = params_from_json(json.dumps(fields))
    written = json.loads(params.canonical_json())
    return {name: written[name] for name in fields}


def _file(folder: Path, user: str) -> Path:
    """A name that any user's name can be: the file system decides nothing about who they are."""
    return folder / f"{hashlib.sha256(user.encode()).hexdigest()[:32]}.json"


def _read(folder: Path, user: str) -> dict[str, dict[str, Any]]:
    """A user's presets; none where there is no file. Raises `SaveError` for one that cannot be read: it is not empty,
    and a change that took it for empty would be written over it."""
    path = _file(folder, user)
    try:
        if path.stat().st_size > MAX_READ:
            raise ValueError("it is too large")
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError("it holds no presets")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise SaveError(
            f"The file of your presets, {path.name}, cannot be read: {getattr(error, 'strerror', None) or error}.",
            f"Whoever runs this program can mend it, or put {path.name}.bak in its place.",
        ) from None
    return {name: fields for name, fields in data.items() if isinstance(fields, dict)}


def _write(folder: Path, user: str, kept: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Raises `InvalidParams` for more than a file may hold, unless it becomes smaller than it is, and `SaveError`."""
    path = _file(folder, user)
    text = json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False)
    data = text.encode(errors="backslashreplace")  # half a character, which JSON may hold, as JSON writes it
    try:
        if len(data) > MAX_FILE and not (path.exists() and len(data) < path.stat().st_size):
            raise InvalidParams(
                f"Your presets would take more than {MAX_FILE // 2**20} MiB.", "Delete some first, or shorten this one."
            )
        write_atomic(path, data, backup=True)
    except OSError as error:
        raise SaveError(
            f"The presets cannot be saved: {error.strerror or error}.", "Make room, then try again."
        ) from None
    return {"presets": len(kept)}
