"""Chunks: the text encoder reads 75 tokens at a time, with BOS before and EOS after; long prompts are several chunks.

BREAK ends a chunk early; a phrase that would be cut moves to the next chunk when the last comma is near (the comma
backtrack); a textual-inversion embedding is never cut. Layout and rules are AUTOMATIC1111's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from webui.prompt.attention import Emphasis, parse_pieces
from webui.prompt.comments import strip_comments
from webui.prompt.composable import split_and
from webui.prompt.limits import MAX_CHUNKS
from webui.prompt.networks import strip_networks
from webui.prompt.schedule import scheduled_texts
from webui.prompt.tokenizer import BOS, EOS, ClipTokenizer

CHUNK = 75  # tokens of text in a chunk
DEFAULT_COMMA_BACKTRACK = 20  # tokens


@dataclass(frozen=True, slots=True)
class PlacedEmbedding:
    """`vectors` vectors of the embedding `name` replace the tokens from `position` on (0 is BOS)."""

    position: int
    name: str
    vectors: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """77 token numbers and their emphasis weights; BOS, EOS and padding weigh 1. Embeddings stand over zeros."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    embeddings: tuple[PlacedEmbedding, ...] = ()


class EmbeddingNames:
    """The textual-inversion names that are known, to be found in a prompt by their tokens, the longest first."""

    def __init__(self, vectors: Mapping[str, int], tokenizer: ClipTokenizer) -> None:
        """`vectors`: how many vectors each name has. Names of no tokens or vectors are left out."""
        self._by_first: dict[int, list[tuple[tuple[int, ...], str, int]]] = {}
        for name, count in vectors.items():
            ids = tuple(tokenizer.encode(name))
            if ids and 0 < count <= CHUNK:
                self._by_first.setdefault(ids[0], []).append((ids, name, count))
        for entries in self._by_first.values():
            entries.sort(key=lambda entry: -len(entry[0]))

    @property
    def empty(self) -> bool:
        """Whether there is no name to be found."""
        return not self._by_first

    def found_in(self, ids: list[int]) -> set[str]:
        """Every name that stands anywhere in a text, also one that a longer name would take the place of."""
        return {
            name
            for position, first in enumerate(ids)
            for name_ids, name, _ in self._by_first.get(first, ())
            if tuple(ids[position : position + len(name_ids)]) == name_ids
        }

    def at(self, ids: list[int], position: int) -> tuple[str, int, int] | None:
        """(name, vectors, tokens) of the embedding whose name begins at `position`, or None."""
        for name_ids, name, vectors in self._by_first.get(ids[position], ()):
            if tuple(ids[position : position + len(name_ids)]) == name_ids:
                return name, vectors, len(name_ids)
        return None


class _Filler:
    """Fills one chunk after the other."""

    def __init__(self, pad: int) -> None:
        self.pad = pad
        self.chunks: list[Chunk] = []
        self.tokens = 0  # as the counter counts: a chunk that was closed early counts in full
        self._start()

    def _start(self) -> None:
        self.ids: list[int] = []
        self.weights: list[float] = []
        self.embeddings: list[PlacedEmbedding] = []
        self.last_comma = -1

    def close(self, last: bool = False) -> None:
        self.tokens += len(self.ids) if last else CHUNK
        missing = CHUNK - len(self.ids)
        # The text ends with EOS; what follows it is padding (EOS again for CLIP-L, 0 for OpenCLIP).
        tail = [EOS, *[self.pad] * missing]
        self.chunks.append(
            Chunk((BOS, *self.ids, *tail), (1.0, *self.weights, *[1.0] * (missing + 1)), tuple(self.embeddings))
        )
        self._start()

    def add(self, token: int, weight: float) -> None:
        self.ids.append(token)
        self.weights.append(weight)

    def move_after_comma(self) -> None:
        """Close the chunk after its last comma; what followed the comma opens the next one."""
        cut = self.last_comma + 1
        ids, weights = self.ids[cut:], self.weights[cut:]
        moved = [entry for entry in self.embeddings if entry.position > cut]
        self.ids, self.weights = self.ids[:cut], self.weights[:cut]
        self.embeddings = [entry for entry in self.embeddings if entry.position <= cut]
        self.close()
        self.ids, self.weights = ids, weights
        self.embeddings = [PlacedEmbedding(e.position - cut, e.name, e.vectors) for e in moved]


