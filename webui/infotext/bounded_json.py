"""JSON from outside: bounded in size and depth, no NaN, no numbers of a million digits, no half characters."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_LENGTH = 4 * 2**20  # characters
MAX_DEPTH = 64
MAX_NODES = 300_000
_MAX_DIGITS = 40
_MAY_BE_HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")  # JSON may hold what no encoding can


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
        value, end = _decoder().raw_decode(text[start : start + MAX_LENGTH])
    except (ValueError, RecursionError):
        return None
    return _bounded(value, text[start : start + end])


def _decoder() -> json.JSONDecoder:
    def integer(digits: str) -> int | str:
        return int(digits) if len(digits) <= _MAX_DIGITS else digits

    return json.JSONDecoder(parse_int=integer, parse_constant=lambda _: None)


def _checked(decoder: json.JSONDecoder, text: str) -> Any:
    try:
        value = decoder.decode(text)
    except (ValueError, RecursionError):
        return None
    return _bounded(value, text)


def _bounded(value: Any, text: str) -> Any:
    if not _within_bounds(value):
        return None
    return _whole(value) if _MAY_BE_HALF.search(text) else value


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {whole(key): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def whole(text: str) -> str:
    """The text with every lone surrogate, half of a character, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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
