"""A picture file that nobody told the history about, as a record: what its own text says about it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from webui import infotext, pictures
from webui.errors import BadPicture, InvalidParams, NotFound
from webui.history.records import Record, State, checked
from webui.history.skeleton import read_skeleton, size_of
from webui.history.thumbnails import read_picture
from webui.infotext import ParsedInfotext
from webui.params import make_params
from webui.provenance import ModelKind, UsedModel

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif"})
OWN_DIALECT = "Latent WebUI"
OTHER_HASHES = frozenset({"InvokeAI"})  # blake3 and its own: a file cannot be found by them here
UNKNOWN_SOURCE = "file"  # a picture whose program is not known

_KINDS: tuple[ModelKind, ...] = get_args(ModelKind)
_LORA_TAG = re.compile(r"<(?:lora|lyco):([^:<>]{1,200})")


def is_picture(name: str) -> bool:
    """Whether a file of that name may be a picture; hidden and temporary ones are not."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def read_record(path: Path, *, folder: str, relative: str, user: str) -> Record:
    """The record of a picture file, `relative` below `folder` ("" = outputs). The file is only read.

    Raises `WebUIError` when the file is no picture, cannot be read, or has a name that cannot be stored.
    """
    data = read_skeleton(path)
    width, height = size_of(data)
    if not width or not height:
        raise BadPicture(f"{path.name} is no picture that is read here.")
    text, chunks = pictures.read_text(data)
    if not text and not chunks:  # perhaps the text is hidden in the pixels themselves
        text, chunks = pictures.read_text(read_picture(path))
    parsed = infotext.parse_chunks(text, chunks, size=(width, height))
    record = record_from(parsed, text, folder=folder, user=user)
    created = read_time(path)
    return checked(replace(record, path=relative, created=created, width=width, height=height))


def read_time(path: Path) -> float:
    """When the file was written, in unix seconds. Raises `NotFound`."""
    try:
        return path.stat().st_mtime
    except OSError as error:
        raise NotFound(f"The file {path.name} is gone.") from error


def record_from(parsed: ParsedInfotext, text: str, *, folder: str = "", user: str = "") -> Record:
    """What a parsed text says about a single picture."""
    values, fields = parsed.params, parsed.fields
    complete = "seed" in values and "steps" in values
    own = parsed.dialect == OWN_DIALECT and not folder
    models = _models(parsed)
    return Record(
        folder=folder,
        state=State.present,
        user=user,
        source="" if own else parsed.dialect if complete else UNKNOWN_SOURCE,
        prompt=parsed.prompt,
        negative_prompt=parsed.negative_prompt,
        checkpoint=next((m for m in models if m.kind == "checkpoint"), None),
        vae=next((m for m in models if m.kind == "vae"), None),
        networks=tuple(m for m in models if m.kind not in ("checkpoint", "vae")),
        sampler=values.get("sampler") or fields.get("Sampler", ""),
        schedule=values.get("schedule") or fields.get("Schedule type", ""),
        seed=values.get("seed"),
        steps=values.get("steps"),
        cfg_scale=values.get("cfg_scale"),
        params=_canonical(values) if complete else "",
        infotext=text,
    )


def _canonical(values: dict[str, Any]) -> str:
    try:
        return make_params({**values, "batch_size": 1, "batch_count": 1}).canonical_json()
    except InvalidParams:
        return ""


def _models(parsed: ParsedInfotext) -> list[UsedModel]:
    """The files that the text names, of each kind and name one; LoRAs also from the tags of the prompt."""
    found: dict[tuple[str, str], UsedModel] = {}
    for resource in parsed.resources:
        kind = next((kind for kind in _KINDS if kind == resource.kind), None)
        name = resource.name or resource.digest
        digest = "" if parsed.dialect in OTHER_HASHES else resource.digest.lower()
        if kind is not None and name and not found.get((kind, name), UsedModel(kind, name)).sha256:
            found[kind, name] = UsedModel(kind, name, digest)
    for name in _LORA_TAG.findall(parsed.prompt):
        found.setdefault(("lora", name), UsedModel("lora", name))
    return list(found.values())
