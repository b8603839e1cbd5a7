"""The form in which texts are compared, and the cleaning of texts that come from files."""

from __future__ import annotations

import re
import unicodedata

_LINE_END = re.compile(r"\r\n?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")  # all but tab and newline
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def fold(text: str) -> str:
    """The form in which two texts are equal for a search: without case, and however its characters are composed."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", text).casefold())


def clean(text: str, limit: int = 200_000) -> str:
    """Text that SQLite and JSON can hold: no control characters but tab and newline, no lone surrogates."""
    text = text[:limit]
    if text.isprintable():
        return text
    return _SURROGATE.sub("?", _CONTROL.sub("", _LINE_END.sub("\n", text)))
