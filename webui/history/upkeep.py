"""The work in the background that keeps the history true: rescue after damage, then rows and files brought together."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from webui.errors import WebUIError
from webui.history.database import Database
from webui.history.reconcile import Origin, Reconciled, reconcile
from webui.history.rescue import mark_rescued, not_rescued, rescue
from webui.history.thumbnails import Thumbnails

STOP_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Upkeep:
    """One thread at most: at the start-up, when the file turned out to be damaged, and when a worker has died."""

    def __init__(self, database: Database, outputs: Path, thumbnails: Thumbnails) -> None:
        self._database = database
        self._outputs = outputs
        self._thumbnails = thumbnails
        self._origins: Callable[[], Mapping[str, Origin]] = dict
        self._set_aside: list[Path] = []
        self._working = threading.Lock()  # over the work itself
        self._lock = threading.Lock()  # over the three below; nothing else is done inside it
        self._thread: threading.Thread | None = None
        self._running = False
        self._once_more = False
        self._stopping = threading.Event()

    def start(self, origins: Callable[[], Mapping[str, Origin]]) -> None:
        """Check the file, rescue, and reconcile, in the background."""
        self._origins = origins
        self._set_aside += not_rescued(self._database.path)
        self.again()

    def again(self) -> None:
        """The same once more; if it is being done, after that."""
        with self._lock:
            if self._stopping.is_set():
                return
            if self._running:
                self._once_more = True
                return
            self._running = True
            self._thread = threading.Thread(target=self._work, name="history-upkeep", daemon=True)
            self._thread.start()

    def damaged(self, aside: Path) -> None:
        """The database set its file aside. It calls this inside its lock, so nothing is done here but to ask for it."""
        self._set_aside.append(aside)
        self.again()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the work in the background; True when there is none."""
        end = None if seconds is None else time.monotonic() + seconds
        while self._running:
            if end is not None and time.monotonic() >= end:
                return False
            time.sleep(0.005)
        return True

    def stop(self) -> None:
        self._stopping.set()
        thread = self._thread
        if thread is not None:
            thread.join(STOP_SECONDS)

    def run(self) -> Reconciled:
        """Rescue what damaged files still hold, then reconcile; now and in this thread. Raises `HistoryUnavailable`."""
        with self._working:
            self._rescue()
            result = reconcile(self._database, self._outputs, origins=self._origins, stop=self._stopping.is_set)
            self._thumbnails.prune()
            return result

    def _work(self) -> None:
        while True:
            try:
                self._check()
                _log.debug("history: %s", self.run())
            except WebUIError as error:
                _log.warning("%s", error)
            except Exception:  # the program goes on without
                _log.exception("the upkeep of the history met a fault")
            with self._lock:
                if not self._once_more or self._stopping.is_set():
                    self._running = False
                    return
                self._once_more = False

    def _check(self) -> None:
        """SQLite's own check of the whole file; it takes seconds for a large one, and nobody waits for it."""
        with self._database.read() as db:
            found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
        if found != "ok":
            self._database.damaged(sqlite3.DatabaseError(found.splitlines()[0]))

    def _rescue(self) -> None:
        while self._set_aside:
            aside = self._set_aside[0]
            count = rescue(aside, self._database)
            mark_rescued(aside)
            self._set_aside.pop(0)
            _log.warning("%d pictures were taken over from %s.", count, aside.name)
