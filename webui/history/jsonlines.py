"""Export and import as JSON lines: one picture a line, everything that is known of it but the file itself.

What an administrator exports and imports again is the same history: ids are kept where nobody has them, parents are
found again, and a line whose picture is already there only adds what is missing (favourite, tags, notes). A line that a
user imports becomes that user's, and never claims a file: a path in a line is only a claim, and the file could be
anybody's. Folders outside the outputs folder are written and believed on the command line alone (`folders`): over HTTP
they would tell, or open, paths of the machine.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from webui.errors import InvalidParams, WebUIError
from webui.history import rows, search
from webui.history.database import Database
from webui.history.query import Query
from webui.history.records import Record, State, from_line, to_line

CHUNK = 200
MAX_PROBLEMS = 20
MAX_EXPORTED = 10_000_000


@dataclass(frozen=True, slots=True)
class ImportedLines:
    """How many pictures were added, how many were there already, and a sentence for each line that is none."""

    added: int
    known: int
    refused: int
    problems: tuple[str, ...]  # of the first twenty


def export(database: Database, user: str | None, query: Query, *, folders: bool = False) -> Iterator[str]:
    """Lines with their newline, the oldest picture first, so that parents come before their children."""
    with database.read() as db:
        ids = search.ids(db, user, query, MAX_EXPORTED)
    ids.reverse()
    for start in range(0, len(ids), CHUNK):
        with database.read() as db:
            part = [(one, rows.load(db, one)) for one in ids[start : start + CHUNK]]
        for picture_id, record in part:
            if record is not None:
                yield to_line(record if folders else _without_folder(record), picture_id) + "\n"


def import_lines(
    database: Database, outputs: Path, user: str | None, lines: Iterable[str], *, folders: bool = False
) -> ImportedLines:
    """Take in lines, in short transactions: what was taken in before a break stays, and is known the next time."""
    added = known = refused = 0
    problems: list[str] = []
    ids: dict[int, int] = {}  # of the lines -> here
    waiting: list[tuple[Record, int | None]] = []

    def write() -> None:
        nonlocal added, known
        with database.write() as db:
            for record, old_id in waiting:
                here = _find(db, record)
                if here is None:
                    parent = ids.get(record.parent or 0)
                    record = replace(record, parent=parent)
                    here = rows.insert(db, record, picture_id=old_id if user is None else None)
                    added += 1
                else:
                    _add_marks(db, here, record)
                    known += 1
                if old_id is not None:
                    ids[old_id] = here
        waiting.clear()

    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record, old_id = from_line(line)
            record = record if folders else _without_folder(record)
            waiting.append((_for_user(record, user, outputs), old_id))
        except WebUIError as error:
            refused += 1
            if len(problems) < MAX_PROBLEMS:
                problems.append(f"Line {number}: {error.message}")
        if len(waiting) >= CHUNK:
            write()
    write()
    return ImportedLines(added, known, refused, tuple(problems))


def _without_folder(record: Record) -> Record:
    """A picture outside the outputs folder as one whose place is not told."""
    if not record.folder:
        return record
    return replace(record, folder="", path=None, state=State.missing if record.state.shown else record.state)


def _for_user(record: Record, user: str | None, outputs: Path) -> Record:
    if record.state is State.writing:
        raise InvalidParams("The line is of a picture that was never finished.")
    if user is not None:
        record = _without_folder(record)
        no_thumbnail = secrets.token_hex(16)  # not that of the pixels it claims, which may be another's
        return replace(record, user=user, path=None, state=State.missing, job="", thumbnail=no_thumbnail)
    if record.state in (State.present, State.trashed):
        base = Path(record.folder) if record.folder else outputs
        there = record.path is not None and (base / record.path).is_file()
        return replace(record, state=State.present if there else State.missing)
    return record


def _find(db: sqlite3.Connection, record: Record) -> int | None:
    """The row that is this picture already."""
    if record.state is State.present:
        row = db.execute(
            "SELECT p.id FROM pictures p JOIN folders f ON f.id = p.folder"
            " WHERE f.path=? AND p.path=? AND p.state='present'",
            (record.folder, record.path),
        ).fetchone()
        if row is not None:
            return int(row[0])
    row = db.execute(
        "SELECT p.id FROM pictures p JOIN details d ON d.picture = p.id"
        " WHERE p.user=? AND p.position=? AND p.seed IS ? AND d.params=? AND p.pixels_sha256=? AND p.state<>'writing'",
        (record.user, record.position, record.seed, record.params, record.pixels_sha256),
    ).fetchone()
    return int(row[0]) if row is not None else None


def _add_marks(db: sqlite3.Connection, picture_id: int, record: Record) -> None:
    """Favourite, tags and notes of the line, where the row has none."""
    if record.favourite:
        db.execute("UPDATE pictures SET favourite=1 WHERE id=?", (picture_id,))
    rows.add_tags(db, picture_id, record.tags)
    present = rows.load(db, picture_id)
    if record.notes and present is not None and not present.notes:
        rows.set_notes(db, picture_id, record.notes)