def chunk_text(
    text: str,
    tokenizer: ClipTokenizer,
    *,
    emphasis: Emphasis = "Original",
    comma_backtrack: int = DEFAULT_COMMA_BACKTRACK,
    compatible: bool = False,
    pad: int = EOS,
    embeddings: EmbeddingNames | None = None,
) -> list[Chunk]:
    """The chunks of one scheduled text (see `webui.prompt.plan`); an empty text is one chunk.

    `pad` fills what is left of a chunk after EOS: 49407 for CLIP-L, 0 for OpenCLIP. At most `MAX_CHUNKS` chunks are
    made; `is_cut` tells whether that is less than all. Raises `InvalidParams` as `parse_pieces` does.
    """
    chunks, _ = _fill(text, tokenizer, emphasis, comma_backtrack, compatible, pad, embeddings)
    return chunks


def count_tokens(
    text: str,
    tokenizer: ClipTokenizer,
    *,
    steps: int = 20,
    emphasis: Emphasis = "Original",
    comma_backtrack: int = DEFAULT_COMMA_BACKTRACK,
    compatible: bool = False,
    embeddings: EmbeddingNames | None = None,
    negative: bool = False,
) -> tuple[int, int]:
    """(tokens, room): what the counter beside the prompt shows, for example (12, 75).

    Comments and network tags do not count; of several parts or scheduled texts the longest counts. Chunks that BREAK
    or the comma backtrack closed early count in full. In a `negative` prompt network tags and AND are words.
    Raises `InvalidParams` as `webui.prompt.parse_prompt` does.
    """
    text = strip_comments(text, compatible=compatible)
    parts = [[text]] if negative else split_and(strip_networks(text), compatible=compatible)
    most = 0
    for part, *_ in parts:
        schedule, _ = scheduled_texts(str(part), steps)
        for scheduled in {entry.text for entry in schedule}:
            _, tokens = _fill(scheduled, tokenizer, emphasis, comma_backtrack, compatible, EOS, embeddings)
            most = max(most, tokens)
    return most, -(-max(most, 1) // CHUNK) * CHUNK


def is_cut(
    text: str,
    tokenizer: ClipTokenizer,
    *,
    emphasis: Emphasis = "Original",
    comma_backtrack: int = DEFAULT_COMMA_BACKTRACK,
    compatible: bool = False,
    embeddings: EmbeddingNames | None = None,
) -> bool:
    """Whether a scheduled text is longer than the `MAX_CHUNKS` chunks that `chunk_text` makes of it."""
    at_most = len(text.encode("utf-8", "replace")) + CHUNK * (1 + text.count("BREAK"))  # a byte is a token or less
    if at_most <= MAX_CHUNKS * CHUNK and embeddings is None:
        return False
    _, tokens = _fill(text, tokenizer, emphasis, comma_backtrack, compatible, EOS, embeddings)
    return tokens > MAX_CHUNKS * CHUNK


def _fill(
    text: str,
    tokenizer: ClipTokenizer,
    emphasis: Emphasis,
    comma_backtrack: int,
    compatible: bool,
    pad: int,
    embeddings: EmbeddingNames | None,
) -> tuple[list[Chunk], int]:
    filler = _Filler(pad)
    for piece in parse_pieces(text, emphasis=emphasis, compatible=compatible):
        if piece.is_break:
            filler.close()
            continue
        ids = tokenizer.encode(piece.text)
        position = 0
        while position < len(ids):
            token = ids[position]
            full = len(filler.ids) == CHUNK
            if token == tokenizer.comma:
                filler.last_comma = len(filler.ids)
            elif full and filler.last_comma >= 0 and CHUNK - filler.last_comma <= comma_backtrack:
                filler.move_after_comma()
            if len(filler.ids) == CHUNK:
                filler.close()
            found = embeddings.at(ids, position) if embeddings else None
            if found is None:
                filler.add(token, piece.weight)
                position += 1
                continue
            name, vectors, length = found
            if len(filler.ids) + vectors > CHUNK:
                filler.close()
            filler.embeddings.append(PlacedEmbedding(len(filler.ids) + 1, name, vectors))
            for _ in range(vectors):
                filler.add(0, piece.weight)
            position += length
    if filler.ids or not filler.chunks:
        filler.close(last=True)
    return filler.chunks[:MAX_CHUNKS], filler.tokens
