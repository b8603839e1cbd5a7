"""`Record`: all that the history knows of one picture, as one frozen value.

It is what the recorder writes, what the importers make from files, what is exported as a JSON line, and what is saved
from a damaged database. `to_line` and `from_line` are its JSON form; a line may come from anywhere, so every value in
it is checked.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from pathlib import PurePosixPath
from typing import Any, get_args

from webui import infotext
from webui.errors import InvalidParams
from webui.history.folding import clean
from webui.provenance import ModelKind, SavedPicture, UsedModel

LINE_FORMAT = 1  # of the JSON lines
MAX_LINE = 2**20  # characters
MAX_TAGS = 100
MAX_TAG = 100  # characters
MAX_NOTES = 20_000
MAX_INFOTEXT = 256 * 1024
MAX_NETWORKS = 200
MAX_PATH = 4096  # characters
MAX_INTEGER = 2**63 - 1
MAX_DEPTH = 8  # of values within values
_THUMBNAIL = re.compile(r"[0-9a-f]{32}")
_KINDS = frozenset(get_args(ModelKind))
_LAST_MOMENT = 253_402_300_000.0  # unix seconds of the year 9999


class State(str, Enum):
    """Where a picture's file is."""

    writing = "writing"  # announced; the file is about to get its name
    present = "present"
    missing = "missing"  # the file is not where it was
    unsaved = "unsaved"  # it could not be written; the params are kept, so it can be made again
    trashed = "trashed"

    @property
    def shown(self) -> bool:
        """Whether the grid shows it."""
        return self in (State.present, State.missing, State.unsaved)


@dataclass(frozen=True, slots=True)
class Record:
    """One picture. Numbers that are not known are None, texts are ""."""

    path: str | None = None  # below `folder`, with "/"
    folder: str = ""  # absolute; "" = the outputs folder
    state: State = State.present
    created: float = 0.0  # unix seconds
    position: int | None = None  # see schema.py; None = chosen when it is written
    user: str = ""
    source: str = ""  # "" = made here

    prompt: str = ""
    negative_prompt: str = ""
    checkpoint: UsedModel | None = None
    vae: UsedModel | None = None  # None = the one baked into the checkpoint
    networks: tuple[UsedModel, ...] = ()  # LoRA, embeddings and other files
    sampler: str = ""
    schedule: str = ""
    seed: int | None = None
    width: int = 0  # pixels
    height: int = 0
    steps: int | None = None
    cfg_scale: float | None = None

    params: str = ""  # canonical JSON of the job's params
    picture_index: int = 0  # which picture of the job
    infotext: str = ""
    environment: dict[str, str] = field(default_factory=dict, hash=False)
    pixels_sha256: str = ""
    job: str = ""
    seconds: dict[str, float] = field(default_factory=dict, hash=False)
    peak_memory: int = 0  # bytes
    error: str = ""

    favourite: bool = False
    tags: tuple[str, ...] = ()
    notes: str = ""
    parent: int | None = None
    relation: str = ""
    changes: dict[str, Any] = field(default_factory=dict, hash=False)
    thumbnail: str = ""  # key in the cache of thumbnails; "" = follows from the pixels or the path


def record_of(picture: SavedPicture, path: str, folder: str, job: str, user: str) -> Record:
    """What the engine tells of a picture, as a record in the state `writing`."""
    says = _says(picture)
    by_kind = {model.kind: model for model in reversed(picture.models)}
    return Record(
        path=path,
        folder=folder,
        state=State.writing,
        created=time.time(),
        user=user,
        prompt=says.get("prompt", ""),
        negative_prompt=says.get("negative_prompt", ""),
        checkpoint=by_kind.get("checkpoint"),
        vae=by_kind.get("vae"),
        networks=tuple(m for m in picture.models if m.kind not in ("checkpoint", "vae")),
        sampler=says.get("sampler", ""),
        schedule=says.get("schedule", ""),
        seed=says.get("seed"),
        width=picture.width,
        height=picture.height,
        steps=says.get("steps"),
        cfg_scale=says.get("cfg_scale"),
        params=picture.params.canonical_json(),
        picture_index=picture.index,
        infotext=picture.infotext,
        environment={name: value for name, value in asdict(picture.environment).items() if value},
        pixels_sha256=picture.pixels_sha256,
        job=job,
    )


def _says(picture: SavedPicture) -> dict[str, Any]:
    """The params that are shown with a picture: those that drew it, which an enlarged one has in its text."""
    if picture.params.kind == "extras":
        parsed = infotext.parse(picture.infotext)
        return parsed.params if parsed.fields.get("Steps") else {}
    return picture.params.single(picture.index).model_dump()


def to_line(record: Record, picture_id: int) -> str:
    """One JSON line, without the newline. What has its default is left out."""
    data: dict[str, Any] = {"latent_history": LINE_FORMAT, "id": picture_id}
    empty = Record()
    for entry in fields(Record):
        value = getattr(record, entry.name)
        if value == getattr(empty, entry.name):
            continue
        if entry.name == "networks":
            value = [asdict(m) for m in value]
        elif isinstance(value, UsedModel):
            value = asdict(value)
        elif isinstance(value, State):
            value = value.value
        data[entry.name] = value
    return json.dumps(data, separators=(",", ":"))


def from_line(line: str) -> tuple[Record, int | None]:
    """The record of a JSON line and the id it had. Raises `InvalidParams` with what is wrong."""
    if len(line) > MAX_LINE:
        raise InvalidParams("The line is longer than a megabyte.")
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidParams("The line is not JSON.") from None
    if not isinstance(data, dict) or data.get("latent_history") != LINE_FORMAT:
        raise InvalidParams("The line is not a history record of this format.")
    return checked(_typed(data)), _integer(data, "id")


