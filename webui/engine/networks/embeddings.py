"""Textual inversion: vectors that stand for a name in the prompt (Gal et al. 2022, "An Image is Worth One Word").

`load_embedding` reads every format that users have; `inserted` puts the vectors where the text encoder looks tokens up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from webui.catalog import ModelFile
from webui.catalog.adapters import bundled_tables
from webui.catalog.components import MAX_VECTORS, PAIRS
from webui.catalog.picture_embedding import read_picture_embedding
from webui.catalog.scan import PICTURE_SUFFIXES
from webui.engine.files.weights import Weights, open_weights
from webui.errors import BadModelFile

_INFORMATION = ("string_to_token", "name", "step")
_OUTPUT = "_out"  # vectors that OneTrainer trains for behind the token table


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vectors of one name: `tables` has (n, width) for each text encoder of the model they are made for, in fp32.

    `key` is equal for equal content.
    """

    name: str
    tables: tuple[Tensor, ...]
    key: Hashable

    @property
    def vectors(self) -> int:
        return int(self.tables[0].shape[0])

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(int(table.shape[1]) for table in self.tables)

    def why_not(self, widths: Sequence[int]) -> str:
        """Why it does not go with text encoders of these widths, "" when it does."""
        if self.widths != tuple(widths):
            made, has = (" and ".join(map(str, w)) for w in (self.widths, widths))
            return f"it is made for a model with {made} numbers a token, this model has {has}"
        if self.vectors > MAX_VECTORS:
            return f"it has {self.vectors:,} vectors; a part of a prompt holds {MAX_VECTORS}"
        return ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The embeddings that a LoRA's file brings with it. `problems`: (name, why) of those that cannot be used."""

    embeddings: tuple[Embedding, ...]
    problems: tuple[tuple[str, str], ...]


def load_embedding(model: ModelFile, *, allow_pickle: bool, cache_dir: Path) -> Embedding:
    """Read the file. Raises `BadModelFile`, or `UnsafeFile` for a pickle that is not allowed or not harmless."""
    key = (str(model.path), model.fingerprint)
    if model.path.suffix.lower() in PICTURE_SUFFIXES:
        found = read_picture_embedding(model.path)
        return Embedding(found.name, (torch.from_numpy(found.vectors),), key)
    weights = open_weights(model.path, allow_pickle=allow_pickle, cache_dir=cache_dir)
    return Embedding(model.stem, tables_of({name: name for name in weights.tensors}, weights), key)


def bundled_embeddings(weights: Weights) -> Bundle:
    """Those inside of a LoRA. One that cannot be read does not keep the others, nor the LoRA, from acting."""
    found: list[Embedding] = []
    problems: list[tuple[str, str]] = []
    for name, tables in bundled_tables(weights.tensors).items():
        read = {table: tensor for table, tensor in tables.items() if not table.endswith(_OUTPUT)}
        if not read:
            problems.append((name, "The file holds output embeddings of it alone, which are not used here."))
            continue
        try:
            found.append(Embedding(name, tables_of(read, weights), (str(weights.path), weights.fingerprint, name)))
        except BadModelFile as error:
            problems.append((name, error.message))
    return Bundle(tuple(found), tuple(problems))


def tables_of(names: Mapping[str, str], weights: Weights) -> tuple[Tensor, ...]:
    """The tables under the names that the formats give them; `names` maps those to tensors of the file.

    `emb_params` (safetensors), `string_to_param.*` (AUTOMATIC1111's .pt), a single tensor under the concept's own name
    (diffusers), or two for SDXL. Raises `BadModelFile` when there is no table, or more than one that could be meant.
    """
    pair = next((pair for pair in PAIRS if all(name in names for name in pair)), None)
    if pair is not None:
        tables = tuple(_table(weights, names[name]) for name in pair)
        if tables[0].shape[0] != tables[1].shape[0]:
            raise BadModelFile("The two halves of the embedding have different numbers of vectors.")
        return tables
    named = [n for n in names if n == "emb_params" or n.startswith("string_to_param.")]
    candidates = named or [n for n in names if not n.startswith(_INFORMATION)]
    if len(candidates) != 1:
        raise BadModelFile(f"The file holds {len(candidates)} tables of vectors; an embedding has one.")
    return (_table(weights, names[candidates[0]]),)


def _table(weights: Weights, name: str) -> Tensor:
    if not weights.is_float(name):
        raise BadModelFile("The embedding's vectors are not floating-point numbers.")
    table = weights.tensor(name).float().clone()
    table = table[None] if table.ndim == 1 else table
    if table.ndim != 2 or 0 in table.shape or not bool(torch.isfinite(table).all()):
        raise BadModelFile("The embedding's vectors are damaged.")
    return table


@contextlib.contextmanager
def inserted(encoder: Any, places: Sequence[tuple[int, Tensor]]) -> Iterator[None]:
    """While it lasts, `encoder` finds these vectors (n, width) from these token positions on, whatever the ids say."""
    if not places:
        yield
        return

    def put(_layer: Any, _inputs: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        for position, vectors in places:
            changed[:, position : position + vectors.shape[0]] = vectors.to(changed)
        return changed

    handle = encoder.get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()
