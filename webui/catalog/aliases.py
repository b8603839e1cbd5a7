"""Every way in which users name a checkpoint, and which file each name means."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from webui.catalog.models import ModelFile

_CHECKSUM = re.compile(r"\s*\[([^\]]*)\]\s*$")
_HASH = re.compile(r"[0-9a-f]{10,64}").fullmatch
_OLD_HASH = re.compile(r"[0-9a-f]{8}").fullmatch

# In the order of precedence: a name given in full is never taken by another file's shorter alias.
_ALIASES: tuple[Callable[[ModelFile], str | None], ...] = (
    lambda m: m.name,
    lambda m: m.title,
    lambda m: f"{m.stem} [{m.short_hash}]" if m.sha256 else None,
    # Many files can share an old hash, so the name beside it counts.
    lambda m: f"{m.name} [{m.old_hash}]" if m.old_hash else None,
    lambda m: f"{m.stem} [{m.old_hash}]" if m.old_hash else None,
    lambda m: m.name_without_suffix,
    lambda m: m.model_name,
    lambda m: m.stem,
    lambda m: m.path.name,
    lambda m: m.sha256,
    lambda m: m.short_hash,
    lambda m: m.old_hash,
)


class AliasIndex:
    """The names of one list of models. Where several files share an alias, one that runs is meant, else the first."""

    def __init__(self, models: Sequence[ModelFile]) -> None:
        self._models = sorted(models, key=lambda m: not m.runnable)  # stable: the list's order stays
        self._exact: dict[str, ModelFile] = {}
        self._folded: dict[str, ModelFile] = {}
        for alias_of in _ALIASES:
            for model in self._models:
                alias = alias_of(model)
                if alias:
                    self._exact.setdefault(alias, model)
                    self._folded.setdefault(_fold(alias), model)

    def find(self, text: str) -> ModelFile | None:
        """The model that `text` names: an alias, else the [hash] of a file that was renamed, else the shortest title
        that contains it."""
        checksum = _CHECKSUM.search(text)
        digest = checksum[1].strip().lower() if checksum else ""
        renamed = self.exact(digest) if _HASH(digest) or _OLD_HASH(digest) else None
        return self.exact(text) or renamed or self._partly(text.strip())

    def exact(self, text: str) -> ModelFile | None:
        """The model that has this very alias, in any case."""
        found = self._exact.get(text)
        text = text.strip()
        if found is None and text:
            found = self._exact.get(text) or self._folded.get(_fold(text))
        if found is None and looks_like_hash(text):
            found = next((m for m in self._models if m.sha256 and m.sha256.startswith(text.lower())), None)
        return found

    def _partly(self, text: str) -> ModelFile | None:
        without = _CHECKSUM.sub("", text)  # a hash of another version of the file
        return self._containing(text) or self._exact.get(without) or self._containing(without)

    def known(self) -> list[str]:
        """What to compare a mistyped name with."""
        return [name for m in self._models for name in dict.fromkeys((m.name, m.stem))]

    def _containing(self, part: str) -> ModelFile | None:
        titles = [m for m in self._models if part and part in m.title]
        return min(titles, key=lambda m: (not m.runnable, len(m.title)), default=None)


def looks_like_hash(text: str) -> bool:
    """Whether it may be a sha256, whole or cut to at least 10 digits."""
    return _HASH(text.strip().lower()) is not None


def natural_key(name: str) -> tuple[list[tuple[int, int]], str]:
    """Sorts "v2" before "v10", without regard to case; the name itself keeps the order of twins stable."""
    tokens = re.findall(r"[0-9]+|[^0-9]", _fold(name))
    return [(ord("0"), int(t)) if t[0] in "0123456789" else (ord(t), 0) for t in tokens], name


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
