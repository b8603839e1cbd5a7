"""JSON from outside: bounded in size and depth, no NaN, no numbers of a million digits."""

from __future__ import annotations

import json
from typing import Any

MAX_LENGTH = 4 * 2**20  # characters
MAX_DEPTH = 64
MAX_NODES = 300_000
_MAX_DIGITS = 40


def load(text: str) -> Any:
    """The value, or None for text that is not JSON or past a bound."""
    if len(text) > MAX_LENGTH:
        return None
    return _checked(_decoder(), text.strip())


def load_prefix(text: str, start: int) -> Any:
    """The object or list that begins at `start`, whatever follows it; None where there is none."""
    if start >= len(text) or text[start] not in "[{":
        return None
    try:
        value, _ = _decoder().raw_decode(text[start : start + MAX_LENGTH])
    except (ValueError, RecursionError):
        return None
    return value if _within_bounds(value) else None


def _decoder() -> json.JSONDecoder:
    def integer(digits: str) -> int | str:
        return int(digits) if len(digits) <= _MAX_DIGITS else digits

    return json.JSONDecoder(parse_int=integer, parse_constant=lambda _: None)


def _checked(decoder: json.JSONDecoder, text: str) -> Any:
    try:
        value = decoder.decode(text)
    except (ValueError, RecursionError):
        return None
    return value if _within_bounds(value) else None


def _within_bounds(value: Any) -> bool:
    level, nodes = [value], 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
            elif isinstance(item, list):
                below += item
        nodes += len(below)
        if not below:
            return True
        if nodes > MAX_NODES:
            return False
        level = below
    return False


def text_of(value: Any) -> str:
    """A string as it is, a number as its text, anything else as ""."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""
