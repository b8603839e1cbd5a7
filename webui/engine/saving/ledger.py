"""What an expanded job has finished, on disk, so that the same job can be resumed after an interrupt or a crash.

One file a request, named after its fingerprint; one line a cell, flushed before the next cell begins. A line counts
only while all its files are there with the pixels they had.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage

from webui.events import Image
from webui.params import GenerationParams
from webui.paths import append_line

FOLDER = "resumable"
KEPT = 50  # requests; the ones touched longest ago go
MAX_LEDGER = 64 * 2**20  # bytes
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DoneCell:
    """A finished cell: its pictures as they were told, with absolute paths."""

    images: tuple[Image, ...]


class Ledger:
    """The finished cells of one request."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cells: dict[str, list[dict[str, Any]]] = _read(path)

    @classmethod
    def of(cls, cache_dir: Path, params: GenerationParams) -> Ledger:
        """The ledger of a request; of a request whose seeds are not fixed nothing can be found again."""
        return cls(cache_dir / FOLDER / f"{params.fingerprint()}.jsonl")

    def find(self, params: GenerationParams, outputs: Path) -> DoneCell | None:
        """The cell's pictures, when an earlier run finished them and they are still what they were."""
        entries = self._cells.get(params.fingerprint())
        if entries is None:
            return None
        images = []
        for entry in entries:
            path = outputs / entry["path"]
            if not _same_pixels(path, entry["pixels_sha256"]):
                return None
            images.append(Image(**{**entry, "path": str(path)}))
        return DoneCell(tuple(images))

    def add(self, params: GenerationParams, images: Sequence[Image], outputs: Path) -> None:
        """Write a finished cell down. What the disk refuses is only told in the log: the pictures are safe."""
        entries = []
        for image in images:
            entry = dataclasses.asdict(image)
            entry.pop("png")
            path = Path(image.path)
            if not path.is_relative_to(outputs):
                return
            entries.append({**entry, "path": path.relative_to(outputs).as_posix()})
        line = json.dumps({"cell": params.fingerprint(), "images": entries})
        try:
            if not self._path.exists():
                _make_room(self._path.parent)
            append_line(self._path, line)
        except OSError as error:
            _log.warning("A finished cell could not be noted (%s); a resumed job would make it again.", error)

    def discard(self) -> None:
        """The job is done: there is nothing to resume."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    cells: dict[str, list[dict[str, Any]]] = {}
    try:
        if path.stat().st_size > MAX_LEDGER:
            return {}
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # the last line of a crash may be half written
            data = json.loads(line)
            cells[str(data["cell"])] = list(data["images"])
    return cells


def _same_pixels(path: Path, digest: str) -> bool:
    try:
        with PillowImage.open(path) as picture:
            pixels = picture.convert("RGB").tobytes()
            return path.suffix != ".png" or hashlib.sha256(pixels).hexdigest() == digest
    except OSError:
        return False


def _make_room(folder: Path) -> None:
    """Keep the newest ledgers alone."""
    if not folder.is_dir():
        return
    ledgers = sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in ledgers[KEPT - 1 :]:
        path.unlink(missing_ok=True)
