"""What an AVIF file says before its pixels: its size and its EXIF block (ISO/IEC 14496-12, "boxes", and 23008-12).

A file is a row of boxes. `meta` lists the items (the picture, its transparency, EXIF), where each lies, and their
properties. Read with bounds and without a decoder, so a file is judged before any of it is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_MAX_BOXES = 10_000  # of one level
_MAX_ITEMS = 1000
_HEADER = 8  # bytes: a box's length and its kind
_FULL = 4  # bytes: version and flags, where a box has them


class Box(NamedTuple):
    """A box: its kind, and where its content lies."""

    kind: bytes
    start: int
    end: int


class _Numbers:
    """Reads big-endian numbers one after the other; past the end they are 0."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self.position = position

    def next(self, size: int) -> int:
        value = int.from_bytes(self._data[self.position : self.position + size], "big")
        self.position += size
        return value


def avif_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels of the largest picture in the file; None where it names none."""
    sizes = [
        (_Numbers(data, box.start + _FULL).next(4), _Numbers(data, box.start + _FULL + 4).next(4))
        for box in _within(data, b"meta", b"iprp", b"ipco")
        if box.kind == b"ispe" and box.end - box.start >= _FULL + 8
    ]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def avif_exif(data: bytes) -> bytes:
    """The EXIF block, from its TIFF header on, or b"". `data` may end before the pixels do."""
    item = next((number for number, kind in _items(data) if kind == b"Exif"), None)
    place = None if item is None else _place(data, item)
    if place is None:
        return b""
    start, length = place
    content = data[start : start + length]
    return content[4 + int.from_bytes(content[:4], "big") :]


def _boxes(data: bytes, position: int, end: int) -> Iterator[Box]:
    for _ in range(_MAX_BOXES):
        if position + _HEADER > end:
            return
        numbers = _Numbers(data, position)
        length, kind, header = numbers.next(4), data[position + 4 : position + 8], _HEADER
        if length == 1:  # the length needs eight bytes
            numbers.position = position + _HEADER
            length, header = numbers.next(8), 2 * _HEADER
        stop = end if length == 0 else position + length  # 0: up to the end of what holds it
        if stop < position + header:
            return
        yield Box(kind, position + header, min(stop, end))
        position = stop


def _within(data: bytes, *path: bytes) -> Iterator[Box]:
    """The boxes inside the first box of each kind of `path`, from the file inwards."""
    start, end = 0, len(data)
    for kind in path:
        found = next((box for box in _boxes(data, start, end) if box.kind == kind), None)
        if found is None:
            return
        start, end = found.start + (_FULL if kind == b"meta" else 0), found.end
    yield from _boxes(data, start, end)


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, kind) of every item."""
    listing = next((box for box in _within(data, b"meta") if box.kind == b"iinf"), None)
    if listing is None:
        return
    count_size = 2 if data[listing.start : listing.start + 1] == b"\0" else 4  # by its version
    for box in _boxes(data, listing.start + _FULL + count_size, listing.end):
        version = data[box.start] if box.end > box.start else 0
        if box.kind == b"infe" and version >= 2:
            numbers = _Numbers(data, box.start + _FULL)
            number = numbers.next(2 if version == 2 else 4)
            yield number, data[numbers.position + 2 : numbers.position + 6]


def _place(data: bytes, item: int) -> tuple[int, int] | None:
    """(start, length) of an item that lies in one piece of the file; None for any other."""
    box = next((box for box in _within(data, b"meta") if box.kind == b"iloc"), None)
    if box is None:
        return None
    numbers = _Numbers(data, box.start)
    version = numbers.next(4) >> 24
    sizes = numbers.next(2)  # four bits each: bytes of an offset, of a length, of a base, of an index
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(min(numbers.next(4 if version == 2 else 2), _MAX_ITEMS)):
        number = numbers.next(4 if version == 2 else 2)
        method = numbers.next(2) & 15 if version else 0  # 0: counted from the beginning of the file
        numbers.next(2)  # the file it lies in
        base, pieces = numbers.next(base_size), numbers.next(2)
        if number == item:
            if version:
                numbers.next(index_size)
            start, length = base + numbers.next(offset_size), numbers.next(length_size)
            return (start, length) if method == 0 and pieces == 1 and length else None
        numbers.position += pieces * (offset_size + length_size + (index_size if version else 0))
        if numbers.position >= box.end:
            return None
    return None
