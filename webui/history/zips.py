"""A zip archive in pieces, while it is being made: no temporary file, and no more memory than one piece."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

PIECE = 256 * 1024  # bytes read at a time


class _Pipe:
    """The file that zipfile writes to: it cannot seek, and it is emptied after each write."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._position = 0

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Nothing is held back."""

    def seekable(self) -> bool:
        return False

    def taken(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


def stream(files: Sequence[tuple[Path, float]]) -> Iterator[bytes]:
    """The files (with the time each was made, in unix seconds), stored as they are, under names of their own.

    A file that vanishes meanwhile is left out.
    """
    pipe = _Pipe()
    used: set[str] = set()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:  # type: ignore[call-overload]
        for path, made in files:
            try:
                source = path.open("rb")
            except OSError:
                continue
            with source:
                entry = zipfile.ZipInfo(_free(path.name, used), _moment(made))
                entry.external_attr = 0o644 << 16
                with archive.open(entry, "w", force_zip64=True) as target:
                    while piece := source.read(PIECE):
                        target.write(piece)
                        yield pipe.taken()
    yield pipe.taken()


def _free(name: str, used: set[str]) -> str:
    """The name, with a number where two files have the same (also where only the case differs)."""
    candidate, number = name, 2
    while candidate.casefold() in used:
        path = Path(name)
        candidate, number = f"{path.stem} ({number}){path.suffix}", number + 1
    used.add(candidate.casefold())
    return candidate


def _moment(seconds: float) -> tuple[int, int, int, int, int, int]:
    """Local time as zip archives have it: from 1980 to 2107."""
    try:
        moment = time.localtime(seconds)
    except (OverflowError, OSError, ValueError):
        return 1980, 1, 1, 0, 0, 0
    if not 1980 <= moment.tm_year <= 2107:
        return 1980, 1, 1, 0, 0, 0
    return moment.tm_year, moment.tm_mon, moment.tm_mday, moment.tm_hour, moment.tm_min, min(59, moment.tm_sec)
