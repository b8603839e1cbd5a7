"""The hashes by which users name model files (definitions: the infotext specification, section 5)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from webui.catalog.header import open_regular, read_header
from webui.errors import BadModelFile

BLOCK = 4 * 2**20  # bytes read at a time
OLD_HASH_START = 0x100000
OLD_HASH_LENGTH = 0x10000


class HashingStopped(Exception):
    """The program is ending; the hash was not finished."""


class _Digest(Protocol):
    def update(self, data: memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def sha256_of(path: Path, *, start: int = 0, stopped: Callable[[], bool] = lambda: False) -> str:
    """sha256 of a file from byte `start` to its end, 64 hex digits.

    Raises `BadModelFile` when the file changes meanwhile (a hash of half of each is worse than none), `ModelNotFound`
    when it is gone, `HashingStopped` soon after `stopped()` is true.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        before = file.status
        file.seek(start)
        _feed(digest, file.read_into, stopped)
        after = file.stat_now()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise BadModelFile("The file was written while it was read.", "Try again when the download has finished.")
    return digest.hexdigest()


def folder_sha256(folder: Path, files: list[str], *, stopped: Callable[[], bool] = lambda: False) -> str:
    """One hash for a model of several files: sha256 over a line `HASH  NAME` for each, sorted by name."""
    lines = [f"{sha256_of(folder / name, stopped=stopped)}  {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def old_hash(path: Path) -> str:
    """The 8 hex digits that named a checkpoint before hashes covered all of it: 64 KB from the first megabyte on."""
    with open_regular(path) as file:
        file.seek(OLD_HASH_START)
        return hashlib.sha256(file.read(OLD_HASH_LENGTH)).hexdigest()[:8]


def addnet_hash(path: Path, *, stopped: Callable[[], bool] = lambda: False) -> str:
    """A LoRA's hash, which does not change with its metadata: sha256 from the end of the header on.

    64 hex digits (users see 12). A file in another format has its whole sha256.
    """
    if path.suffix.lower() != ".safetensors":
        return sha256_of(path, stopped=stopped)
    return sha256_of(path, start=read_header(path).data_start, stopped=stopped)


def _feed(digest: _Digest, read_into: Callable[[memoryview], int], stopped: Callable[[], bool]) -> None:
    view = memoryview(bytearray(BLOCK))
    while count := read_into(view):
        digest.update(view[:count])
        if stopped():
            raise HashingStopped
