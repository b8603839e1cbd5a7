"""Pictures as files: opening what came from outside, writing what was made, and the text that both carry.

Files from outside are hostile until shown otherwise: only a few formats are opened at all, the size is known before a
pixel is decoded, and text is bounded wherever it comes from.
"""

from __future__ import annotations

from webui.operations import MAX_RESULT_PIXELS
from webui.pictures.encoding import SUFFIXES, encode, file_format
from webui.pictures.opening import MAX_BYTES, both_opened, open_image, opened, upright_size
from webui.pictures.reading import MAX_INFOTEXT, read_text
from webui.pictures.stealth import without_stealth

__all__ = [
    "MAX_BYTES",
    "MAX_INFOTEXT",
    "MAX_RESULT_PIXELS",
    "SUFFIXES",
    "both_opened",
    "encode",
    "file_format",
    "open_image",
    "opened",
    "read_text",
    "upright_size",
    "without_stealth",
]
