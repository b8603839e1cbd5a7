"""Emphasis: `(a)` is 1.1, `[a]` is 1/1.1, `(a:1.3)` is 1.3, nesting multiplies, `\\(` is a bracket, BREAK ends a chunk.

The grammar is AUTOMATIC1111's, kept case by case, with two mended faults: a number that is none, as in `(a:1..5)`, is
plain text (there it ended the generation with an error), and BREAK inside brackets is a break (there it was read aloud
to the network with a negative weight). Round and square brackets are matched independently of each other.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from webui.prompt.limits import MAX_DEPTH, checked_weight, too_deep

Emphasis = Literal["Original", "No norm", "Ignore", "None"]

ROUND_FACTOR = 1.1
SQUARE_FACTOR = 1 / 1.1

# In the order of their priority: an escaped bracket, a lone backslash, an opening bracket, a close with a weight
# (group 1), a closing bracket, a run of anything else, a colon. Each alternative looks at a character at most twice.
_TOKEN = re.compile(r"\\[()\[\]\\]|\\|\(|\[|:\s*([+-]?[.\d]+)\s*\)|\)|\]|[^\\()\[\]:]+|:")
_BREAK = re.compile(r"\bBREAK\b")


class Piece(NamedTuple):
    """A run of text with one weight. `is_break`: not text, but the end of a chunk."""

    text: str
    weight: float
    is_break: bool = False


class _Run:
    """A piece in the making."""

    __slots__ = ("is_break", "texts", "weight")

    def __init__(self, weight: float = 1.0, is_break: bool = False) -> None:
        self.texts: list[str] = ["BREAK"] if is_break else []
        self.weight = weight
        self.is_break = is_break


class _Reader:
    def __init__(self, compatible: bool) -> None:
        self.runs: list[_Run] = []
        self.open_round: list[int] = []  # index of the first run inside the bracket
        self.open_square: list[int] = []
        self.continues = False  # whether text may still be added to the last run
        self.compatible = compatible

    def open(self, brackets: list[int]) -> None:
        if len(brackets) >= MAX_DEPTH:
            raise too_deep()
        brackets.append(len(self.runs))
        self.continues = False

    def close(self, brackets: list[int], factor: float) -> None:
        for run in self.runs[brackets.pop() :]:
            run.weight *= factor
        self.continues = False

    def add(self, text: str) -> None:
        if not self.continues:
            self.runs.append(_Run())
            self.continues = True
        self.runs[-1].texts.append(text)

    def add_plain(self, text: str) -> None:
        """Text without escapes: here BREAK is looked for, and the spaces around it go with it."""
        parts = _BREAK.split(text) if "BREAK" in text else [text]
        last = len(parts) - 1
        for i, part in enumerate(parts):
            if i:
                self.runs.append(_Run(-1.0, is_break=True))
                self.continues = False
                part = part.lstrip()
            self.add(part.rstrip() if i < last else part)

    def finish(self) -> list[Piece]:
        for brackets, factor in ((self.open_round, ROUND_FACTOR), (self.open_square, SQUARE_FACTOR)):
            while brackets:
                self.close(brackets, factor)
        pieces: list[Piece] = []
        texts: list[str] = []
        for i, run in enumerate(self.runs):
            texts += run.texts
            following = self.runs[i + 1] if i + 1 < len(self.runs) else None
            joined = following is not None and following.weight == run.weight and self._same_kind(run, following)
            if not joined:
                text = "".join(texts)
                is_break = run.weight == -1 and text == "BREAK" if self.compatible else run.is_break
                pieces.append(Piece(text, run.weight if run.is_break else checked_weight(run.weight), is_break))
                texts = []
        return pieces or [Piece("", 1.0)]

    def _same_kind(self, run: _Run, following: _Run) -> bool:
        return self.compatible or not (run.is_break or following.is_break)


def parse_pieces(text: str, *, emphasis: Emphasis = "Original", compatible: bool = False) -> list[Piece]:
    """Split a prompt into weighted pieces; neighbours of one weight are one piece. Linear in the length of `text`.

    `emphasis` "None" reads brackets and BREAK as plain text, "Ignore" reads them and forgets the weights.
    `compatible` keeps AUTOMATIC1111's reading of BREAK inside brackets (a word, unless its weight comes out as -1).
    Raises `InvalidParams` for brackets nested too deep and for weights out of bounds.
    """
    if emphasis == "None":
        return [Piece(text, 1.0)]
    reader = _Reader(compatible)
    for match in _TOKEN.finditer(text):
        token, weight = match.group(), match.group(1)
        number = _number(weight) if weight is not None else None
        if token[0] == "\\":
            reader.add(token[1:])
        elif token == "(":
            reader.open(reader.open_round)
        elif token == "[":
            reader.open(reader.open_square)
        elif number is not None and reader.open_round:
            reader.close(reader.open_round, number)
        elif weight is not None and reader.open_round:
            reader.add_plain(token[:-1])
            reader.close(reader.open_round, ROUND_FACTOR)
        elif token == ")" and reader.open_round:
            reader.close(reader.open_round, ROUND_FACTOR)
        elif token == "]" and reader.open_square:
            reader.close(reader.open_square, SQUARE_FACTOR)
        else:
            reader.add_plain(token)
    pieces = reader.finish()
    if emphasis == "Ignore":
        return [piece if piece.is_break else piece._replace(weight=1.0) for piece in pieces]
    return pieces


def parse_attention(text: str) -> list[list[str | float]]:
    """`[[text, weight], ...]` of a prompt; a break is `["BREAK", -1]`, times the weight of the brackets around it.

    >>> parse_attention("an (important) word")
    [['an ', 1.0], ['important', 1.1], [' word', 1.0]]

    Raises `InvalidParams` as `parse_pieces` does.
    """
    return [[piece.text, piece.weight] for piece in parse_pieces(text)]


def _number(text: str) -> float | None:
    """The weight that was written, or None for what only looks like one (`1..5`, `.`)."""
    try:
        return float(text)
    except ValueError:
        return None
