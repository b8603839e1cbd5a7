"""What a user may see and touch: their own pictures; `None` is an administrator. The rest does not exist for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from webui.errors import InvalidParams, NotFound
from webui.history import rows, trash
from webui.history.records import Record, State
from webui.history.schema import OUTPUTS
from webui.paths import safe_path

MAX_SELECTED = 10_000  # pictures in one action


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with its whole record."""

    id: int
    record: Record
    children: int  # pictures made from it

    @property
    def cursor(self) -> str:
        """Its place in the grid: a page may begin before or after it."""
        return f"{self.record.position}.{self.id}"


def get_picture(db: sqlite3.Connection, user: str | None, picture_id: int) -> Picture:
    """Raises `NotFound`, in the same words for what is somebody else's."""
    record = rows.load(db, picture_id) if 0 < picture_id < 2**63 else None
    if record is None or record.state is State.writing or (user is not None and record.user != user):
        raise NotFound("There is no such picture.", "It may have been deleted.")
    children = db.execute("SELECT count(*) FROM pictures WHERE parent=?", (picture_id,)).fetchone()[0]
    return Picture(picture_id, record, children)


def own_ids(db: sqlite3.Connection, user: str | None, picture_ids: Sequence[int]) -> list[int]:
    """Those of the ids that exist and are the user's, once each, in the order given. Raises `InvalidParams`."""
    if len(picture_ids) > MAX_SELECTED:
        raise InvalidParams(f"At most {MAX_SELECTED:,} pictures can be chosen at once.", "Choose fewer.")
    statement = "SELECT 1 FROM pictures WHERE id=:id AND state <> 'writing' AND (:user IS NULL OR user=:user)"
    return [
        one
        for one in dict.fromkeys(picture_ids)
        if 0 < one < 2**63 and db.execute(statement, {"id": one, "user": user}).fetchone()
    ]


def own_pictures(db: sqlite3.Connection, user: str | None, picture_ids: Sequence[int]) -> list[Picture]:
    """The pictures of `own_ids`."""
    return [get_picture(db, user, one) for one in own_ids(db, user, picture_ids)]


def owns_file(db: sqlite3.Connection, user: str | None, path: str) -> bool:
    """Whether the file of that name below the outputs folder is a picture of the user's."""
    statement = "SELECT 1 FROM pictures WHERE folder=? AND path=? AND user=? AND state IN ('present', 'writing')"
    return user is None or db.execute(statement, (OUTPUTS, path, user)).fetchone() is not None


def file_of(outputs: Path, picture: Picture, *, trashed: bool = False) -> Path:
    """The picture's file; one in the trash only where that is asked for. Raises `NotFound`."""
    record = picture.record
    if record.path is None or (record.state is State.trashed and not trashed):
        raise NotFound("The picture has no file.", "It was not saved, was deleted, or is in the trash.")
    if record.folder:
        return safe_path(Path(record.folder), record.path)
    if record.state is State.trashed:
        return safe_path(outputs, trash.trashed_file(Path(), picture.id, record.path).as_posix())
    return safe_path(outputs, record.path)
