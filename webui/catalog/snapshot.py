"""One look at the folders: which models there are, as one immutable value."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from webui.catalog.aliases import AliasIndex, natural_key
from webui.catalog.cache import Fingerprint, kept, parse_facts
from webui.catalog.inspection import Facts, inspect, model_file
from webui.catalog.models import ModelFile
from webui.catalog.scan import Found, Role, find_models, is_near_vae
from webui.catalog.vae_choice import listing
from webui.paths import Paths

Key = tuple[str, Role]  # a path and what its folder is for
Models = tuple[ModelFile, ...]


@dataclass(frozen=True)
class Snapshot:
    """One consistent view. Tuples are in natural order of names."""

    checkpoints: Models = ()
    vaes: Models = ()
    loras: Models = ()
    embeddings: Models = ()
    upscalers: Models = ()
    face_restorers: Models = ()
    controlnets: Models = ()
    hypernetworks: Models = ()
    vae_order: Models = field(default=(), repr=False)  # the VAEs in the order of precedence
    problems: tuple[str, ...] = ()  # folders that could not be searched
    index: AliasIndex = field(default_factory=lambda: AliasIndex(()), repr=False, compare=False)

    def with_hash(self, model: ModelFile, sha256: str) -> Snapshot:
        """The same view with one model's hash known, wherever the model, unchanged since, is listed."""

        def updated(models: Models) -> Models:
            return tuple(
                replace(m, sha256=sha256) if m.path == model.path and m.fingerprint == model.fingerprint else m
                for m in models
            )

        lists: dict[str, Any] = {
            f.name: updated(getattr(self, f.name)) for f in fields(self) if f.name not in ("problems", "index")
        }
        return replace(self, **lists, index=AliasIndex(lists["checkpoints"]))


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known about a model while its stamp is the same."""

    stamp: str
    facts: Facts


class Reading:
    """Turns found files into models: from an earlier look, from the cache, or by reading the file."""

    def __init__(
        self,
        earlier: Mapping[Key, Seen],
        stored: Mapping[tuple[str, str], tuple[str, str]],
        digests: Mapping[str, tuple[Fingerprint, str]],
    ) -> None:
        self._earlier = earlier
        self._stored = stored
        self._digests = digests
        self.seen: dict[Key, Seen] = {}
        self.looks: dict[Key, str] = {}  # how each file looked, also one that could not be read
        self.fresh: list[tuple[str, str, str, Facts]] = []  # rows for the cache

    def models(self, found: Iterable[Found]) -> list[ModelFile]:
        """A record for each file; one that was found in two folders is listed once."""
        models: dict[str, ModelFile] = {}
        for item in found:
            path = os.fspath(item.path)
            if path not in models:
                self.looks[path, item.role] = item.look
                models[path] = model_file(item, self._facts(path, item), self._sha256(path, item))
        return list(models.values())

    def _facts(self, path: str, item: Found) -> Facts:
        key = (path, item.role)
        known = self._earlier.get(key)
        if known is not None and known.stamp == item.stamp:
            facts = known.facts
        else:
            stamp, text = self._stored.get(key, ("", ""))
            stored = parse_facts(text) if stamp == item.stamp else None
            facts = stored or inspect(item)
            if stored is None and facts.lasting:
                self.fresh.append((*key, item.stamp, facts))
        if facts.lasting:
            self.seen[key] = Seen(item.stamp, facts)
        return facts

    def _sha256(self, path: str, item: Found) -> str | None:
        fingerprint, digest = self._digests.get(path, ((0, 0, 0), ""))
        return digest if digest and fingerprint == kept((item.size, item.mtime_ns, item.inode)) else None


def take_snapshot(paths: Paths, read: Callable[[Iterable[Found]], list[ModelFile]]) -> Snapshot:
    """Search all folders of `paths`; `read` turns what was found into models."""
    problems: list[str] = []

    def search(folders: Iterable[Path], role: Role) -> list[list[Found]]:
        groups = []
        for folder in folders:
            found, unread = find_models(folder, role)
            problems.extend(unread)
            groups.append(found)
        return groups

    def listed(folders: Iterable[Path], role: Role) -> Models:
        return _listed(read(item for group in search(folders, role) for item in group))

    files = [item for group in search(paths.checkpoints, "checkpoint") for item in group]
    checkpoints = _listed(read(item for item in files if not is_near_vae(item.name)))
    beside = read(replace(item, role="vae") for item in files if is_near_vae(item.name))
    order = listing([read(group) for group in search(paths.vaes, "vae")], beside)
    return Snapshot(
        checkpoints=checkpoints,
        vaes=tuple(sorted(order, key=lambda v: natural_key(v.name))),
        loras=listed(paths.loras, "lora"),
        embeddings=listed(paths.embeddings, "embedding"),
        upscalers=listed(paths.upscalers, "upscaler"),
        face_restorers=listed(paths.face_restorers, "face_restorer"),
        controlnets=listed(paths.controlnets, "controlnet"),
        hypernetworks=listed(paths.hypernetworks, "hypernetwork"),
        vae_order=tuple(order),
        problems=tuple(dict.fromkeys(problems)),
        index=AliasIndex(checkpoints),
    )


def _listed(models: list[ModelFile]) -> Models:
    """In natural order. Of two files with one name in two folders, the second is listed as hidden by the first."""
    names: set[str] = set()
    unique: list[ModelFile] = []
    for model in models:
        if model.name in names:
            hidden = "Another file of this name, in a folder that comes first, is used."
            model = replace(model, runnable=False, reason=hidden)
        names.add(model.name)
        unique.append(model)
    return tuple(sorted(unique, key=lambda m: natural_key(m.name)))
