"""Deleting with undo: rows and files go into the trash together, come back together, and go for good on request.

The file moves first and the row follows. A crash in between leaves a row that says otherwise than the disk, which the
next start puts right (`reconcile`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from webui.errors import SaveError
from webui.history import rows, trash
from webui.history.database import Database
from webui.history.records import State
from webui.history.rights import Picture, own_pictures
from webui.history.schema import OUTPUTS
from webui.history.thumbnails import Thumbnails


def delete(database: Database, outputs: Path, user: str | None, picture_ids: Sequence[int]) -> list[int]:
    """Into the trash; gives the ids that went.

    A file that cannot be moved stays, and so does its picture; `SaveError` is raised once the others are done.
    """
    with database.read() as db:
        found = own_pictures(db, user, picture_ids)
    gone: list[int] = []
    failure: SaveError | None = None
    for picture in found:
        record = picture.record
        if record.state is State.trashed:
            continue
        try:
            if record.path is not None and not record.folder:
                trash.move_to_trash(outputs, picture.id, record.path)
            gone.append(picture.id)
        except SaveError as error:
            failure = error
    with database.write() as db:
        for picture_id in gone:
            rows.set_state(db, picture_id, State.trashed)
    if failure is not None:
        raise failure
    return gone


def restore(database: Database, outputs: Path, user: str | None, picture_ids: Sequence[int]) -> list[int]:
    """Out of the trash; gives the ids that came back. Raises `SaveError` as `delete` does."""
    with database.read() as db:
        found = own_pictures(db, user, picture_ids)
    back: list[tuple[int, State, str | None]] = []
    failure: SaveError | None = None
    for picture in found:
        if picture.record.state is State.trashed:
            try:
                back.append((picture.id, *_bring_back(outputs, picture)))
            except SaveError as error:
                failure = error
    with database.write() as db:
        for picture_id, state, path in back:
            # Where two restore it at once, only the one that moved the file knows where it is.
            moved = db.execute(
                "UPDATE pictures SET path=? WHERE id=? AND (state='trashed' OR ?)",
                (path, picture_id, state is State.present),
            )
            if moved.rowcount:
                rows.set_state(db, picture_id, state)
    if failure is not None:
        raise failure
    return [picture_id for picture_id, _, _ in back]


def _bring_back(outputs: Path, picture: Picture) -> tuple[State, str | None]:
    record = picture.record
    if record.path is None:
        return (State.unsaved if record.error else State.missing), None
    if record.folder:
        there = (Path(record.folder) / record.path).is_file()
        return (State.present if there else State.missing), record.path
    path = trash.bring_back(outputs, picture.id, record.path)
    return (State.missing, record.path) if path is None else (State.present, path)


def empty_trash(
    database: Database, outputs: Path, thumbnails: Thumbnails, user: str | None, picture_ids: Sequence[int] | None
) -> int:
    """Delete what is in the user's trash for good, or only the named ones of it; gives how many went."""
    wanted = None if picture_ids is None else set(picture_ids)
    with database.read() as db:
        trashed = db.execute(
            "SELECT id, folder, path, thumbnail FROM pictures WHERE state='trashed' AND (:user IS NULL OR user=:user)",
            {"user": user},
        ).fetchall()
    removed = []
    failure: SaveError | None = None
    for row in trashed:
        if wanted is not None and row["id"] not in wanted:
            continue
        try:
            if row["folder"] == OUTPUTS and row["path"] is not None:
                trash.remove(outputs, row["id"], row["path"])
            removed.append(row)
        except SaveError as error:
            failure = error
    with database.write() as db:
        rows.delete(db, [row["id"] for row in removed])
        unused = {
            row["thumbnail"]
            for row in removed
            if not db.execute("SELECT 1 FROM pictures WHERE thumbnail=?", (row["thumbnail"],)).fetchone()
        }
    for key in unused:
        thumbnails.drop(key)
    if failure is not None:
        raise failure
    return len(removed)
