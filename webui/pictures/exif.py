"""The few EXIF entries that matter here, read with bounds: no loops between directories, no value outside the block.

The comment is written here, too: Pillow would call it a list of numbers, and then AUTOMATIC1111 does not find it.
"""

from __future__ import annotations

import struct
from typing import Literal

ORIENTATION = 0x0112
DESCRIPTION = 0x010E
MAKE = 0x010F
MODEL = 0x0110
EXIF_DIRECTORY = 0x8769
USER_COMMENT = 0x9286

_MAX_ENTRIES = 1000  # of one directory
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}  # bytes of BYTE, ASCII, SHORT, LONG, UNDEFINED
_LONG, _BYTES = 4, 7  # the kinds of an entry that holds a number and of one that holds plain bytes
_UNICODE, _ASCII, _JIS, _UNDEFINED = b"UNICODE\0", b"ASCII\0\0\0", b"JIS\0\0\0\0\0", b"\0" * 8


def read_exif(block: bytes) -> dict[int, bytes | int]:
    """The entries of the main and the EXIF directory of a TIFF block: numbers as int, everything else as bytes.

    A damaged block gives what could be read. Of an entry that occurs twice the first counts.
    """
    order = _byte_order(block)
    if order is None or int.from_bytes(block[2:4], order) != 42:
        return {}
    entries = _directory(block, int.from_bytes(block[4:8], order), order)
    below = entries.get(EXIF_DIRECTORY)
    if isinstance(below, int):
        entries = {**_directory(block, below, order), **entries}
    return entries


def _byte_order(block: bytes) -> Literal["little", "big"] | None:
    return {b"II": "little", b"MM": "big"}.get(block[:2])  # type: ignore[return-value]


def _directory(block: bytes, offset: int, order: Literal["little", "big"]) -> dict[int, bytes | int]:
    entries: dict[int, bytes | int] = {}
    count = int.from_bytes(block[offset : offset + 2], order)
    for index in range(min(count, _MAX_ENTRIES)):
        start = offset + 2 + 12 * index
        entry = block[start : start + 12]
        if len(entry) < 12:
            break
        tag, kind, length = (int.from_bytes(entry[a:b], order) for a, b in ((0, 2), (2, 4), (4, 8)))
        size = _SIZES.get(kind, 0) * length
        if not size:
            continue
        begin = start + 8 if size <= 4 else int.from_bytes(entry[8:12], order)
        value = block[begin : begin + size]
        if len(value) < size:
            continue
        number = kind in (3, 4) and length == 1
        entries.setdefault(tag, int.from_bytes(value, order) if number else value)
    return entries


def decode_comment(value: bytes) -> str:
    """The text of a UserComment: eight bytes that name the character set, then the text.

    The programs of this field write "UNICODE" and UTF-16 in big-endian order whatever the order of the block; text in
    the other order is recognised. Without a known character set it is UTF-8.
    """
    head, body = value[:8], value[8:]
    if head == _UNICODE:
        return body[: len(body) // 2 * 2].decode(_utf16_order(body), "replace").strip("\0\ufeff")
    if head in (_ASCII, _UNDEFINED):
        return body.decode("utf-8", "replace").strip("\0")
    if head == _JIS:
        return body.decode("iso2022_jp", "replace").strip("\0")
    return value.decode("utf-8", "replace").strip("\0")


def _utf16_order(body: bytes) -> str:
    """Of Latin text every second byte is 0: the first of a pair in big-endian order, else the second."""
    sample = body[:2000]
    if sample[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16-le" if sample[:2] == b"\xff\xfe" else "utf-16-be"
    return "utf-16-le" if sample[1::2].count(0) > sample[0::2].count(0) else "utf-16-be"


def comment_block(text: str) -> bytes:
    """A TIFF block whose only entry is a UserComment: "UNICODE" and UTF-16, all of it in big-endian order."""
    comment = _UNICODE + text.encode("utf-16-be")
    header = b"MM" + struct.pack(">HI", 42, 8)
    below = 8 + 2 + 12 + 4  # where the EXIF directory begins: after the main one, which has one entry
    main = struct.pack(">HHHIII", 1, EXIF_DIRECTORY, _LONG, 1, below, 0)
    exif = struct.pack(">HHHIII", 1, USER_COMMENT, _BYTES, len(comment), below + 2 + 12 + 4, 0)
    return header + main + exif + comment
