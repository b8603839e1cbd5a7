"""Which brackets of a prompt have no partner: marked while typing, and said under the picture."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(r"\\[\s\S]?|[()\[\]<>]")
_TAG = re.compile(r"<\w+:")
_CONTEXT = 20  # characters shown around a problem


@dataclass(frozen=True, slots=True)
class BracketProblem:
    """`bracket` at `position` (in characters from 0) is never closed, or closes nothing."""

    position: int
    bracket: str
    message: str


def bracket_problems(text: str) -> list[BracketProblem]:
    """Every bracket without a partner, in order: `(`, `[` and the `<` of a network tag, and stray `)` and `]`.

    Escaped brackets are text. Round and square brackets are matched independently, as emphasis does. Linear.
    """
    opened: dict[str, list[int]] = {"(": [], "[": []}
    partner = {")": "(", "]": "["}
    stray: list[tuple[int, str]] = []
    last_tag_end = text.rfind(">")
    for match in _TOKEN.finditer(text):
        token, position = match.group(), match.start()
        if token in opened:
            opened[token].append(position)
        elif token in partner:
            if opened[partner[token]]:
                opened[partner[token]].pop()
            else:
                stray.append((position, token))
        elif token == "<" and position > last_tag_end and _TAG.match(text, position):
            stray.append((position, token))
    stray += [(position, bracket) for bracket, positions in opened.items() for position in positions]
    return [BracketProblem(position, bracket, _message(text, position, bracket)) for position, bracket in sorted(stray)]


def _message(text: str, position: int, bracket: str) -> str:
    around = text[max(0, position - _CONTEXT) : position + _CONTEXT + 1].replace("\n", " ").strip()
    what = "closes nothing" if bracket in ")]" else "is never closed"
    return f'"{bracket}" {what}: {around}'
