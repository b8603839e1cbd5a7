"""Pictures as text: base64 in requests, with or without a data URI around it. Never an address to fetch from."""

from __future__ import annotations

import base64
import binascii
import re

from webui.errors import InvalidParams
from webui.inputs import MAX_BYTES

_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{1,20}://")
_DATA = re.compile(r"data:[\w.+/-]{0,100}(;[\w=.-]{1,100}){0,5};base64,", re.ASCII)
_MAX_TEXT = MAX_BYTES * 4 // 3 + 200  # characters: base64 of the largest file, and a prefix
_URL_SAFE = str.maketrans("-_", "+/")


def decode_picture(text: str, what: str = "image") -> bytes:
    """The bytes of a picture that came as base64. Raises `InvalidParams`, which names the field `what`."""
    if _ADDRESS.match(text[:30].lstrip()):
        raise InvalidParams(
            f"{what}: holds an address, and pictures are not fetched from addresses.",
            "Send the picture itself as base64.",
        )
    if len(text) > _MAX_TEXT:
        raise InvalidParams(f"{what}: is larger than {MAX_BYTES // 2**20} MB.", "Send a smaller picture.")
    prefix = _DATA.match(text[:700].lstrip())
    if prefix is not None:
        text = text.lstrip()[prefix.end() :]
    elif text[:10].lstrip().startswith("data:"):
        raise InvalidParams(f"{what}: is a data URI without base64.", "Write data:image/png;base64, and then base64.")
    text = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidParams(f"{what}: is not valid base64.", "Send a picture's bytes as base64.") from None
    if not data:
        raise InvalidParams(f"{what}: is empty.", "Send a picture's bytes as base64.")
    return data


def encode_picture(data: bytes) -> str:
    """Bare base64, as every answer has it."""
    return base64.b64encode(data).decode("ascii")
