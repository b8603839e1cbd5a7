"""Taking in the folders of other programs: A1111, Forge, ComfyUI, InvokeAI, Fooocus and whatever else has metadata.

The files stay where they are and are only read. What is in the history already (same folder, same relative path) is
passed over, so an import that was broken off goes on where it stopped, and a second one adds only what is new.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from webui.errors import InvalidParams, WebUIError
from webui.history import rows
from webui.history.database import Database
from webui.history.metadata import read_record
from webui.history.reconcile import picture_files
from webui.history.records import Record

CHUNK = 100  # files in one transaction
TELL_SECONDS = 0.1
MAX_UNREADABLE = 50  # named in the result


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is; `file` is the one being read."""

    done: int
    total: int
    added: int
    file: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did. `plain`: pictures without any metadata, which are left out unless everything was asked for.

    `unreadable` names the first fifty files that are no pictures, with the reason.
    """

    found: int
    added: int
    known: int
    plain: int
    refused: int
    unreadable: tuple[str, ...]
    complete: bool  # False: it was stopped


def import_folder(
    database: Database,
    outputs: Path,
    folder: Path,
    *,
    user: str = "",
    everything: bool = False,
    progress: Callable[[ImportProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Imported:
    """Index the pictures below `folder` for `user`. Raises `InvalidParams` for what is no folder."""
    try:
        root = folder.expanduser().resolve(strict=True)
    except (OSError, RuntimeError):
        raise InvalidParams(f"There is no folder {folder}.", "Check its name.") from None
    if not root.is_dir():
        raise InvalidParams(f"{folder} is no folder.", "Give the folder that holds the pictures.")
    base, prefix = _base(database, outputs, root)
    files = [prefix + name for name in sorted(picture_files(root))]
    base_path = Path(base) if base else outputs
    known = _known(database, base)
    new = [name for name in files if name not in known]
    added = plain = refused = 0
    unreadable: list[str] = []
    told = 0.0
    waiting: list[Record] = []
    complete = True

    def write() -> None:
        nonlocal added
        if waiting:
            with database.write() as db:
                for record in waiting:
                    if not _is_known(db, record):
                        rows.insert(db, record)
                        added += 1
            waiting.clear()

    for number, name in enumerate(new):
        if stop():
            complete = False
            break
        if time.monotonic() - told > TELL_SECONDS:
            progress(ImportProgress(len(files) - len(new) + number, len(files), added + len(waiting), name))
            told = time.monotonic()
        try:
            record = read_record(base_path / name, folder=base, relative=name, user=user)
        except WebUIError as error:
            refused += 1
            if len(unreadable) < MAX_UNREADABLE:
                unreadable.append(f"{name}: {error.message}")
            continue
        if not record.infotext and not record.prompt and not record.params and not everything:
            plain += 1
            continue
        waiting.append(record)
        if len(waiting) >= CHUNK:
            write()
    write()
    progress(ImportProgress(len(files), len(files), added, ""))
    return Imported(len(files), added, len(files) - len(new), plain, refused, tuple(unreadable), complete)


def _base(database: Database, outputs: Path, root: Path) -> tuple[str, str]:
    """(folder, prefix of the paths in it): a folder inside one that is known is a part of that one."""
    if root.is_relative_to(outputs):
        relative = root.relative_to(outputs).as_posix()
        return "", "" if relative == "." else relative + "/"
    with database.read() as db:
        folders = [row["path"] for row in db.execute("SELECT path FROM folders WHERE path<>''")]
    for known in sorted(folders, key=len):
        if root.is_relative_to(known):
            relative = root.relative_to(known).as_posix()
            return known, "" if relative == "." else relative + "/"
    return str(root), ""


def _known(database: Database, base: str) -> set[str]:
    with database.read() as db:
        found = db.execute(
            "SELECT p.path FROM pictures p JOIN folders f ON f.id = p.folder"
            " WHERE f.path=? AND p.path IS NOT NULL AND p.state<>'missing'",
            (base,),
        )
        return {row["path"] for row in found}


def _is_known(db: sqlite3.Connection, record: Record) -> bool:
    """Whether there is a row by now. A missing one is found again by this."""
    row = db.execute(
        "SELECT p.id, p.state FROM pictures p JOIN folders f ON f.id = p.folder WHERE f.path=? AND p.path=?"
        " ORDER BY p.state='present' DESC",
        (record.folder, record.path),
    ).fetchone()
    if row is None:
        return False
    if row["state"] == "missing":
        rows.set_state(db, row["id"], record.state)
    return True
