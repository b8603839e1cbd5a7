"""Presets: kept as one JSON file a user, offered together with those that ship."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Body, Request

from webui.errors import InvalidParams, NotFound
from webui.extensions import Preset, hookimpl
from webui.params import GenerationParams, params_from_json
from webui.paths import write_atomic

from .shipped import SHIPPED

MAX_PRESETS, MAX_NAME, MAX_FILE = 500, 100, 4 * 2**20


@hookimpl
def presets(folder: Path, user: str) -> list[Preset]:
    """The user's own first."""
    return [*(Preset(name, fields, own=True) for name, fields in sorted(_read(folder, user).items())), *SHIPPED]


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
        kept, name = _read(folder, _user(request)), str(data.get("name", ""))
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
    kept = _read(folder, user)
    for name, fields in more.items():
        name = " ".join(name.split())
        if not name or len(name) > MAX_NAME:
            raise InvalidParams("A preset needs a name of at most 100 characters.", "Type another name.")
        kept[name] = _checked(fields)
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
    path = _file(folder, user)
    try:
        data = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= MAX_FILE else {}
    except (OSError, ValueError):
        return {}
    return {name: fields for name, fields in data.items() if isinstance(fields, dict)} if isinstance(data, dict) else {}


def _write(folder: Path, user: str, kept: dict[str, dict[str, Any]]) -> dict[str, int]:
    write_atomic(_file(folder, user), json.dumps(kept, indent=1, sort_keys=True).encode(), backup=True)
    return {"presets": len(kept)}
