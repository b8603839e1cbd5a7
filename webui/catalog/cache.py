"""What was learnt about model files, kept between starts in SQLite.

The cache may be lost, stale or damaged at any time: every answer carries the stamp of the file that it belongs to, is
validated when it is read, and is found again from the file when it is missing. So no fault here is ever an error.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from webui.catalog.inspection import Facts

SCHEMA_VERSION = 1
FACTS_VERSION = 4  # to be raised when detection changes: older rows are then found again
BUSY_SECONDS = 5.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (
    path TEXT NOT NULL, role TEXT NOT NULL, version INTEGER NOT NULL, stamp TEXT NOT NULL, facts TEXT NOT NULL,
    PRIMARY KEY (path, role)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hashes (
    path TEXT NOT NULL, algorithm TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (path, algorithm)
) WITHOUT ROWID;
"""
_DIGEST = re.compile(r"[0-9a-f]{64}").fullmatch
_FACTS: TypeAdapter[Facts] = TypeAdapter(Facts)
_log = logging.getLogger(__name__)

Fingerprint = tuple[int, int, int]  # size, mtime_ns, inode
_LARGEST = 2**63 - 1  # what SQLite can keep; mergerfs and ReFS have inodes of all 64 bits


def kept(fingerprint: Fingerprint) -> Fingerprint:
    """A fingerprint as the cache keeps it: its inode folded into 63 bits."""
    size, mtime_ns, inode = fingerprint
    return size, mtime_ns, inode & _LARGEST


class Cache:
    """Facts and hashes by path. Safe to use from several threads and processes: each call has its own connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told = False

    def facts(self) -> dict[tuple[str, str], tuple[str, str]]:
        """(path, role) -> (stamp, facts as JSON) for all that this version of the program has written."""
        found: dict[tuple[str, str], tuple[str, str]] = {}
        with self._connection() as db:
            for path, role, stamp, text in db.execute(
                "SELECT path, role, stamp, facts FROM facts WHERE version = ?", (FACTS_VERSION,)
            ):
                found[str(path), str(role)] = (str(stamp), str(text))
        return found

    def keep_facts(self, rows: Iterable[tuple[str, str, str, Facts]]) -> None:
        """Remember (path, role, stamp, facts)."""
        values = [(p, r, FACTS_VERSION, s, _FACTS.dump_json(f).decode()) for p, r, s, f in rows]
        with self._connection() as db:
            db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?)", values)

    def forget_facts(self, keys: Iterable[tuple[str, str]]) -> None:
        """Drop what is known about files that are gone (their hashes stay: a disk may come back)."""
        with self._connection() as db:
            db.executemany("DELETE FROM facts WHERE path = ? AND role = ?", list(keys))

    def hashes(self, algorithm: str) -> dict[str, tuple[Fingerprint, str]]:
        """path -> (fingerprint as `kept`, 64 hex digits)."""
        found: dict[str, tuple[Fingerprint, str]] = {}
        with self._connection() as db:
            for path, size, mtime_ns, inode, digest in db.execute(
                "SELECT path, size, mtime_ns, inode, digest FROM hashes WHERE algorithm = ?", (algorithm,)
            ):
                if isinstance(digest, str) and _DIGEST(digest):
                    found[str(path)] = ((size, mtime_ns, inode), digest)
        return found

    def hash_of(self, path: Path, algorithm: str, fingerprint: Fingerprint) -> str | None:
        """The digest of the file as it is now, if it is known."""
        where = "path = ? AND algorithm = ? AND size = ? AND mtime_ns = ? AND inode = ?"
        digest: object = None
        with self._connection() as db:
            for row in db.execute(
                f"SELECT digest FROM hashes WHERE {where}", (str(path), algorithm, *kept(fingerprint))
            ):
                digest = row[0]
        return digest if isinstance(digest, str) and _DIGEST(digest) else None

    def keep_hash(self, path: Path, algorithm: str, fingerprint: Fingerprint, digest: str) -> None:
        with self._connection() as db:
            db.execute(
                "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?)",
                (str(path), algorithm, *kept(fingerprint), digest),
            )

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A transaction. A damaged file is started anew; a disk that refuses means that nothing is kept.

        Neither is what SQLite has no form for: a path that is no UTF-8, a number above 63 bits.
        """
        try:
            db = self._open()
        except (sqlite3.Error, OSError, UnicodeEncodeError) as error:
            self._tell(error)
            db = sqlite3.connect(":memory:")
            db.executescript(_SCHEMA)
        try:
            with db:
                yield db
        except sqlite3.Error as error:
            _log.warning("the model cache could not be read or written: %s", error)
            if _is_damage(error):
                self._remove()
        except (OverflowError, UnicodeEncodeError) as error:
            self._tell(error)
        finally:
            db.close()

    def _tell(self, error: Exception) -> None:
        if not self._told:
            _log.warning("the model cache is not in use: %s", error)
            self._told = True

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._open_once()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            _log.warning("the model cache is damaged and is made anew: %s", error)
            self._remove()
            return self._open_once()

    def _open_once(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=BUSY_SECONDS)
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA_VERSION:
                db.execute("PRAGMA journal_mode = WAL")
                if version:  # made by another version of the program: a cache is not worth a migration
                    db.executescript("DROP TABLE IF EXISTS facts; DROP TABLE IF EXISTS hashes;")
                db.executescript(_SCHEMA)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION:d}")
            db.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            db.close()
            raise
        return db

    def _remove(self) -> None:
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                self._path.with_name(self._path.name + ending).unlink(missing_ok=True)


def parse_facts(text: str) -> Facts | None:
    """Facts from a row of the cache, or None when the row is not what it should be."""
    try:
        return _FACTS.validate_json(text, strict=True)
    except ValidationError:
        return None


def _is_damage(error: sqlite3.Error) -> bool:
    """ "file is not a database", "malformed": as opposed to locked, full or read-only, which are OperationalErrors."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
