"""Comments: from `#` to the end of the line. `\\#` is a `#` that is meant."""

from __future__ import annotations

import re

_LINE = r"(?:^|\n)#[^\n]*(?:\n|$)"  # a whole line, with the line break before it
_REST = r"#[^\n]*(?:\n|$)"  # the rest of a line
_ESCAPED = r"\\[\s\S]"
_PASSES = tuple(re.compile(f"({_ESCAPED})|{pattern}") for pattern in (_LINE, _REST))
_PASSES_WITHOUT_ESCAPE = tuple(re.compile(f"((?!)x)|{pattern}") for pattern in (_LINE, _REST))


def strip_comments(text: str, *, compatible: bool = False) -> str:
    """The prompt without its comments; each leaves one line break. Linear.

    `compatible`: no escape, as in AUTOMATIC1111.
    """
    if "#" not in text:
        return text
    for pattern in _PASSES_WITHOUT_ESCAPE if compatible else _PASSES:
        text = pattern.sub(lambda match: match.group(1) or "\n", text)
    return text
