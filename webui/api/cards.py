"""Routes of the cards: what model files there are, with their pictures, notes and metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from fastapi import APIRouter, Query, Response

from webui import pictures
from webui.api.card_views import CardDetails, CardList, CardView, NotesView, TagView
from webui.api.common import ERRORS, JsonBody, fields_of
from webui.api.viewer import AdminOnly, CurrentViewer
from webui.catalog import can_run
from webui.catalog.adapters import architecture
from webui.catalog.header import read_header
from webui.catalog.lookup import embedding_name, tag_names
from webui.catalog.previews import find_previews, preview_of, write_notes, write_preview
from webui.catalog.sidecar import UserNotes
from webui.catalog.training import training_facts, training_tags
from webui.errors import InvalidParams, ModelNotFound, NotFound, SaveError, WebUIError
from webui.history.thumbnails import Thumbnails
from webui.paths import safe_path
from webui.prompt import written

if TYPE_CHECKING:
    from webui.catalog import Catalog
    from webui.catalog.models import ModelFile
    from webui.identity import Viewer
    from webui.settings import SettingsStore

Kind = Literal["checkpoint", "lora", "embedding", "hypernetwork"]
MAX_NAME = 1100
YEAR = "private, max-age=31536000, immutable"
_SHOWN = 300  # characters of a description on a card


def card_routes(
    catalog: Catalog, store: SettingsStore, outputs: Path, cache: Path, owns: Callable[[Viewer, str], bool]
) -> APIRouter:
    """/cards. `cache` is the folder of small previews; `owns` tells whether a saved picture is a viewer's to use."""
    router = APIRouter(tags=["models"], responses=ERRORS)
    thumbnails = Thumbnails(cache)

    def listed(kind: Kind) -> tuple[ModelFile, ...]:
        return catalog.checkpoints if kind == "checkpoint" else catalog.networks(kind)

    def named(kind: Kind, name: str) -> ModelFile:
        found = next((model for model in listed(kind) if model.name == name), None)
        if found is None:
            raise ModelNotFound(f'There is no {kind} "{name[:80]}".', "Refresh the list; it was moved or deleted.")
        return found

    def of_body(body: bytes) -> tuple[dict[str, Any], Kind, ModelFile]:
        data = fields_of(body)
        kind = next((kind for kind in get_args(Kind) if kind == data.get("kind")), None)
        name = data.get("name")
        if kind is None or not isinstance(name, str):
            raise InvalidParams("kind, name: name a card of the list.")
        return data, kind, named(kind, name)

    @router.get("/cards", response_model=CardList)
    def cards(response: Response, kind: Kind = "lora") -> CardList:
        """All cards of a kind, in the order of their names."""
        response.headers["cache-control"] = "no-store"
        models = listed(kind)
        previews = find_previews(models)
        names = tag_names(models)
        families = {m.family for m in (*models, *catalog.checkpoints)}
        return CardList(
            cards=[card(model, kind, previews.get(model.path), store, names[model.name]) for model in models],
            bases={str(family): str(architecture(family)) for family in families},
        )

    @router.get("/cards/details", response_model=CardDetails)
    def card_details(kind: Kind, name: Annotated[str, Query(max_length=MAX_NAME)]) -> CardDetails:
        """What the file's metadata and its user say about it."""
        return details(named(kind, name), store, catalog)

    @router.get("/cards/preview.webp", response_class=Response)
    def preview(kind: Kind, name: Annotated[str, Query(max_length=MAX_NAME)]) -> Response:
        """The picture of a card, made small once. The list gives each address a version, so it may be kept for ever."""
        picture = preview_of(named(kind, name))
        if picture is None:
            raise NotFound("This card has no picture.")
        return Response(
            thumbnails.get(_version(picture, 32), picture), media_type="image/webp", headers={"cache-control": YEAR}
        )

    @router.post("/cards/notes", response_model=CardDetails, dependencies=[AdminOnly])
    def save_notes(body: JsonBody) -> CardDetails:
        """Write NAME.json: `{"kind", "name", "notes": {...}}` with the entries that AUTOMATIC1111 has there."""
        data, kind, model = of_body(body)
        notes = data.get("notes")
        if not isinstance(notes, dict):
            raise InvalidParams("notes: must be an object.")
        _written(lambda: write_notes(model, notes))
        catalog.refresh()
        return details(named(kind, model.name), store, catalog)

    @router.post("/cards/preview", response_model=CardDetails, dependencies=[AdminOnly])
    def save_preview(body: JsonBody, viewer: CurrentViewer) -> CardDetails:
        """Show a card by one of the saved pictures: `{"kind", "name", "picture": "path below the outputs folder"}`."""
        data, kind, model = of_body(body)
        path = data.get("picture")
        if not isinstance(path, str) or not owns(viewer, path):
            raise NotFound("There is no such picture.", "Make one first, or choose another.")
        png = _as_png(safe_path(outputs, path))
        _written(lambda: write_preview(model, png))
        return details(named(kind, model.name), store, catalog)

    return router


