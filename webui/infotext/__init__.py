"""The parameters text inside a picture: `format` writes it, `parse` reads it in every dialect of the field.

Text from outside is hostile until shown otherwise: reading is linear in its length, never raises, and gives only
values within the bounds of `GenerationParams`.
"""

from __future__ import annotations

from webui.infotext.model import NotUnderstood, ParsedInfotext, Resource
from webui.infotext.operations import extended
from webui.infotext.reader import parse, parse_chunks
from webui.infotext.writer import VERSION, format, hash_list

__all__ = [
    "VERSION",
    "NotUnderstood",
    "ParsedInfotext",
    "Resource",
    "extended",
    "format",
    "hash_list",
    "parse",
    "parse_chunks",
]
