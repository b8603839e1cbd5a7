"""Which LoRA or embedding a name in a prompt means, or a hash in a parameters text."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from webui.catalog.models import ModelFile
from webui.names import AUTOMATIC

EMBEDDING_NAME = "sd-ti-embedding.name"  # the catalog's entry for what stands inside of a picture
BUNDLED = "webui.bundled_embeddings"  # the catalog's entry for those in a LoRA: {name: [vectors, width]} in JSON
FACE_MAKES = ("gfpgan", "restoreformer", "codeformer")
_MIN_DIGITS = 8  # of a hash; fewer could be any file
_HASH = re.compile(r"[0-9a-f]{10,64}").fullmatch


class _Named(Protocol):
    """What of a `ModelFile` a tag's name depends on."""

    @property
    def name(self) -> str: ...
    @property
    def stem(self) -> str: ...


def tag_names(models: Iterable[_Named]) -> dict[str, str]:
    """What a `<lora:NAME>` or `<hypernet:NAME>` tag calls each file, by the file's name.

    That is its stem, and with its folder where another file of the list has that stem; `find_network` finds it by that.
    """
    files = [(model.name, (model.stem, _without_suffix(model), model.name)) for model in models]
    first: dict[str, str] = {}
    for name, known in files:
        for one in known:
            first.setdefault(one, name)
    stems = Counter(stem for _, (stem, *_) in files)
    return {
        name: next((one for one in (known[1:] if stems[known[0]] > 1 else known) if first[one] == name), name)
        for name, known in files
    }


def _without_suffix(model: _Named) -> str:
    head, slash, _ = model.name.rpartition("/")
    return f"{head}{slash}{model.stem.rpartition('/')[2]}"


def lora_names(model: ModelFile) -> tuple[str, ...]:
    """Every name that a `<lora:NAME>` tag may use for the file: its stem, its path, the name given in training."""
    return tuple(dict.fromkeys((model.stem, model.name_without_suffix, *_alias(model))))


def embedding_name(model: ModelFile) -> str:
    """The word that means the embedding in a prompt: the file's stem, or what a picture that holds one calls it."""
    return model.metadata.get(EMBEDDING_NAME, "") or model.stem


def vectors_in(embedding: ModelFile) -> int:
    """How many tokens of a prompt the embedding takes, as its header says; 0 where it does not."""
    count = embedding.variant.partition(" ")[0]
    return int(count) if count.isdecimal() else 0


def embedding_vectors(embeddings: Iterable[ModelFile], checkpoint: ModelFile | None = None) -> dict[str, int]:
    """The vectors of each name that a prompt for `checkpoint` (None: any) may hold; the first file of a name counts.

    An embedding of another width than the checkpoint's prompts is read as words, so it is left out.
    """
    vectors: dict[str, int] = {}
    for embedding in embeddings:
        if checkpoint is None or embedding.context_dim == checkpoint.context_dim:
            vectors.setdefault(embedding_name(embedding), vectors_in(embedding))
    return vectors


def bundled_vectors(lora: ModelFile, checkpoint: ModelFile | None = None) -> dict[str, int]:
    """The same of the embeddings that a LoRA brings with it, which are known while a prompt names the LoRA."""
    try:
        bundled = json.loads(lora.metadata.get(BUNDLED, "{}"))
        sizes = {str(name): (int(vectors), int(width)) for name, (vectors, width) in bundled.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):  # a file's own entry of that name
        return {}
    dim = None if checkpoint is None else checkpoint.context_dim
    return {name: vectors for name, (vectors, width) in sizes.items() if dim in (None, width)}


def find_network(models: Sequence[ModelFile], name: str) -> ModelFile | None:
    """The file that a prompt means by `name`; upper and lower case count only where two files differ in nothing else.

    A file's own name comes before the names that were given in training; of those, one that two files share names
    neither. A hash, or the beginning of one, is a name, too.
    """
    folded = name.strip().casefold()
    for fold in (False, True):
        for model in models:
            own = (model.stem, model.name_without_suffix, model.name, embedding_name(model))
            if (folded in (known.casefold() for known in own)) if fold else (name in own):
                return model
    aliased = [model for model in models if folded in (alias.casefold() for alias in _alias(model))]
    if len(aliased) == 1:
        return aliased[0]
    return with_hash(models, name) if _HASH(folded) else None


def find_restorer(models: Sequence[ModelFile], name: str) -> ModelFile | None:
    """The face restoration model that a name means: its own, or that of its make ("CodeFormer"), or "Automatic".

    Files with a make's name come before others: people keep the detectors of other programs in that folder, too.
    """
    exact = find_network(models, name) or with_hash(models, name)
    makes = FACE_MAKES if name == AUTOMATIC else (name.strip().casefold(),)
    named = (model for make in makes if make for model in models if model.path.name.casefold().startswith(make))
    rest = (model for model in models if name == AUTOMATIC and model.runnable)
    return exact or next(named, None) or next(rest, None)


def with_hash(models: Iterable[ModelFile], digest: str) -> ModelFile | None:
    """The file whose known sha256 begins with `digest`, or whose training program wrote that hash into it."""
    digest = digest.strip().lower()
    if len(digest) < _MIN_DIGITS:
        return None
    for model in models:
        known = (model.sha256 or "", model.old_hash or "", *(model.metadata.get(key, "") for key in _HASH_KEYS))
        if any(value.lower().removeprefix("0x").startswith(digest) for value in known):
            return model
    return None


_HASH_KEYS = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")


def _alias(model: ModelFile) -> tuple[str, ...]:
    alias = model.metadata.get("ss_output_name", "").strip()
    return (alias,) if alias and alias != "None" else ()
