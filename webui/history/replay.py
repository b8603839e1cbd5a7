"""Making a picture again: from its row to exact params, with the models found by their hashes wherever they now lie.

A batch equals its singles (each picture has its own generator), so any picture of a batch is replayed alone. On the
same machine and versions the result has the same pixels; `comparison` says whether it has, and if not, why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from webui.catalog.lookup import tag_names
from webui.errors import InvalidParams, ModelNotFound, UnsupportedModel
from webui.history.later import as_then, with_words
from webui.history.records import Record
from webui.names import AUTOMATIC
from webui.params import GenerationParams, params_from_json
from webui.prompt import rename_networks
from webui.provenance import UsedModel

_NETWORKS: dict[str, Callable[[Any], Sequence[Any]]] = {
    "lora": lambda models: models.loras,
    "embedding": lambda models: models.embeddings,
    "hypernetwork": lambda models: models.hypernetworks,
}
# Files that an operation names: (the list they are in, the operations, their fields).
_OF_OPERATIONS: dict[str, tuple[Callable[[Any], Sequence[Any]], tuple[str, ...], tuple[str, ...]]] = {
    "hires checkpoint": (lambda models: models.checkpoints, ("hires",), ("checkpoint",)),
    "upscaler": (lambda models: models.upscalers, ("hires", "sd_upscale", "extras"), ("upscaler", "upscaler_2")),
    "face restorer": (lambda models: models.face_restorers, ("faces",), ("model", "model_2")),
}
# With one of these changed, the names in the prompts are meant anew.
_OWN_WORDS = frozenset({"prompt", "negative_prompt", "read_as_words"})
_PROMPTS = ("prompt", "negative_prompt")  # of a pass
HASH_BUDGET = 8 * 2**30  # bytes of files without a known hash that are read to find a model
BAKED = "None"  # the VAE selection that means the one in the checkpoint
_STOPPED = re.compile(r"\bStopped at step: (\d+)")


class Model(Protocol):
    """What is needed of `catalog.ModelFile`."""

    @property
    def name(self) -> str: ...
    @property
    def stem(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> str | None: ...


class Models(Protocol):
    """What is needed of `catalog.Catalog`."""

    @property
    def checkpoints(self) -> Sequence[Any]: ...
    @property
    def vaes(self) -> Sequence[Any]: ...
    @property
    def loras(self) -> Sequence[Any]: ...
    @property
    def embeddings(self) -> Sequence[Any]: ...
    @property
    def upscalers(self) -> Sequence[Any]: ...
    @property
    def face_restorers(self) -> Sequence[Any]: ...
    def sha256(self, model: Any, wait: bool = True) -> str: ...
    def addnet_hash(self, model: Any, wait: bool = True) -> str: ...
    def resolve_vae(self, checkpoint: Any, selection: str, overrides_preferences: bool = True) -> Any: ...


@dataclass(frozen=True, slots=True)
class MissingModel:
    """A file that went into the picture and is not here; `reason` is one sentence."""

    kind: str
    name: str
    sha256: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What to queue. `relation`: "replay" for the same picture, "variation" with `changes`.

    `missing`: without these files the result will be another one (without the checkpoint there is none). `notes`:
    sentences about what was found elsewhere or cannot be the same.
    """

    params: GenerationParams
    relation: str
    changes: dict[str, Any]
    missing: tuple[MissingModel, ...]
    notes: tuple[str, ...]

    def require_complete(self) -> GenerationParams:
        """The params. Raises `ModelNotFound` that names every missing file."""
        if self.missing:
            names = ", ".join(f"{m.kind} {m.name}{f' [{m.sha256[:10]}]' if m.sha256 else ''}" for m in self.missing)
            raise ModelNotFound(
                f"Not here any more: {names}.", "Put the file back (any folder and name will do), or replay without it."
            )
        return self.params