def checked(record: Record) -> Record:
    """The record with texts that can be stored and bounds that hold. Raises `InvalidParams`."""
    if record.path is not None:
        parts = PurePosixPath(record.path).parts
        bad = not parts or record.path.startswith("/") or ".." in parts or "\\" in record.path
        bad = bad or any(ch < " " for ch in record.path) or len(record.path) > MAX_PATH
        if bad or clean(record.path) != record.path:
            raise InvalidParams("The picture's path is not one below a folder.")
    if clean(record.folder, MAX_PATH) != record.folder:
        raise InvalidParams("The picture's folder has a name that cannot be stored.")
    created = record.created if 0 <= record.created < _LAST_MOMENT else 0.0
    position = record.position
    if position is not None and not 0 <= position < int(_LAST_MOMENT * 1000):
        position = None
    seed = record.seed
    return replace(
        record,
        created=created,
        position=position,
        user=clean(record.user, 200),
        source=clean(record.source, 100),
        prompt=clean(record.prompt),
        negative_prompt=clean(record.negative_prompt),
        checkpoint=_clean_model(record.checkpoint),
        vae=_clean_model(record.vae),
        networks=tuple(m for m in map(_clean_model, record.networks[:MAX_NETWORKS]) if m),
        sampler=clean(record.sampler, 100),
        schedule=clean(record.schedule, 100),
        seed=seed if seed is not None and -1 <= seed <= MAX_INTEGER else None,
        width=record.width if 0 <= record.width < 2**31 else 0,
        height=record.height if 0 <= record.height < 2**31 else 0,
        infotext=clean(record.infotext, MAX_INFOTEXT),
        tags=clean_tags(record.tags),
        notes=clean(record.notes, MAX_NOTES).strip(),
        error=clean(record.error, 1000),
        job=clean(record.job, 200),
        relation=clean(record.relation, 40),
        thumbnail=record.thumbnail if _THUMBNAIL.fullmatch(record.thumbnail) else "",
    )


def clean_tags(tags: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Tags without line breaks, doubles and empty ones. Raises `InvalidParams` above a hundred."""
    kept = dict.fromkeys(" ".join(clean(tag, MAX_TAG).split()) for tag in tags)
    kept.pop("", None)
    if len(kept) > MAX_TAGS:
        raise InvalidParams(f"A picture takes at most {MAX_TAGS} tags.")
    return tuple(kept)


def _clean_model(model: UsedModel | None) -> UsedModel | None:
    if model is None or model.kind not in _KINDS or not clean(model.name, 1024):
        return None
    digest = model.sha256.lower()
    known = len(digest) <= 64 and all(ch in "0123456789abcdef" for ch in digest)
    return UsedModel(model.kind, clean(model.name, 1024), digest if known else "")


def _typed(data: dict[str, Any]) -> Record:
    """Each entry as its type, or left out."""
    values: dict[str, Any] = {}
    for name in ("folder", "user", "source", "prompt", "negative_prompt", "sampler", "schedule", "params", "infotext",
                 "pixels_sha256", "job", "error", "notes", "relation", "thumbnail"):  # fmt: skip
        if isinstance(data.get(name), str):
            values[name] = clean(data[name], MAX_INFOTEXT)
    for name in ("position", "seed", "width", "height", "steps", "picture_index", "peak_memory", "parent"):
        number = _integer(data, name)
        if number is not None:
            values[name] = number
    for name in ("created", "cfg_scale"):
        number = data.get(name)
        if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) <= MAX_INTEGER:
            values[name] = float(number)
    if isinstance(data.get("path"), str):
        values["path"] = data["path"]
    if data.get("favourite") is True:
        values["favourite"] = True
    if data.get("state") in [state.value for state in State]:
        values["state"] = State(data["state"])
    if isinstance(data.get("tags"), list):
        values["tags"] = tuple(tag for tag in data["tags"] if isinstance(tag, str))
    for name in ("checkpoint", "vae"):
        values[name] = _model(data.get(name))
    if isinstance(data.get("networks"), list):
        values["networks"] = tuple(m for m in map(_model, data["networks"]) if m)
    for name, kind in (("environment", str), ("seconds", int | float), ("changes", object)):
        if isinstance(data.get(name), dict):
            entries = list(data[name].items())[:100]
            values[name] = {clean(k, 100): _plain(v) for k, v in entries if isinstance(v, kind)}
    return Record(**values)


def _plain(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A JSON value that can be stored and told again. Raises `InvalidParams` for what no record has."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float) and abs(value) <= MAX_INTEGER:  # NaN is not
        return value
    if isinstance(value, list) and depth:
        return [_plain(one, depth - 1) for one in value]
    if isinstance(value, dict) and depth:
        return {clean(key, 100): _plain(one, depth - 1) for key, one in value.items()}
    raise InvalidParams("The line has a value that cannot be stored.")


def _integer(data: dict[str, Any], name: str) -> int | None:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_INTEGER:
        return None
    return value


def _model(data: Any) -> UsedModel | None:
    if not isinstance(data, dict) or not all(isinstance(data.get(key), str) for key in ("kind", "name")):
        return None
    sha256 = data.get("sha256", "")
    return _clean_model(UsedModel(data["kind"], data["name"], sha256 if isinstance(sha256, str) else ""))
