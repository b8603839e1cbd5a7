"""Values of the settings line: when they are quoted, and how a line is cut into keys and values.

The line is `Key: value, Key: "a value, with: more", ...`. It is read in one pass from left to right; no regular
expression runs over more than one value, so a hostile line costs no more than its length.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from webui.infotext.bounded_json import whole

_QUOTED = re.compile(r'"(?:\\.|[^\\"])+"(?=,|\Z)')
_MAX_KEY = 256  # characters
_SIZE = re.compile(r"(\d{1,20})x(\d{1,20})", re.ASCII)


class Pair(NamedTuple):
    key: str
    value: str
    start: int  # where the key begins in the line


def quote(value: object) -> str:
    """`str(value)`, as a JSON string where reading it back would otherwise give something else."""
    text = str(value)
    plain = text == text.strip() and not text.startswith('"') and not any(ch in ",:\x7f" or ch < " " for ch in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def unquote(text: str) -> str:
    """The value that was written; one that only looks quoted stays as it is."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return whole(value) if isinstance(value, str) else text


def split_pairs(line: str, limit: int) -> list[Pair]:
    """The `key: value` pairs of a settings line, values as written, at most `limit` of them. Linear.

    A key has two characters or more, of letters, digits, spaces, `-` and `/`; a value is a JSON string or goes to the
    next comma. What fits neither is skipped.
    """
    pairs: list[Pair] = []
    position = 0
    while len(pairs) < limit and (colon := line.find(":", position)) >= 0:
        start = colon
        while (
            start > position and colon - start < _MAX_KEY and (line[start - 1].isalnum() or line[start - 1] in "_ -/")
        ):
            start -= 1
        key = line[start:colon].lstrip(" -/")
        if len(key) < 2:
            position = colon + 1
            continue
        begin = colon + 1
        while begin < len(line) and line[begin].isspace():
            begin += 1
        quoted = _QUOTED.match(line, begin)
        end = quoted.end() if quoted else line.find(",", begin)
        end = len(line) if end < 0 else end
        pairs.append(Pair(key.strip(), line[begin:end].rstrip(), colon - len(key)))
        position = end + 1
    return pairs


def split_size(value: str) -> tuple[str, str] | None:
    """("512", "768") for "512x768", else None."""
    match = _SIZE.fullmatch(value)
    return (match.group(1), match.group(2)) if match else None
