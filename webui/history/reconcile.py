"""At the start: what the rows say and what lies in the outputs folder are brought together.

- a `writing` row (the program died while it saved): its file exists, so it is a finished picture; or it never was one;
- a file without a row is indexed from its own metadata, and from the queue's records where those still know its job;
- a row without its file is marked missing, and found again when the file comes back;
- a file that was moved into or out of the trash, but whose row does not say so yet.

Listing ten thousand files takes a fraction of a second; reading the text of those that are new takes longer, so it runs
in the background, in short transactions.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from webui.errors import InvalidParams, WebUIError
from webui.history import rows
from webui.history.database import Database
from webui.history.metadata import is_picture, read_record
from webui.history.records import State
from webui.history.schema import OUTPUTS
from webui.history.trash import TRASH, trashed_file
from webui.params import make_params

CHUNK = 200  # rows in one transaction
MAX_DEPTH = 16  # folders below outputs

_log = logging.getLogger(__name__)

Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Origin:
    """What the queue knows of a saved file."""

    job: str
    user: str
    params: str  # canonical JSON
    index: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How many pictures were finished, removed as never made, indexed, marked missing, found again; files unread."""

    finished: int = 0
    removed: int = 0
    indexed: int = 0
    missing: int = 0
    found: int = 0
    unreadable: int = 0


def origins_of(views: Iterable[Mapping[str, Any]]) -> dict[str, Origin]:
    """Saved files by their relative path, from the queue's job views."""
    found: dict[str, Origin] = {}
    for view in views:
        params = ""
        if not view.get("sources"):  # what one picture of a folder was made from stands in its own text
            with contextlib.suppress(InvalidParams):
                params = make_params(dict(view["params"])).canonical_json()
        for image in view["images"]:
            if image["path"]:
                found[image["path"]] = Origin(view["id"], view["user"], params, image["index"])
    return found


def reconcile(
    database: Database,
    outputs: Path,
    *,
    origins: Callable[[], Mapping[str, Origin]] = dict,
    user: str = "",
    stop: Stop = lambda: False,
) -> Reconciled:
    """Do all of it; `user` owns files that nobody else is known to own. Raises `HistoryUnavailable`."""
    finished, removed = _settle_announced(database, outputs)
    files = set(picture_files(outputs))
    changes, orphans = _compare(database, outputs, files)
    for part in _chunks(changes):
        with database.write() as db:
            for picture_id, old, new in part:
                row = db.execute("SELECT state FROM pictures WHERE id=?", (picture_id,)).fetchone()
                if row is not None and row["state"] == old.value:  # else somebody was faster
                    rows.set_state(db, picture_id, new)
    indexed, unreadable = _index(database, outputs, orphans, origins, user, stop)
    indexed += _index_trash(database, outputs, user)
    return Reconciled(
        finished,
        removed,
        indexed,
        sum(new is State.missing for _, _, new in changes),
        sum(old is State.missing for _, old, _ in changes),
        unreadable,
    )


def picture_files(folder: Path) -> Iterator[str]:
    """The pictures below a folder, as paths relative to it with "/"; hidden folders and files are left out.

    Names that are not valid text (bytes of another encoding) cannot be stored and are left out, too.
    """

    def walk(path: str, prefix: str, depth: int) -> Iterator[str]:
        try:
            entries = list(os.scandir(path))
        except OSError as error:
            _log.warning("The folder %r cannot be listed: %s", path, error)
            return
        for entry in entries:
            if entry.name.startswith(".") or not _is_text(entry.name):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    if depth < MAX_DEPTH:
                        yield from walk(entry.path, f"{prefix}{entry.name}/", depth + 1)
                elif is_picture(entry.name) and entry.is_file():
                    yield prefix + entry.name
            except OSError:
                continue

    yield from walk(os.fspath(folder), "", 0)


def _is_text(name: str) -> bool:
    return "\\" not in name and all(ch >= " " and not "\ud800" <= ch <= "\udfff" for ch in name)


