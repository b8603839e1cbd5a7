"""One SQLite file in WAL mode for several threads and processes, which never stops the program.

The file is opened when it is first needed, and again whenever another file has taken its name. A file of an older
version is copied beside itself and migrated; one of a newer version is refused; a damaged one is set aside (by the
process that may repair) and a new one is made. Whatever the disk refuses (full, read-only, gone, locked for too long)
becomes `HistoryUnavailable`, whose sentence stays in `trouble` until a write succeeds again.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from webui.errors import HistoryUnavailable

Migrations = Sequence[Sequence[str]]
Identity = tuple[int, int]

BUSY_SECONDS = 5.0
IDLE_CONNECTIONS = 4
RETRY_OPEN_SECONDS = 2.0
CACHE_KIB = 16_384

_REFUSALS = (
    "full", "readonly", "read-only", "disk i/o", "unable to open", "locked", "busy", "not authorized", "permission",
)  # fmt: skip
_DAMAGES = (
    "malformed",
    "vtable constructor failed",
    "not a database",
    "encrypted",
    "corrupt",
    "unsupported file format",
    "no such table",
)

_log = logging.getLogger(__name__)


class Database:
    """Short transactions on `path` from any thread: `with db.read() as connection`, `with db.write() as connection`.

    `repair`: set a damaged file aside instead of raising; `on_damage` then gets the path of what was set aside.
    Both contexts raise `HistoryUnavailable` when the file cannot be used.
    """

    def __init__(
        self,
        path: Path,
        migrations: Migrations,
        *,
        repair: bool = False,
        busy_seconds: float = BUSY_SECONDS,
        on_damage: Callable[[Path], None] | None = None,
    ) -> None:
        self.path = path
        self.trouble = ""
        self._migrations = migrations
        self._repair = repair
        self._busy_seconds = busy_seconds
        self._on_damage = on_damage
        self._lock = threading.Lock()  # over the pool and the opening
        self._writing = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._identity: Identity | None = None
        self._read_only = False
        self._refused: HistoryUnavailable | None = None
        self._refused_at = 0.0

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A consistent view for the length of the block. Writers go on meanwhile."""
        with self._explained(writing=False), self._borrowed() as (connection, _):
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                _roll_back(connection)

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of the block or nothing of it."""
        with self._writing, self._explained(writing=True), self._borrowed() as (connection, read_only):
            if read_only:
                raise sqlite3.OperationalError("attempt to write a readonly database")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise

    def damaged(self, error: Exception) -> HistoryUnavailable:
        """Deal with a file that turned out to be broken; gives what to raise."""
        damage = HistoryUnavailable(
            f"The history file is damaged ({error}).",
            "It is made again from the pictures themselves; try again in a moment."
            if self._repair
            else "Restart the program: it makes the history again from the pictures.",
        )
        with self._lock:
            if _identity(self.path) == self._identity or self._identity is None:
                self._drop_connections()
                if self._repair:
                    self._set_aside(error)
            self._identity = None
        self.trouble = damage.message
        return damage

    def close(self) -> None:
        with self._lock:
            self._drop_connections()
            self._identity = None

    # Connections

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[tuple[sqlite3.Connection, bool]]:
        connection, identity, read_only = self._take()
        try:
            yield connection, read_only
        finally:
            with self._lock:
                if identity == self._identity and len(self._idle) < IDLE_CONNECTIONS and not connection.in_transaction:
                    self._idle.append(connection)
                    connection = None  # type: ignore[assignment]
            if connection is not None:
                connection.close()

    def _take(self) -> tuple[sqlite3.Connection, Identity | None, bool]:
        with self._lock:
            if self._identity is None or _identity(self.path) != self._identity:
                self._drop_connections()
                self._open()
            connection = self._idle.pop() if self._idle else self._connect(self._read_only)
            return connection, self._identity, self._read_only

    def _drop_connections(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _open(self) -> None:
        """Make the file ready for use. Raises `HistoryUnavailable`; not tried again for two seconds then."""
        if self._refused is not None and time.monotonic() - self._refused_at < RETRY_OPEN_SECONDS:
            raise self._refused
        try:
            self._open_or_repair()
            self._refused = None
        except HistoryUnavailable as error:
            self._refused, self._refused_at = error, time.monotonic()
            self.trouble = error.message
            raise

    def _open_or_repair(self) -> None:
        self._read_only = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._prepare()
        except (OSError, sqlite3.OperationalError) as error:
            if not _has(error, _DAMAGES):
                self._open_read_only(error)
                return
            self._open_again_after(error)
        except sqlite3.DatabaseError as error:
            self._open_again_after(error)
        self._identity = _identity(self.path)

    def _open_again_after(self, error: Exception) -> None:
        if not self._repair:
            raise HistoryUnavailable(
                f"The history file is damaged ({error}).", "Restart the program: it is made again from the pictures."
            ) from error
        self._set_aside(error)
        try:
            self._prepare()
        except (OSError, sqlite3.DatabaseError) as second:
            raise _unavailable(second, "opened") from second

    def _open_read_only(self, error: Exception) -> None:
        """Nothing can be written there, but perhaps what is there can be read."""
        try:
            with contextlib.closing(self._connect(read_only=True)) as connection:
                if connection.execute("PRAGMA user_version").fetchone()[0] != len(self._migrations):
                    raise _unavailable(error, "opened") from error
        except sqlite3.DatabaseError:
            raise _unavailable(error, "opened") from error
        self._read_only = True
        self._identity = _identity(self.path)
        self.trouble = _unavailable(error, "written").message

    def _connect(self, read_only: bool = False) -> sqlite3.Connection:
        # immutable: a read-only folder has no place for the files that WAL needs.
        options = "mode=ro&immutable=1" if read_only else "mode=rwc"
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?{options}",
            uri=True,
            timeout=self._busy_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA journal_size_limit=16777216")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        return connection

    # Versions

    def _prepare(self) -> None:
        with contextlib.closing(self._connect()) as connection:
            version = _version(connection)
            if version > len(self._migrations):
                raise HistoryUnavailable(
                    f"The history was written by a newer version of this program (format {version}).",
                    "Update the program to see it; pictures are saved all the same, and it is left as it is.",
                )
            if version and connection.execute("SELECT 1 FROM sqlite_master WHERE name='pictures'").fetchone() is None:
                raise sqlite3.DatabaseError("its tables are missing, the database is malformed")
            self._use_wal(connection)
            if 0 < version < len(self._migrations):
                self._keep_copy(connection)
            migrate(connection, self._migrations)

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        """A file system without shared memory keeps its own mode; SQLite does not wait for a lock here by itself."""
        until = time.monotonic() + self._busy_seconds
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def _keep_copy(self, connection: sqlite3.Connection) -> None:
        """What an older version wrote stays beside the file before it is changed; nobody migrates it meanwhile."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = _version(connection)  # under the lock: another opener may have been faster
            target = self.path.with_name(f"{self.path.name}.v{version}.bak")
            if version == len(self._migrations) or target.exists():
                return
            temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}.tmp")
            try:
                # Read through a second connection: a backup waits for ever for the lock that its own source holds.
                with (
                    contextlib.closing(self._connect()) as source,
                    contextlib.closing(sqlite3.connect(temporary)) as copy,
                ):
                    source.backup(copy)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        finally:
            _roll_back(connection)

    def _set_aside(self, error: Exception) -> None:
        """Move the broken file (and what belongs to it) to another name. Raises `HistoryUnavailable` if it stays."""
        aside = _free_name(self.path, time.strftime("corrupt-%Y%m%d-%H%M%S"))
        try:
            for ending in ("-wal", "-shm", ""):
                part = self.path.with_name(self.path.name + ending)
                if part.exists():
                    part.replace(aside.with_name(aside.name + ending))
        except OSError as second:
            raise _unavailable(second, "replaced") from error
        _log.warning("The history file was damaged (%s). It was kept as %s; a new one is made.", error, aside.name)
        if self._on_damage is not None:
            self._on_damage(aside)

    @contextlib.contextmanager
    def _explained(self, *, writing: bool) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise
            if _has(error, _DAMAGES):
                raise self.damaged(error) from error
            if not _has(error, _REFUSALS):
                raise
            refusal = _unavailable(error, "written" if writing else "read")
            self.trouble = refusal.message
            raise refusal from error
        if writing:
            self.trouble = ""


def migrate(connection: sqlite3.Connection, migrations: Migrations) -> None:
    """Apply what is missing, each step in a transaction of its own. Several processes may try at once."""
    for number in range(_version(connection), len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _version(connection) == number:  # under the lock: another opener may have been faster
                for statement in migrations[number]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={number + 1}")
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.DatabaseError):  # SQLite may have rolled back by itself
            connection.execute("ROLLBACK")


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _free_name(path: Path, ending: str) -> Path:
    aside = path.with_name(f"{path.name}.{ending}")
    number = 2
    while aside.exists():
        aside = path.with_name(f"{path.name}.{ending}-{number}")
        number += 1
    return aside


def _has(error: Exception, words: Sequence[str]) -> bool:
    text = str(error).lower()
    return any(word in text for word in words)


def _unavailable(error: Exception, verb: str) -> HistoryUnavailable:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return HistoryUnavailable(
        f"The history cannot be {verb} at present ({reason}).",
        "Pictures are made and saved all the same. Make room on the disk, or give write access to the outputs folder.",
    )
