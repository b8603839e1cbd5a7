"""Completion of names while a prompt is typed: a few keystrokes find a LoRA, embedding, wildcard or style."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from webui.api.responses import CompletionView
from webui.catalog.lookup import embedding_name, tag_names
from webui.prompt import StyleBook, list_wildcards, written

if TYPE_CHECKING:
    from webui.catalog import Catalog

KINDS = ("lora", "embedding", "hypernet", "wildcard", "style")
SHOWN = 20
_NOTE = 80  # characters of a style's text that are shown


def complete(
    query: str, kinds: list[str], catalog: Catalog, styles: StyleBook, wildcards: Path
) -> list[CompletionView]:
    """The best `SHOWN` names for `query`: those that begin with it, then those with a word that does, then those that
    hold it, then those that hold its letters in order. Equal ones keep the order of their lists."""
    folded = query.strip().casefold()
    ranked = [
        (rank, entry)
        for kind in kinds
        for entry in _entries(kind, catalog, styles, wildcards)
        if (rank := _rank(folded, entry.label.casefold())) is not None
    ]
    return [entry for _, entry in sorted(ranked, key=lambda pair: pair[0])[:SHOWN]]


def _rank(query: str, name: str) -> tuple[int, int] | None:
    """Smaller is better; None for a name that does not fit. Linear in the name."""
    if not query:
        return 0, 0
    place = name.find(query)
    if place == 0:
        return 0, len(name)
    if place > 0:
        return (1 if not name[place - 1].isalnum() else 2), place
    letters = iter(name)
    return (3, len(name)) if len(query) > 1 and all(letter in letters for letter in query) else None


def _entries(kind: str, catalog: Catalog, styles: StyleBook, wildcards: Path) -> Iterator[CompletionView]:
    if kind == "lora":
        names = tag_names(catalog.loras)
        for lora in catalog.loras:
            name = names[lora.name]
            weight, words = 1.0, ""
            if lora.notes is not None:
                weight, words = lora.notes.preferred_weight or 1.0, lora.notes.activation_text.strip()
            insert = f"<lora:{written(name)}:{weight:g}>{f' {words}' if words else ''}"
            note = lora.reason or str(lora.family)
            yield CompletionView(kind=kind, label=name, insert=insert, note=note)
    elif kind == "hypernet":
        names = tag_names(catalog.hypernetworks)
        for network in catalog.hypernetworks:
            name, note = names[network.name], network.reason or str(network.family)
            yield CompletionView(kind=kind, label=name, insert=f"<hypernet:{written(name)}:1>", note=note)
    elif kind == "embedding":
        for embedding in catalog.embeddings:
            note = embedding.reason or ", ".join(part for part in (str(embedding.family), embedding.variant) if part)
            name = embedding_name(embedding)
            yield CompletionView(kind=kind, label=name, insert=name, note=note)
    elif kind == "wildcard":
        for name in list_wildcards(wildcards):
            yield CompletionView(kind=kind, label=name, insert=f"__{name}__", note="")
    elif kind == "style":
        for style in styles.read()[0]:
            note = (style.prompt or style.negative_prompt).replace("\n", " ")[:_NOTE]
            yield CompletionView(kind=kind, label=style.name, insert="", note=note)
