"""Where a picture goes: `outputs/txt2img-images/YYYY-MM-DD/00012-SEED.png` (grids: `txt2img-grids`). A number is never
used twice.

The next number of each folder is kept in SQLite beside the pictures, so that deleting pictures, several processes and
clocks that jump do not bring an old number back. If the counter cannot be used, the names in the folder tell.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import re
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from webui.errors import SaveError
from webui.paths import write_new
from webui.pictures import SUFFIXES

KIND = "txt2img-images"
COUNTER = "numbers.sqlite"
MAX_TRIES = 1000
_NUMBER = re.compile(r"(\d{5,18})-")

_log = logging.getLogger(__name__)


Around = Callable[[Path], AbstractContextManager[None]]
"""Entered with the name that a file is about to get, left when it has it."""


def save_picture(
    outputs: Path,
    data: bytes,
    seed: int,
    image_format: str,
    today: datetime.date,
    around: Around,
    kind: str = KIND,
) -> Path:
    """Write an encoded picture under the next free number; returns the file. Raises `SaveError` naming the folder."""
    folder = outputs / kind / today.isoformat()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for _ in range(MAX_TRIES):
            number = next_number(outputs, folder)
            path = folder / f"{number:05d}-{seed}{SUFFIXES[image_format]}"
            with contextlib.suppress(FileExistsError), around(path):
                write_new(path, data)
                return path
    except OSError as error:
        raise SaveError(
            f"The picture could not be written to {folder}: {error.strerror or error}.",
            "Make room or give write access there; the picture is still shown, so it can be downloaded.",
        ) from error
    raise SaveError(f"No free number was found in {folder}.", "Move the pictures in it to another folder.")


def next_number(outputs: Path, folder: Path) -> int:
    """The next number of the folder, taken for good. Raises OSError when the folder cannot be read."""
    used = max((int(m[1]) for m in map(_NUMBER.match, _names(folder)) if m), default=-1)
    try:
        with contextlib.closing(sqlite3.connect(outputs / COUNTER, timeout=10.0)) as db, db:
            db.execute("CREATE TABLE IF NOT EXISTS numbers (folder TEXT PRIMARY KEY, next INTEGER NOT NULL)")
            row = db.execute(
                "INSERT INTO numbers VALUES (?, ?) ON CONFLICT (folder) "
                "DO UPDATE SET next = max(next, excluded.next - 1) + 1 RETURNING next",
                (folder.relative_to(outputs).as_posix(), used + 2),
            ).fetchone()
            return int(row[0]) - 1
    except sqlite3.Error as error:
        _log.warning("The counter of picture numbers cannot be used (%s); counting the files instead.", error)
        return used + 1


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]
