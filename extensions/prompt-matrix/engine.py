"""Prompt matrix: all 2^n choices of the n optional parts of a prompt, as a grid whose labels say which are in."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from webui.errors import InvalidParams
from webui.extensions import Cell, Cells, Draft, Expansion, Grid, Sheet, Square, hookimpl
from webui.params import GenerationParams

MAX_PARTS = 10  # 1024 pictures
JOINTS = {"comma": ", ", "space": " "}
DRAFT_SECONDS = 1.0  # between two drafts; drawing a large one takes its time, too
_CLOSING = {"{": "}", "[": "]"}
_SIGN = re.compile(r"(?<!\\)[|{}\[\]]")


@hookimpl
def expand(request: GenerationParams, values: Mapping[str, Any]) -> Expansion:
    """The matrix. Raises `InvalidParams` for a prompt without bars, or with too many."""
    field = "prompt" if values["prompt_type"] == "positive" else "negative_prompt"
    first, *optional = parts_of(getattr(request, field))
    optional = [_bare(part) for part in optional]
    if values["delimiter"] == "comma":
        first = _bare(first)
    if not optional:
        raise InvalidParams("There is no | in the prompt.", "Write: what is always there | one option | another.")
    if len(optional) > MAX_PARTS:
        raise InvalidParams(f"{len(optional)} options make too many pictures.", f"Use {MAX_PARTS} at most.")
    prompts = [combined(first, chosen(optional, number), values) for number in range(2 ** len(optional))]
    return Expansion(_cells(request, field, prompts, optional, values), len(prompts) * request.pictures)


def parts_of(prompt: str) -> list[str]:
    """What stands between bars, trimmed. Those in {a|b} and [a|b] are of a choice, and part nothing."""
    bars: list[int] = []
    opened: list[tuple[str, int]] = []  # the bracket that closes a group, and how many bars stood before it
    for match in _SIGN.finditer(prompt):
        sign = match.group()
        if sign == "|":
            bars.append(match.start())
        elif sign in _CLOSING:
            opened.append((_CLOSING[sign], len(bars)))
        elif opened and sign == opened[-1][0]:
            del bars[opened.pop()[1] :]
    cuts = [-1, *bars, len(prompt)]
    return [prompt[a + 1 : b].strip() for a, b in pairwise(cuts)]


def _bare(part: str) -> str:
    """Without the commas at its ends, which the joint brings."""
    return part.strip(", \n\t")


def chosen(optional: Sequence[str], number: int) -> list[str]:
    """The options whose bit is set in `number`, in their order."""
    return [part for bit, part in enumerate(optional) if number >> bit & 1]


def combined(first: str, parts: Sequence[str], values: Mapping[str, Any]) -> str:
    """The prompt with these options."""
    ordered = [*parts, first] if values["put_at_start"] else [first, *parts]
    return JOINTS[values["delimiter"]].join(part for part in ordered if part)


def _cells(
    request: GenerationParams, field: str, prompts: Sequence[str], optional: Sequence[str], values: Mapping[str, Any]
) -> Cells:
    across = len(optional) - len(optional) // 2  # options that vary along a row; the rest vary along a column
    squares: dict[int, Square] = {}
    next_draft = 0.0
    size = (request.width or 512, request.height or 512)

    def grid() -> Grid:
        columns, rows = 2**across, 2 ** (len(optional) - across)
        places = [[squares.get(row * columns + column, Square()) for column in range(columns)] for row in range(rows)]
        column_labels = ["\n".join(chosen(optional[:across], n)) or "without" for n in range(columns)]
        row_labels = ["\n".join(chosen(optional[across:], n)) or "without" for n in range(rows)] if rows > 1 else []
        return Grid(places, size, column_labels, row_labels, margin=values["margin_size"])

    for number, prompt in enumerate(prompts):
        seed = request.seed + number * request.pictures if values["different_seeds"] else request.seed
        result = yield Cell(request.changed(**{field: prompt, "seed": seed}), prompt)
        if result is None or result.interrupted:
            break
        if result.pictures:
            size = result.pictures[0].size
        squares[number] = Square(result.pictures[0] if result.pictures else None, result.error)
        if time.monotonic() >= next_draft:
            began = time.monotonic()
            yield Draft(grid().draw())
            next_draft = time.monotonic() + max(DRAFT_SECONDS, 10 * (time.monotonic() - began))
    if any(square.picture for square in squares.values()):
        made = grid()
        yield Sheet(made.draw(), (("Script", "Prompt matrix"), ("Grid layout", made.place().text())))
