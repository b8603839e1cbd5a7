"""Which embeddings a plan's texts name, and which of them the request wants to be plain words."""

from __future__ import annotations

from collections.abc import Iterable

from webui.prompt.attention import Emphasis, parse_pieces
from webui.prompt.chunks import EmbeddingNames
from webui.prompt.plan import PromptPlan
from webui.prompt.tokenizer import ClipTokenizer


def names_in(
    plan: PromptPlan, names: Iterable[str], tokenizer: ClipTokenizer, *, emphasis: Emphasis, compatible: bool
) -> set[str]:
    """The names that stand in any text of the plan, found by their tokens as `chunk_text` finds them."""
    known = EmbeddingNames(dict.fromkeys(names, 1), tokenizer)
    if known.empty:
        return set()
    found: set[str] = set()
    for text in plan.texts():
        for piece in parse_pieces(text, emphasis=emphasis, compatible=compatible):
            found |= known.found_in(tokenizer.encode(piece.text))
    return found


def listed(name: str) -> str:
    """A name as it stands in a list with commas: without its own, in lower case as the tokenizer reads it."""
    return " ".join(name.replace(",", " ").split()).lower()


def words_of(read_as_words: str) -> frozenset[str]:
    """The names of such a list (`GenerationParams.read_as_words`), each as `listed` gives it."""
    return frozenset(listed(name) for name in read_as_words.split(",")) - {""}
