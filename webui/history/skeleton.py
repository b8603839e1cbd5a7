"""The parts of a picture file that can hold text, without the pixels between them.

An import reads ten thousand files for a few kilobytes of text each; reading around the pixels keeps it to those. The
result is again a file of the same format for `pictures.read_text`, which only walks its structure.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

from webui.errors import NotFound
from webui.pictures.containers import PNG_SIGNATURE, Format, picture_size, sniff

HEAD = 64 * 1024  # bytes that are read at first
MAX_TEXT = 24 * 2**20  # bytes of everything that is kept
MAX_BLOCKS = 100_000
KEPT_PIXELS = 32  # bytes of a chunk of pixels: a WEBP says its size there
MAX_JPEG_HEAD = 4 * 2**20
_START_OF_SCAN = 0xDA


def read_skeleton(path: Path) -> bytes:
    """The file without its pixels; "" bytes for what is none of PNG, JPEG, WEBP and AVIF. Raises `NotFound`.

    An AVIF is read whole, up to a bound: it is small, and says where things lie by their place in the file.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(HEAD)
            if size <= HEAD:
                return head
            kind = sniff(head)
            if kind == "PNG":
                return _png(file, size)
            if kind == "WEBP":
                return _webp(file, size)
            if kind == "AVIF":
                return head + file.read(MAX_TEXT - HEAD)
            return _jpeg(file, head) if kind == "JPEG" else b""
    except OSError as error:
        raise NotFound(f"The file {path.name} cannot be read.", "It may have been moved or deleted.") from error


def size_of(data: bytes) -> tuple[int, int]:
    """(width, height) as the header says, (0, 0) where it does not."""
    kind: Format | None = sniff(data)
    return (picture_size(data, kind) if kind else None) or (0, 0)


def _png(file: BinaryIO, size: int) -> bytes:
    """Signature and every chunk but IDAT."""
    kept = io.BytesIO()
    kept.write(PNG_SIGNATURE)
    position = len(PNG_SIGNATURE)
    for _ in range(MAX_BLOCKS):
        file.seek(position)
        header = file.read(8)
        length = int.from_bytes(header[:4], "big")
        whole = length + 12
        if len(header) < 8 or position + whole > size or kept.tell() + whole > MAX_TEXT:
            break
        if header[4:] not in (b"IDAT", b"fdAT"):
            kept.write(header + file.read(length + 4))
        position += whole
    return kept.getvalue()


def _webp(file: BinaryIO, size: int) -> bytes:
    """The container and every chunk, those of pixels cut short."""
    file.seek(0)
    kept = io.BytesIO()
    kept.write(file.read(12))
    position = 12
    for _ in range(MAX_BLOCKS):
        file.seek(position)
        header = file.read(8)
        length = int.from_bytes(header[4:8], "little")
        if len(header) < 8 or position + 8 + length > size or kept.tell() + length > MAX_TEXT:
            break
        pixels = header[:4] in (b"VP8 ", b"VP8L", b"ANMF", b"ALPH", b"ICCP")
        content = file.read(min(length, KEPT_PIXELS) if pixels else length)
        kept.write(header[:4] + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) & 1))
        position += 8 + length + (length & 1)
    return kept.getvalue()


def _jpeg(file: BinaryIO, head: bytes) -> bytes:
    """Everything before the first scan."""
    position = 2
    data = head
    while position + 4 <= MAX_JPEG_HEAD:
        if position + 4 > len(data):
            more = file.read(HEAD)
            if not more:
                break
            data += more
            continue
        if data[position] != 0xFF or data[position + 1] == _START_OF_SCAN:
            break
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return data + file.read(max(0, min(position, MAX_JPEG_HEAD) - len(data)))
