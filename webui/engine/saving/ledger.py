"""What an expanded job has finished, on disk, so that the same job can be resumed after an interrupt or a crash.

One file a request, named after its fingerprint; one line a cell, flushed before the next cell begins. A line counts
only while all its files are there with the pixels they had; one that is damaged, or that another version of the program
wrote, is as if it were not there.
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

from webui.events import Image
from webui.params import GenerationParams
from webui.paths import append_line
from webui.pictures.opening import open_own

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
        self._cells = _read(path)

    @classmethod
    def of(cls, cache_dir: Path, params: GenerationParams, user: str = "") -> Ledger:
        """The ledger of a user's request: nobody is given what another made.

        Of a request whose seeds are not fixed nothing can be found again.
        """
        of_user = f"-{hashlib.sha256(user.encode()).hexdigest()[:16]}" if user else ""
        return cls(cache_dir / FOLDER / f"{params.fingerprint()}{of_user}.jsonl")

    def find(self, params: GenerationParams, outputs: Path) -> DoneCell | None:
        """The cell's pictures, when an earlier run finished them and they are still what they were."""
        noted = self._cells.get(params.fingerprint())
        if noted is None:
            return None
        images = [dataclasses.replace(image, path=str(outputs / image.path)) for image in noted]
        whole = all(map(same_pixels, images))
        return DoneCell(tuple(images)) if whole else None

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


def _read(path: Path) -> dict[str, list[Image]]:
    """The images of each cell, their paths below the outputs."""
    cells: dict[str, list[Image]] = {}
    try:
        if path.stat().st_size > MAX_LEDGER:
            return {}
        lines = path.read_bytes().splitlines()  # bytes: one that is no UTF-8 spoils its own line alone
    except OSError:
        return {}
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # the last line of a crash may be half written
            data = json.loads(line)
            cells[str(data["cell"])] = [Image(**entry) for entry in data["images"]]
    return cells


def same_pixels(image: Image) -> bool:
    """Whether the file of a finished picture holds what it held; of a lossy one, whether it can be read."""
    path = Path(image.path)
    try:
        pixels = open_own(path, (image.width, image.height)).convert("RGB").tobytes()
    except OSError:
        return False
    return path.suffix != ".png" or hashlib.sha256(pixels).hexdigest() == image.pixels_sha256


def _make_room(folder: Path) -> None:
    """Keep the newest ledgers alone."""
    if not folder.is_dir():
        return
    ledgers = sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in ledgers[KEPT - 1 :]:
        path.unlink(missing_ok=True)
