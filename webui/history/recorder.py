"""What the process that saves pictures holds: the row of a picture is written in the same step as its file.

The engine runs in another process than the page, and only the process that writes the file knows the moment at which
it gets its name. So the record is made there, around that moment, as a write-ahead intent:

1. `saving` is entered: a row in the state `writing` is committed. It holds everything, the exact params included.
2. The file gets its final name (`paths.write_new`).
3. `saving` is left: the row becomes `present`; or `unsaved` with the reason when the disk refused (F13); or it goes
   when the name was taken and another will be tried.

A crash at any point leaves nothing that the start-up cannot tell apart (`reconcile`): a `writing` row whose file
exists is a finished picture, one whose file does not exist never was one. Two commits in WAL mode without fsync cost a
fraction of a millisecond; one commit around the write would hold the database's lock for as long as a slow disk takes.

The engine knows nothing of this class: it gets `saving` as its save hook (`webui.provenance.SaveHook`). And nothing
that goes wrong with the history ever reaches it (F14, F21): what cannot be written waits in memory, is tried again with
each later picture and at the end of each job, and is told once a job as a warning event. If even that memory is lost,
the file's own metadata brings the picture back at the next start.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from webui import events
from webui.errors import WebUIError
from webui.history import rows
from webui.history.database import Database
from webui.history.records import Record, State, checked, record_of
from webui.history.schema import MIGRATIONS
from webui.paths import Paths
from webui.provenance import SavedPicture

BUSY_SECONDS = 2.0  # a job waits no longer than this for another program to let go of the file
MAX_BACKLOG = 10_000  # records that wait for the disk; the oldest go first, their files keep their own metadata
WARNING = "history"  # code of the warning event

_log = logging.getLogger(__name__)


@dataclass
class _Job:
    id: str = ""
    user: str = ""
    rows: tuple[int, ...] = ()


class Recorder:
    """Records the pictures that this process saves, of one job at a time.

    recorder = Recorder(paths)
    engine = Engine(settings, paths, catalog, save_hook=recorder.saving)
    for event in recorder.following(engine.generate(params), job=job_id, user=user): ...
    """

    def __init__(self, paths: Paths) -> None:
        self._outputs = paths.outputs
        self._database = Database(history_file(paths), MIGRATIONS, busy_seconds=BUSY_SECONDS)
        self._lock = threading.Lock()
        self._job = _Job()
        self._backlog: deque[tuple[int | None, Record]] = deque(maxlen=MAX_BACKLOG)
        self._refusal = ""

    @contextlib.contextmanager
    def saving(self, picture: SavedPicture) -> Iterator[None]:
        """Around the write of one file; the engine's save hook. Raises only what the write raises."""
        job = self._job
        record = self._announced(picture, job)
        row = self._begin(record)
        try:
            yield
        except FileExistsError:  # the name is taken; the next one is a picture of its own
            self._drop(row)
            raise
        except OSError as error:
            if record is not None:
                self._end(row, replace(record, state=State.unsaved, path=None, error=_reason(error)))
            raise
        except BaseException:
            self._drop(row)
            raise
        row = None if record is None else self._end(row, replace(record, state=State.present))
        if row is not None:
            with self._lock:
                job.rows = (*job.rows, row)

    def following(self, stream: Iterator[events.Event], *, job: str = "", user: str = "") -> Iterator[events.Event]:
        """The events of a job, passed on; the pictures saved meanwhile belong to it.

        Time and memory are added to them when it has finished. One warning event is put in if the history could not
        be written. Closing this iterator closes `stream`.
        """
        with self._lock:
            self._job = _Job(job, user)
            self._refusal = ""
        try:
            for event in stream:
                if isinstance(event, events.Finished):
                    self._finished(event)
                if isinstance(event, events.Finished | events.Failed) and self._refusal:
                    yield events.Warning(WARNING, self._refusal)
                yield event
        finally:
            if isinstance(stream, Generator):
                stream.close()  # it may still be saving; the job is its until it has ended
            with self._lock:
                self._job = _Job()

    def close(self) -> None:
        """A last attempt at what waits, then the end."""
        self._flush()
        self._database.close()

    @property
    def waiting(self) -> int:
        """How many records could not be written yet."""
        return len(self._backlog)

    def _announced(self, picture: SavedPicture, job: _Job) -> Record | None:
        try:
            folder, path = place(picture.path, self._outputs)
            return checked(record_of(picture, path, folder, job.id, job.user))
        except WebUIError as error:  # a name that cannot be stored; the picture is saved all the same
            self._refused(error)
            return None

    def _begin(self, record: Record | None) -> int | None:
        if record is None:
            return None
        try:
            with self._database.write() as db:
                return rows.insert(db, record, live=True)
        except (WebUIError, sqlite3.Error) as error:
            self._refused(error)
            return None

    def _end(self, row: int | None, record: Record) -> int | None:
        """The write is over: the row says how. What cannot be said now waits."""
        try:
            with self._database.write() as db:
                settled = _settle(db, row, record)
            self._flush()  # only now: an id counts once its transaction is over
            return settled
        except (WebUIError, sqlite3.Error) as error:
            self._refused(error)
            with self._lock:
                self._backlog.append((row, record))
            return None

    def _drop(self, row: int | None) -> None:
        if row is None:
            return
        try:
            with self._database.write() as db:
                rows.delete(db, [row])
        except (WebUIError, sqlite3.Error) as error:
            self._refused(error)  # the row stays `writing`; without a file the next start removes it

    def _finished(self, event: events.Finished) -> None:
        self._flush()
        with self._lock:
            job = self._job
        try:
            with self._database.write() as db:
                for row in job.rows:
                    rows.set_cost(db, row, event.seconds, event.peak_memory)
        except (WebUIError, sqlite3.Error) as error:
            self._refused(error)

    def _flush(self) -> None:
        """Write what waits, oldest first, until the disk refuses again."""
        while True:
            with self._lock:
                waiting = self._backlog.popleft() if self._backlog else None
            if waiting is None:
                return
            try:
                with self._database.write() as db:
                    _settle(db, *waiting)
            except (WebUIError, sqlite3.Error):
                with self._lock:
                    self._backlog.appendleft(waiting)
                return

    def _refused(self, error: Exception) -> None:
        if not self._refusal:
            _log.warning("%s", error)
        self._refusal = str(error) or type(error).__name__


def _settle(db: sqlite3.Connection, row: int | None, record: Record) -> int:
    """The announced row in its final state; the whole record where there is no such row (any more)."""
    if row is not None and rows.set_state(db, row, record.state, record.error):
        return row
    indexed = rows.indexed_row(db, record)
    if indexed is not None:  # the page found the file first; this record knows more
        found = rows.load(db, indexed)
        if found is not None:
            record = replace(record, favourite=found.favourite, tags=found.tags, notes=found.notes)
        rows.delete(db, [indexed])
    return rows.insert(db, record, picture_id=indexed, live=True)


def history_file(paths: Paths) -> Path:
    """Where the history is: beside the pictures, so that it moves with them."""
    return paths.outputs / "history.sqlite"


def place(path: Path, outputs: Path) -> tuple[str, str]:
    """(folder, path in it) as the history writes them: folder "" for the outputs folder."""
    if path.is_relative_to(outputs):
        return "", path.relative_to(outputs).as_posix()
    return str(path.parent), path.name


def _reason(error: OSError) -> str:
    return f"The picture could not be written: {error.strerror or error}."
