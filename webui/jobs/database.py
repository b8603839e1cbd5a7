"""One SQLite file with numbered migrations that never keeps the program from starting or going on.

A damaged file is set aside and a new one is made; a file of a newer version is left alone; when the disk refuses a
write (full, read-only, locked by a foreign program), everything moves into memory and back to the disk as soon as it
takes writes again; a file that somebody deletes is written anew. Each of these is told once in `problems`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
Tell = Callable[[str], None]

BUSY_TIMEOUT = 5.0  # seconds
_SQLITE_BUSY, _SQLITE_LOCKED = 5, 6  # sqlite3 has names for them from Python 3.11 on
RETRY_DISK_AFTER = 5.0  # seconds between attempts to leave memory for the disk again


class Database:
    """A connection for any thread, one transaction at a time.

    `migrations[n]` is the SQL script that leads from version n to n + 1. `tell` gets one sentence for each problem.
    The file belongs to one program at a time (`webui.jobs.lock` sees to that).
    """

    def __init__(self, path: Path, migrations: Sequence[str], tell: Tell) -> None:
        self._path = path
        self._migrations = migrations
        self._tell = tell
        self._lock = threading.RLock()
        self._retry_at = 0.0
        self._disk = self._open()
        self._memory = None if self._disk else self._empty_memory()

    @property
    def durable(self) -> bool:
        """Whether writes reach the disk at present."""
        return self._memory is None

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work` in one immediate transaction: all of it or nothing. It may be called twice, so it has no side effect.

        Raises what `work` raises. A disk that refuses is no error: see the module's text.
        """
        with self._lock:
            self._replace_deleted()
            self._return_to_disk()
            connection = self._memory or self._disk
            assert connection is not None
            try:
                return _transaction(connection, work)
            except sqlite3.DatabaseError as error:
                if self._memory is not None or not _is_disk_trouble(error):
                    raise
                self._leave_disk(error)
                return _transaction(self._memory_now(), work)

    def close(self) -> None:
        """A last attempt to bring what is in memory to the disk, then the end."""
        with self._lock:
            self._retry_at = 0.0
            self._replace_deleted()
            self._return_to_disk()
            for connection in (self._memory, self._disk):
                if connection is not None:
                    connection.close()

    def _memory_now(self) -> sqlite3.Connection:
        assert self._memory is not None
        return self._memory

    # Opening

    def _open(self) -> sqlite3.Connection | None:
        """The file, migrated; None where this session has to do without."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._open_file()
        except _NewerVersion as newer:
            self._tell(
                f"{self._path.name} was written by a newer version ({newer}). It is left as it is, and what happens "
                "in this session is not kept."
            )
            return None
        except (sqlite3.OperationalError, OSError) as error:
            self._tell(f"{self._path.name} cannot be opened ({error}). What happens in this session is not kept.")
            return None
        except sqlite3.DatabaseError as error:
            return self._open_after_setting_aside(error)

    def _open_after_setting_aside(self, error: Exception) -> sqlite3.Connection | None:
        name = f"{self._path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}"
        try:
            for suffix in ("-wal", "-shm", ""):
                part = self._path.with_name(self._path.name + suffix)
                if part.exists():
                    part.replace(self._path.with_name(name + suffix))
            connection = self._open_file()
        except (sqlite3.DatabaseError, OSError) as second:
            self._tell(f"{self._path.name} is damaged and cannot be replaced ({second}). This session is not kept.")
            return None
        self._tell(f"{self._path.name} was damaged ({error}). It was kept as {name}, and a new one was made.")
        return connection

    def _open_file(self) -> sqlite3.Connection:
        connection = _connect(str(self._path))
        try:
            found: int = connection.execute("PRAGMA user_version").fetchone()[0]
            if found > len(self._migrations):
                raise _NewerVersion(found)
            check: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if check != "ok":
                raise sqlite3.DatabaseError(check.splitlines()[0])
            connection.execute("PRAGMA journal_mode=WAL")
            if 0 < found < len(self._migrations):
                self._keep_copy(connection, found)
            migrate(connection, self._migrations)
        except BaseException:
            connection.close()
            raise
        return connection

    def _keep_copy(self, connection: sqlite3.Connection, version: int) -> None:
        """What an older version wrote stays beside the file before it is changed."""
        copy = sqlite3.connect(str(self._path.with_name(f"{self._path.name}.v{version}.bak")))
        try:
            connection.backup(copy)
        finally:
            copy.close()

    def _empty_memory(self) -> sqlite3.Connection:
        connection = _connect(":memory:")
        migrate(connection, self._migrations)
        return connection

    # When the disk refuses

    def _replace_deleted(self) -> None:
        """A file that was deleted under us still takes every write, and all of it ends with us: write it anew.

        Another file in its place is nobody's but its owner's, and stays.
        """
        if self._disk is None or not self._is_gone() or time.monotonic() < self._retry_at:
            return
        try:
            fresh = self._copied()
        except (sqlite3.DatabaseError, OSError) as error:
            if self._memory is None:
                self._leave_disk(error)
            self._retry_at = time.monotonic() + RETRY_DISK_AFTER
            return
        self._disk.close()
        self._disk = fresh
        self._tell(f"{self._path.name} was deleted while it was in use. It has been written anew.")

    def _is_gone(self) -> bool:
        try:
            self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # a share that does not answer, say: writing will tell
            return False
        return False

    def _copied(self) -> sqlite3.Connection:
        assert self._disk is not None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("-wal", "-shm"):  # they belong to the deleted one
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        fresh = _connect(str(self._path))
        try:
            self._disk.backup(fresh, progress=_not_for_ever)
            fresh.execute("PRAGMA journal_mode=WAL")
        except BaseException:
            fresh.close()
            raise
        return fresh

    def _leave_disk(self, error: Exception) -> None:
        memory = _connect(":memory:")
        try:
            assert self._disk is not None
            self._disk.backup(memory, progress=_not_for_ever)
            migrate(memory, self._migrations)
        except sqlite3.DatabaseError:  # not even readable any more
            memory.close()
            memory = self._empty_memory()
        self._memory = memory
        self._retry_at = time.monotonic() + RETRY_DISK_AFTER
        self._tell(
            f"{self._path.name} cannot be written ({error}). Work goes on in memory; make room on the disk or give "
            "write access, and it will be written again."
        )

    def _return_to_disk(self) -> None:
        if self._memory is None or self._disk is None or time.monotonic() < self._retry_at or self._is_gone():
            return
        try:
            self._memory.backup(self._disk, progress=_not_for_ever)
        except sqlite3.DatabaseError:
            self._retry_at = time.monotonic() + RETRY_DISK_AFTER
            return
        self._memory.close()
        self._memory = None
        self._tell(f"{self._path.name} is written to the disk again.")


class _NewerVersion(Exception):
    pass


def _connect(name: str) -> sqlite3.Connection:
    connection = sqlite3.connect(name, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA journal_size_limit=4194304")
    return connection


def migrate(connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
    """Apply what is missing, each step in a transaction of its own. Forward only."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    for number in range(version, len(migrations)):
        with _immediate(connection):
            # Looked up again under the lock: another opener of the same file may have been faster.
            if connection.execute("PRAGMA user_version").fetchone()[0] > number:
                continue
            for statement in migrations[number].split(";"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version={number + 1}")


@contextlib.contextmanager
def _immediate(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.DatabaseError):  # SQLite may have rolled back by itself
            connection.execute("ROLLBACK")
        raise


def _transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    with _immediate(connection):
        return work(connection)


def _not_for_ever(status: int, _remaining: int, _total: int) -> None:
    """Between the steps of a copy: sqlite3 itself would wait without end for a file that is locked."""
    if status in (_SQLITE_BUSY, _SQLITE_LOCKED):
        raise sqlite3.OperationalError("database is locked")


def _is_disk_trouble(error: sqlite3.DatabaseError) -> bool:
    """Not a constraint, not a defect in a statement."""
    return type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError)