def exact_params(record: Record) -> GenerationParams:
    """The params that make this picture alone. Raises `InvalidParams` when the row does not know them."""
    if not record.params:
        raise InvalidParams(
            "This picture does not say how it was made.", "Only pictures with complete parameters can be replayed."
        )
    try:
        return params_from_json(record.params).single(record.picture_index)
    except InvalidParams as error:
        raise InvalidParams(
            f"The picture's parameters cannot be used by this version: {error.message}",
            "Send them to the form instead.",
        ) from None


def plan_replay(record: Record, models: Models, changes: Mapping[str, Any] | None = None) -> ReplayPlan:
    """How to make the picture again, or with some fields of the params changed. Raises `InvalidParams`."""
    changes = dict(changes or {})
    unknown = [name for name in changes if name not in GenerationParams.model_fields]
    if unknown:
        raise InvalidParams(f'There is no parameter "{unknown[0][:80]}".', "Name fields of the generation parameters.")
    params = exact_params(record)
    missing: list[MissingModel] = []
    notes: list[str] = []
    fields: dict[str, Any] = {}
    checkpoint: Any = None
    if "checkpoint" not in changes:
        checkpoint = _find(record.checkpoint, models.checkpoints, models, missing, notes)
        if checkpoint is not None:
            fields["checkpoint"] = checkpoint.name
    if checkpoint is not None and "vae" not in changes:
        fields["vae"] = _vae_selection(record, params, checkpoint, models, missing, notes)
    embeddings: list[Any] = []
    for network in record.networks:
        if network.kind == "refiner" and "refiner" not in changes:
            refiner = _find(network, models.checkpoints, models, missing, notes)
            fields["refiner"] = refiner.name if refiner is not None else params.refiner
        if network.kind in _OF_OPERATIONS:
            fields |= _operations(params, changes, fields, network, models, missing, notes)
        if network.kind not in _NETWORKS:
            continue
        files = _NETWORKS[network.kind](models)
        found = _find(network, files, models, missing, notes)
        if found is None:
            continue
        if network.kind == "embedding":
            embeddings.append(found)
        present = found.stem if network.kind == "embedding" else tag_names(files)[found.name]
        for name in _PROMPTS:
            if name not in changes:
                fields[name] = _renamed(fields.get(name, getattr(params, name)), network, present)
        if params.hires is not None and "hires" not in changes:
            hires = fields.get("hires") or params.hires.model_dump()
            fields["hires"] = {**hires, **{name: _renamed(hires[name], network, present) for name in _PROMPTS}}
    if not record.source and not _OWN_WORDS & set(changes):
        words = as_then(params.changed(**fields), models.embeddings, embeddings, checkpoint)
        if words:
            fields["read_as_words"] = with_words(params.read_as_words, words)
            notes.append(f"Read as words, as then: {', '.join(words)} (an embedding has that name now).")
    stopped = _STOPPED.search(record.infotext.rpartition("\n")[2])
    if stopped:
        notes.append(f"The picture was interrupted at step {stopped[1]}; the replay runs to the end.")
    if record.source:
        notes.append(f"The picture was made by another program ({record.source}); it can only come close.")
    return ReplayPlan(
        params=params.changed(**{**fields, **_typed(changes)}),
        relation="variation" if changes else "replay",
        changes=changes,
        missing=tuple(missing),
        notes=tuple(notes),
    )


