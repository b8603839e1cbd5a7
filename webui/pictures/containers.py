"""The outer structure of picture files: format, size and metadata blocks, found without decoding a pixel.

Each walk is linear and bounded, stops quietly where a file is broken, and copies nothing but the metadata.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

from webui.pictures.avif import avif_exif, avif_size

Format = Literal["PNG", "JPEG", "WEBP", "AVIF", "GIF"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EXIF_MARK = b"Exif\0\0"
_MAX_BLOCKS = 200_000  # chunks or segments of one file
_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # JPEG segments that hold the size
_START_OF_SCAN = 0xDA


class Block(NamedTuple):
    """A PNG chunk, JPEG segment or WEBP chunk: its type and where its content lies."""

    kind: str
    start: int
    end: int


def sniff(data: bytes) -> Format | None:
    """The format that a file's first bytes name; None for every other kind of file."""
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis"):
        return "AVIF"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    return None


def png_chunks(data: bytes) -> Iterator[Block]:
    position = len(PNG_SIGNATURE)
    for _ in range(_MAX_BLOCKS):
        if position + 12 > len(data):
            return
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 8 + length
        if length >= 2**31 or end + 4 > len(data):
            return
        yield Block(data[position + 4 : position + 8].decode("latin-1"), position + 8, end)
        position = end + 4


def jpeg_segments(data: bytes) -> Iterator[Block]:
    """The segments before the first scan. The kind is the marker in hexadecimal: "E1" for EXIF."""
    position = 2
    for _ in range(_MAX_BLOCKS):
        while position < len(data) and data[position] == 0xFF and data[position + 1 : position + 2] == b"\xff":
            position += 1  # fill bytes
        if position + 4 > len(data) or data[position] != 0xFF or data[position + 1] == _START_OF_SCAN:
            return
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        end = position + 2 + length
        if length < 2 or end > len(data):
            return
        yield Block(f"{data[position + 1]:02X}", position + 4, end)
        position = end


def webp_chunks(data: bytes) -> Iterator[Block]:
    position = 12
    for _ in range(_MAX_BLOCKS):
        if position + 8 > len(data):
            return
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + length
        if end > len(data):
            return
        yield Block(data[position : position + 4].decode("latin-1"), position + 8, end)
        position = end + (length & 1)


def picture_size(data: bytes, kind: Format) -> tuple[int, int] | None:
    """(width, height) in pixels as the header says; None where it is missing."""
    if kind == "PNG":
        block = next(png_chunks(data), None)
        if block is None or block.kind != "IHDR" or block.end - block.start != 13:
            return None
        width, height = struct.unpack_from(">II", data, block.start)
        return width, height
    if kind == "JPEG":
        for block in jpeg_segments(data):
            if int(block.kind, 16) in _SOF and block.end - block.start >= 5:
                height, width = struct.unpack_from(">HH", data, block.start + 1)
                return width, height
        return None
    if kind == "GIF" and len(data) >= 10:
        width, height = struct.unpack_from("<HH", data, 6)
        return width, height
    return _webp_size(data) if kind == "WEBP" else avif_size(data) if kind == "AVIF" else None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    block = next(webp_chunks(data), None)
    if block is None or block.end - block.start < 10:
        return None
    start = block.start
    if block.kind == "VP8X":  # the canvas, 24 bits a side, less one
        width, height = (int.from_bytes(data[start + i : start + i + 3], "little") + 1 for i in (4, 7))
        return width, height
    if block.kind == "VP8L":  # 14 bits a side, less one, after a signature byte
        bits = int.from_bytes(data[start + 1 : start + 5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if block.kind == "VP8 ":
        width, height = struct.unpack_from("<HH", data, start + 6)
        return width & 0x3FFF, height & 0x3FFF
    return None


def exif_of(data: bytes, kind: Format) -> bytes:
    """The EXIF block (from its TIFF header on) of a PNG, JPEG, WEBP or AVIF file, or b""."""
    if kind == "PNG":
        blocks = (block for block in png_chunks(data) if block.kind == "eXIf")
    elif kind == "JPEG":
        blocks = (
            block
            for block in jpeg_segments(data)
            if block.kind == "E1" and data[block.start : block.start + 6] == EXIF_MARK
        )
    elif kind == "WEBP":
        blocks = (block for block in webp_chunks(data) if block.kind == "EXIF")
    else:
        return avif_exif(data).removeprefix(EXIF_MARK) if kind == "AVIF" else b""
    block = next(blocks, None)
    return data[block.start : block.end].removeprefix(EXIF_MARK) if block else b""