def card(model: ModelFile, kind: Kind, preview: Path | None, store: SettingsStore, name: str) -> CardView:
    """What the list shows of a model file; no path of this machine. `name` is what a tag calls it."""
    notes = model.notes or UserNotes()
    runs = can_run(model, store.current)
    folder = model.name.rpartition("/")[0]
    return CardView(
        name=model.name,
        label=embedding_name(model) if kind == "embedding" else model.stem,
        folder=folder,
        family=str(model.family),
        base=str(architecture(model.family)),
        variant=model.variant,
        size=model.size,
        modified=model.mtime_ns / 1e9,
        insert=insertion(model, kind, name),
        negative=notes.negative_text.strip(),
        preview=_version(preview) if preview is not None else "",
        description=" ".join(notes.description.split())[:_SHOWN],
        words=" ".join(filter(None, (model.metadata.get("ss_output_name", ""), model.short_hash, notes.sd_version))),
        reason="" if runs else model.reason,
    )


def insertion(model: ModelFile, kind: Kind, name: str) -> str:
    """What a click writes into the prompt; "" for a checkpoint, which is chosen instead. `name`: of `tag_names`."""
    notes = model.notes or UserNotes()
    if kind == "checkpoint":
        return ""
    if kind == "embedding":
        return embedding_name(model)
    words = notes.activation_text.strip()
    tag = f"<{'lora' if kind == 'lora' else 'hypernet'}:{written(name)}:{notes.preferred_weight or 1.0:g}>"
    return f"{tag} {words}".strip()


def details(model: ModelFile, store: SettingsStore, catalog: Catalog) -> CardDetails:
    """One card in full. A header that cannot be read says nothing."""
    metadata = dict(model.metadata)
    if model.path.suffix.lower() == ".safetensors":
        try:
            metadata = read_header(model.path).metadata  # with the long entries that the catalog leaves in the file
        except WebUIError:
            metadata = dict(model.metadata)
    notes = model.notes or UserNotes()
    facts = [("File", model.name), ("Family", str(model.family)), ("Kind", model.variant)]
    if model.context_dim:
        facts.append(("Numbers a token", str(model.context_dim)))
    facts.append(("Hash (sha256)", catalog.sha256(model, wait=False) or "is computed when it is first used"))
    return CardDetails(
        name=model.name,
        facts=[TagView(name=name, value=value) for name, value in (*facts, *training_facts(metadata)) if value],
        tags=[TagView(name=tag, value=str(count)) for tag, count in training_tags(metadata)],
        notes=NotesView(
            description=notes.description,
            notes=notes.notes,
            activation_text=notes.activation_text,
            negative_text=notes.negative_text,
            preferred_weight=notes.preferred_weight,
            sd_version=notes.sd_version,
        ),
        problems=[*model.problems, *([] if can_run(model, store.current) else [model.reason])],
    )


def _version(picture: Path, digits: int = 12) -> str:
    """Changes with the picture."""
    try:
        status = picture.stat()
    except OSError:
        return ""
    return hashlib.sha256(
        repr((str(picture), status.st_size, status.st_mtime_ns)).encode("utf-8", "replace")
    ).hexdigest()[:digits]


def _as_png(path: Path) -> bytes:
    """A saved picture as PNG, with its parameters text."""
    data = path.read_bytes()
    if path.suffix.lower() == ".png":
        return data
    with pictures.opened(data) as image:
        text, _ = pictures.read_text(data, image)
        return pictures.encode(image.convert("RGB"), "png", 90, text)


def _written(write: Callable[[], object]) -> None:
    try:
        write()
    except OSError as error:
        raise SaveError(
            f"It could not be written: {error.strerror or error}.",
            "Make room or give write access to the models folder.",
        ) from error