def _typed(changes: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples, and whole numbers where a field is a float."""
    typed = dict(changes)
    for name, value in changes.items():
        if isinstance(value, list):
            typed[name] = tuple(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            annotation = str(GenerationParams.model_fields[name].annotation)
            try:
                typed[name] = float(value) if "float" in annotation else value
            except OverflowError:
                raise InvalidParams(f'"{name}" is too large a number.', "Choose a smaller one.") from None
    return typed


def _vae_selection(
    record: Record,
    params: GenerationParams,
    checkpoint: Any,
    models: Models,
    missing: list[MissingModel],
    notes: list[str],
) -> str:
    """The setting that leads to the VAE the picture was decoded with: the picture's own one where it still does."""
    if record.vae is None and not record.environment:
        return params.vae  # read from a file: no VAE in its text can mean the baked one or an unknown one
    wanted = _find(record.vae, models.vaes, models, missing, notes) if record.vae else None
    if record.vae and wanted is None:
        return AUTOMATIC
    try:
        chosen = models.resolve_vae(checkpoint, params.vae).file
    except (ModelNotFound, UnsupportedModel):
        chosen = False
    if chosen is not False and (chosen.name if chosen else None) == (wanted.name if wanted else None):
        return params.vae
    return wanted.name if wanted else BAKED


def _operations(
    params: GenerationParams,
    changes: Mapping[str, Any],
    changed: Mapping[str, Any],
    used: UsedModel,
    models: Models,
    missing: list[MissingModel],
    notes: list[str],
) -> dict[str, Any]:
    """The operations that name `used`, with the name that it has now. `changed`: how far they were changed before."""
    listed, operations, names = _OF_OPERATIONS[used.kind]
    fields: dict[str, Any] = {}
    found: Any = None
    for operation in operations:
        group = getattr(params, operation)
        if group is None or operation in changes:
            continue
        values = changed.get(operation) or group.model_dump()
        named = [name for name in names if values.get(name) in (used.name, _stem(used.name))]
        if not named:
            continue
        found = found or _find(used, listed(models), models, missing, notes)
        if found is None:
            break
        if found.name != used.name:
            values = {**values, **dict.fromkeys(named, found.name)}
        fields[operation] = values
    return fields


def _find(
    used: UsedModel | None, files: Sequence[Any], models: Models, missing: list[MissingModel], notes: list[str]
) -> Any:
    """The file with the hash of `used`, else the one of its name if nothing contradicts; None and a note if neither."""
    if used is None:
        return None
    named = [m for m in files if used.name in (m.name, m.stem)] or [m for m in files if _stem(used.name) == m.stem]
    if not used.sha256:
        if named:
            notes.append(f"The hash of {used.kind} {used.name} is not known; the file of that name was taken.")
            return named[0]
        missing.append(MissingModel(used.kind, used.name, "", "No file has that name, and its hash is not known."))
        return None
    for model in [*named, *(m for m in files if m not in named)]:
        if _has_hash(model, used, models, wait=False):
            if model not in named:
                notes.append(f"The {used.kind} {used.name} was found as {model.name}.")
            return model
    unread, budget = [m for m in files if not m.sha256], HASH_BUDGET
    for model in [*(m for m in named if m in unread), *sorted(unread, key=lambda m: int(m.size))]:
        budget -= model.size
        if budget < 0:
            break
        if _has_hash(model, used, models, wait=True):
            notes.append(f"The {used.kind} {used.name} was found as {model.name}.")
            return model
    reason = "A file of that name is here, but with other content." if named else "No file here has its hash."
    missing.append(MissingModel(used.kind, used.name, used.sha256, reason))
    return None


def _has_hash(model: Any, used: UsedModel, models: Models, *, wait: bool) -> bool:
    """Whether the file's sha256 begins with the known digits; LoRAs may be known by the hash of their tensors alone."""
    try:
        if (models.sha256(model, wait) if wait else model.sha256 or "").startswith(used.sha256):
            return True
        return used.kind == "lora" and models.addnet_hash(model, wait).startswith(used.sha256)
    except (ModelNotFound, UnsupportedModel, OSError):
        return False


def _stem(name: str) -> str:
    file = name.rpartition("/")[2]
    return file.rpartition(".")[0] or file


def _renamed(prompt: str, used: UsedModel, present: str) -> str:
    """The prompt with the network under its present name, in tags or, an embedding's, wherever the word stands."""
    stem = _stem(used.name)
    if used.kind == "embedding":
        if stem == present:
            return prompt
        return re.sub(rf"(?<!\w){re.escape(stem)}(?!\w)", lambda _: present, prompt, flags=re.IGNORECASE)
    names = {name.casefold() for name in (used.name, used.name.rpartition(".")[0] or stem, stem)}
    tag = "hypernet" if used.kind == "hypernetwork" else "lora"
    return rename_networks(prompt, lambda kind, name: present if kind == tag and name.casefold() in names else None)