def _settle_announced(database: Database, outputs: Path) -> tuple[int, int]:
    """Rows that were announced: finished pictures, or none. A writer that is still alive puts its row back itself."""
    finished = removed = 0
    with database.write() as db:
        announced = db.execute(
            "SELECT p.id, p.path, f.path AS folder FROM pictures p JOIN folders f ON f.id = p.folder"
            " WHERE p.state='writing'"
        ).fetchall()
        for row in announced:
            base = Path(row["folder"]) if row["folder"] else outputs
            if (base / row["path"]).is_file():
                rows.set_state(db, row["id"], State.present)
                finished += 1
            else:
                rows.delete(db, [row["id"]])
                removed += 1
    return finished, removed


Change = tuple[int, State, State]  # id, state in the row, state that fits the disk


def _compare(database: Database, outputs: Path, files: set[str]) -> tuple[list[Change], list[str]]:
    """The rows that do not fit the disk, and the files that no row knows."""
    by_state: dict[State, dict[str, int]] = {state: {} for state in State}
    with database.read() as db:
        for row in db.execute("SELECT id, path, state FROM pictures WHERE folder=? AND path IS NOT NULL", (OUTPUTS,)):
            by_state[State(row["state"])][row["path"]] = row["id"]
    present, missing, trashed = by_state[State.present], by_state[State.missing], by_state[State.trashed]
    changes: list[Change] = []
    for path, picture_id in present.items():
        if path not in files:
            in_trash = trashed_file(outputs, picture_id, path).is_file()
            changes.append((picture_id, State.present, State.trashed if in_trash else State.missing))
    orphans = []
    for path in sorted(files - present.keys()):
        if path in missing:
            changes.append((missing[path], State.missing, State.present))
        elif path in trashed and not trashed_file(outputs, trashed[path], path).is_file():
            changes.append((trashed[path], State.trashed, State.present))
        else:
            orphans.append(path)
    return changes, orphans


def _index(
    database: Database,
    outputs: Path,
    orphans: list[str],
    origins: Callable[[], Mapping[str, Origin]],
    user: str,
    stop: Stop,
) -> tuple[int, int]:
    if not orphans:
        return 0, 0
    known = origins()
    indexed = unreadable = 0
    for part in _chunks(orphans):
        if stop():
            break
        records = []
        for path in part:
            try:
                record = read_record(outputs / path, folder="", relative=path, user=user)
            except WebUIError as error:
                _log.info("%s is not in the history: %s", path, error)
                unreadable += 1
                continue
            origin = known.get(path)
            if origin is not None:
                record = replace(record, user=origin.user, job=origin.job, source="")
                if origin.params:
                    record = replace(record, params=origin.params, picture_index=origin.index)
            records.append(record)
        with database.write() as db:
            for record in records:
                # Looked up under the lock: the worker may have recorded it since the list was made.
                if not db.execute(
                    "SELECT 1 FROM pictures WHERE folder=? AND path=? AND state IN ('present', 'writing')",
                    (OUTPUTS, record.path),
                ).fetchone():
                    rows.insert(db, record)
                    indexed += 1
    return indexed, unreadable


def _index_trash(database: Database, outputs: Path, user: str) -> int:
    """Files in the trash that no row knows: the history was made anew since they were deleted."""
    trash = outputs / TRASH
    if not trash.is_dir():
        return 0
    indexed = 0
    for path in picture_files(trash):
        number, _, relative = path.partition("/")
        if not relative or not number.isdecimal():
            continue
        with database.read() as db:
            if db.execute("SELECT 1 FROM pictures WHERE id=? AND path=?", (int(number), relative)).fetchone():
                continue
        try:
            record = read_record(trash / path, folder="", relative=relative, user=user)
        except WebUIError:
            continue
        with database.write() as db:
            new = rows.insert(db, replace(record, state=State.trashed), picture_id=int(number))
        if new != int(number):  # another picture has that id now
            target = trashed_file(outputs, new, relative)
            target.parent.mkdir(parents=True, exist_ok=True)
            (trash / path).replace(target)
        indexed += 1
    return indexed


def _chunks(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
