"""What a damaged history file still holds goes over into the new one: favourites, notes and owners are nowhere else."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from webui.errors import WebUIError
from webui.history import rows
from webui.history.database import Database
from webui.history.records import Record, State, checked

CHUNK = 200
DONE = "-rescued"

_log = logging.getLogger(__name__)


def rescue(damaged: Path, database: Database) -> int:
    """Copy every picture that can still be read, and drafts and shares; gives how many pictures.

    Never raises for damage.
    """
    count = 0
    try:
        with contextlib.closing(sqlite3.connect(f"{damaged.absolute().as_uri()}?mode=ro", uri=True)) as source:
            source.row_factory = sqlite3.Row
            _count_on(source, database)
            batch: list[tuple[int, Record]] = []
            for item in _readable(source):
                batch.append(item)
                if len(batch) == CHUNK:
                    count += _write(database, batch)
                    batch = []
            count += _write(database, batch)
            _copy_table(source, database, "drafts", ("user", "form", "data", "updated"))
            _copy_table(
                source,
                database,
                "shares",
                ("token_sha256", "picture", "user", "created", "expires", "with_parameters"),
            )
    except sqlite3.Error as error:
        _log.warning("%s: nothing more can be read (%s).", damaged.name, error)
    return count


def not_rescued(path: Path) -> list[Path]:
    """Damaged files that were set aside before, but from which nothing was taken over yet: the program ended first."""
    found = path.parent.glob(f"{path.name}.corrupt-*")
    return sorted(one for one in found if not one.name.endswith((DONE, "-wal", "-shm")))


def mark_rescued(damaged: Path) -> None:
    """Give a file that was dealt with another name; where that is refused, it is only read again at the next start."""
    for ending in ("-wal", "-shm", ""):
        with contextlib.suppress(OSError):
            damaged.with_name(damaged.name + ending).replace(damaged.with_name(damaged.name + DONE + ending))


def _readable(source: sqlite3.Connection) -> Iterator[tuple[int, Record]]:
    """Each picture that can be loaded whole; looked up one by one, since a walk ends at the first broken page."""
    for picture_id in _ids(source):
        try:
            record = rows.load(source, picture_id, damaged=True)
            if record is not None:
                yield picture_id, checked(record)
        except (sqlite3.Error, WebUIError, ValueError, TypeError):  # a broken page, or nonsense where a value was
            continue


def _ids(source: sqlite3.Connection) -> list[int]:
    """Every id there may be: from whichever tables can be walked, else by counting up to the highest."""
    found: set[int] = set()
    complete = False
    for query in ("SELECT id FROM pictures NOT INDEXED", "SELECT id FROM pictures", "SELECT picture FROM details"):
        try:
            for row in source.execute(query):
                found.add(row[0])
            complete = True
        except sqlite3.Error:
            continue
    if not complete:
        with contextlib.suppress(sqlite3.Error):
            row = source.execute("SELECT seq FROM sqlite_sequence WHERE name='pictures'").fetchone()
            found.update(range(1, min(int(row[0]), 2_000_000) + 1) if row else ())
    return sorted(one for one in found if isinstance(one, int) and one > 0)


def _count_on(source: sqlite3.Connection, database: Database) -> None:
    """Ids are never used twice, so new pictures get higher ones than any that was ever given."""
    with contextlib.suppress(sqlite3.Error):
        last = source.execute("SELECT seq FROM sqlite_sequence WHERE name='pictures'").fetchone()
        if last is not None and isinstance(last[0], int) and 0 < last[0] < 2**62:
            with database.write() as db:
                changed = db.execute("UPDATE sqlite_sequence SET seq=max(seq, ?) WHERE name='pictures'", (last[0],))
                if changed.rowcount == 0:
                    db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('pictures', ?)", (last[0],))


def _write(database: Database, batch: list[tuple[int, Record]]) -> int:
    count = 0
    with database.write() as db:
        for picture_id, record in batch:
            if _known(db, picture_id, record):
                continue
            rows.insert(db, record, picture_id=picture_id)
            count += 1
    return count


def _known(db: sqlite3.Connection, picture_id: int, record: Record) -> bool:
    """Whether it was taken over before, or its file was recorded in the new history meanwhile."""
    if db.execute("SELECT 1 FROM pictures WHERE id=? AND position=?", (picture_id, record.position)).fetchone():
        return True
    if record.state is not State.present:
        return False
    return (
        db.execute(
            "SELECT 1 FROM pictures p JOIN folders f ON f.id = p.folder"
            " WHERE f.path=? AND p.path=? AND p.state='present'",
            (record.folder, record.path),
        ).fetchone()
        is not None
    )


def _copy_table(source: sqlite3.Connection, database: Database, table: str, columns: tuple[str, ...]) -> None:
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    kept: list[tuple[object, ...]] = []
    with contextlib.suppress(sqlite3.Error):
        for row in source.execute(f"SELECT {names} FROM {table}"):
            kept.append(tuple(row))
    with database.write() as db:
        for values in kept:
            if table == "drafts" and not _is_json(values[2]):
                continue
            with contextlib.suppress(sqlite3.IntegrityError):  # a share whose picture could not be read
                db.execute(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", values)


def _is_json(text: object) -> bool:
    try:
        return isinstance(json.loads(str(text)), dict)
    except ValueError:
        return False
