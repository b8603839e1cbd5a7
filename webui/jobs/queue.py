"""The queue: every job's record in one SQLite file, and the only place where a job's state changes.

A change of state is one statement, `UPDATE ... WHERE id=? AND state=?`, and counts only if it changed a row. So of two
claims, or of a claim and a cancel, exactly one wins, in whatever thread or process they run.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webui.errors import InvalidParams, NotFound, QueueFull
from webui.jobs.database import Database, Tell
from webui.jobs.states import OVER, JobState, require_transition

KEEP_FINISHED = 5000  # records of ended jobs; the pictures themselves are never deleted
PRUNE_EVERY = 50  # ended jobs
MAX_NAME = 200  # characters of a user's name and of an idempotency key

MIGRATIONS = (
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        user TEXT NOT NULL,
        key TEXT,
        state TEXT NOT NULL,
        rank INTEGER NOT NULL,
        params TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        rev INTEGER NOT NULL,
        created REAL NOT NULL,
        started REAL,
        finished REAL,
        result TEXT NOT NULL DEFAULT '{}'
    );
    CREATE UNIQUE INDEX jobs_key ON jobs(user, key) WHERE key IS NOT NULL;
    CREATE INDEX jobs_order ON jobs(state, rank, number);
    CREATE TABLE images (
        job INTEGER NOT NULL REFERENCES jobs(number) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        data TEXT NOT NULL,
        PRIMARY KEY (job, number)
    ) WITHOUT ROWID;
    """,
)


class Revisions:
    """Numbers that only grow, across restarts too: they start at the clock's milliseconds (exact in JavaScript)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = int(time.time() * 1000)

    def next(self) -> int:
        with self._lock:
            self._last += 1
            return self._last


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it is stored. Times are unix seconds. `result` is what `live.to_result` wrote, `images` its pictures."""

    number: int
    id: str
    user: str
    state: JobState
    params_json: str
    attempts: int
    rev: int
    created: float
    started: float | None
    finished: float | None
    result: dict[str, Any]
    images: tuple[dict[str, Any], ...]


class JobQueue:
    """The jobs in `path`, for any thread. `tell` gets a sentence for each trouble with the file."""

    def __init__(self, path: Path, *, tell: Tell = lambda _: None, revisions: Revisions | None = None) -> None:
        self.revisions = revisions or Revisions()
        self.order_rev = self.revisions.next()  # grows when positions may have changed
        self._ended = 0
        self._database = Database(path, MIGRATIONS, tell)
        self._prune()

    @property
    def durable(self) -> bool:
        return self._database.durable

    def close(self) -> None:
        self._database.close()

    # In and out

    def enqueue(self, params_json: str, *, user: str = "", key: str | None = None, max_pending: int = 500) -> JobRecord:
        """Add a job at the end. The same user's same `key` gives the job that was made before instead.

        Raises `QueueFull` when `max_pending` jobs wait already, `InvalidParams` for a name out of bounds.
        """
        for what, text in (("user", user), ("key", key or "")):
            if len(text) > MAX_NAME or not text.isprintable():
                raise InvalidParams(f"The {what} has more than {MAX_NAME} characters or one that cannot be printed.")
        job_id, now, rev = secrets.token_hex(8), time.time(), self.revisions.next()

        def work(db: sqlite3.Connection) -> JobRecord:
            if key is not None:
                row = db.execute("SELECT * FROM jobs WHERE user=? AND key=?", (user, key)).fetchone()
                if row is not None:
                    return _record(db, row)
            waiting: int = db.execute("SELECT count(*) FROM jobs WHERE state=?", (JobState.pending.value,)).fetchone()[
                0
            ]
            if waiting >= max_pending:
                raise QueueFull(
                    f"The queue is full: {waiting} jobs wait already.",
                    "Wait for some to finish, or cancel some of them.",
                )
            db.execute(
                "INSERT INTO jobs (id, user, key, state, rank, params, rev, created) VALUES (?,?,?,?,"
                " (SELECT coalesce(max(rank), 0) + 1 FROM jobs), ?,?,?)",
                (job_id, user, key, JobState.pending.value, params_json, rev, now),
            )
            return _get(db, job_id)

        record = self._database.run(work)
        self._order_changed()
        return record

    def claim(self) -> JobRecord | None:
        """Take the next pending job and make it running, or None. No two callers get the same one."""

        def work(db: sqlite3.Connection) -> JobRecord | None:
            while True:
                row = db.execute(
                    "SELECT id FROM jobs WHERE state=? ORDER BY rank, number LIMIT 1", (JobState.pending.value,)
                ).fetchone()
                if row is None:
                    return None
                if _change(db, row["id"], JobState.pending, JobState.running, self.revisions.next()):
                    return _get(db, row["id"])

        record = self._database.run(work)
        if record is not None:
            self._order_changed()
        return record

    def transition(
        self, job_id: str, old: JobState, new: JobState, *, result: dict[str, Any] | None = None, rev: int | None = None
    ) -> bool:
        """Change the state if it still is `old`. False if it is not (any more): somebody else was faster."""
        require_transition(old, new)
        text = None if result is None else json.dumps(result)
        changed = self._database.run(
            lambda db: _change(db, job_id, old, new, rev or self.revisions.next(), result=text)
        )
        if changed:
            self._order_changed()
            if new.over:
                self._ended += 1
                if self._ended % PRUNE_EVERY == 0:
                    self._prune()
        return changed

    def add_image(self, job_id: str, data: dict[str, Any]) -> None:
        """Keep one picture's facts with the job, whatever becomes of the job later."""
        text = json.dumps(data)
        self._database.run(
            lambda db: db.execute(
                "INSERT INTO images (job, number, data)"
                " SELECT number, (SELECT count(*) FROM images WHERE job=jobs.number), ? FROM jobs WHERE id=?",
                (text, job_id),
            )
        )

    def recover(self, result: dict[str, Any]) -> list[str]:
        """At start: jobs that ran when the program ended become lost, with `result`. Gives their ids."""
        running = self._database.run(
            lambda db: [r["id"] for r in db.execute("SELECT id FROM jobs WHERE state=?", (JobState.running.value,))]
        )
        return [i for i in running if self.transition(i, JobState.running, JobState.lost, result=result)]

    # Order

    def reorder(self, job_id: str, position: int = 0) -> bool:
        """Move a pending job to `position` (0 = next). False if it does not wait (any more)."""

        def work(db: sqlite3.Connection) -> bool:
            ids = _pending_ids(db)
            if job_id not in ids:
                return False
            first: int = db.execute("SELECT min(rank) FROM jobs WHERE state=?", (JobState.pending.value,)).fetchone()[0]
            ids.remove(job_id)
            ids.insert(max(0, position), job_id)
            db.executemany("UPDATE jobs SET rank=? WHERE id=?", [(first + n, name) for n, name in enumerate(ids)])
            return True

        moved = self._database.run(work)
        if moved:
            self._order_changed()
        return moved

    def position(self, job_id: str) -> int | None:
        """How many jobs run before this one, the running one aside; None unless pending."""

        def work(db: sqlite3.Connection) -> int | None:
            row = db.execute("SELECT state, rank, number FROM jobs WHERE id=?", (job_id,)).fetchone()
            if row is None or row["state"] != JobState.pending.value:
                return None
            count: int = db.execute(
                "SELECT count(*) FROM jobs WHERE state=? AND (rank, number) < (?, ?)",
                (JobState.pending.value, row["rank"], row["number"]),
            ).fetchone()[0]
            return count

        return self._database.run(work)

    def pending_ids(self, user: str | None = None) -> list[str]:
        """The waiting jobs in the order they will run, of one user or of all."""
        return self._database.run(lambda db: _pending_ids(db, user))

    # Reading

    def get(self, job_id: str) -> JobRecord:
        """Raises `NotFound`."""
        return self._database.run(lambda db: _get(db, job_id))

    def list(self, limit: int = 50, *, user: str | None = None) -> list[JobRecord]:
        """The newest jobs first, of one user or of all."""
        where, values = ("", ()) if user is None else ("WHERE user=?", (user,))
        return self._database.run(
            lambda db: [
                _record(db, row)
                for row in db.execute(
                    f"SELECT * FROM jobs {where} ORDER BY number DESC LIMIT ?",
                    (*values, max(0, limit)),
                ).fetchall()
            ]
        )

    def _order_changed(self) -> None:
        self.order_rev = self.revisions.next()

    def _prune(self) -> None:
        marks = ",".join("?" * len(OVER))
        self._database.run(
            lambda db: db.execute(
                f"DELETE FROM jobs WHERE number IN (SELECT number FROM jobs WHERE state IN ({marks})"
                " ORDER BY number DESC LIMIT -1 OFFSET ?)",
                (*(s.value for s in OVER), KEEP_FINISHED),
            )
        )


def _change(
    db: sqlite3.Connection, job_id: str, old: JobState, new: JobState, rev: int, *, result: str | None = None
) -> bool:
    """The one statement that changes a state."""
    now = time.time()
    cursor = db.execute(
        "UPDATE jobs SET state=:new, rev=:rev, result=coalesce(:result, result), attempts=attempts + :runs,"
        " started=CASE WHEN :runs THEN :now WHEN :over THEN started END,"
        " finished=CASE WHEN :over THEN :now END"
        " WHERE id=:id AND state=:old",
        {
            "id": job_id,
            "old": old.value,
            "new": new.value,
            "rev": rev,
            "result": result,
            "runs": int(new is JobState.running),
            "over": int(new.over),
            "now": now,
        },
    )
    changed = cursor.rowcount == 1
    if changed and new is JobState.pending:  # it starts anew
        db.execute("DELETE FROM images WHERE job=(SELECT number FROM jobs WHERE id=?)", (job_id,))
    return changed


def _pending_ids(db: sqlite3.Connection, user: str | None = None) -> list[str]:
    rows = db.execute(
        "SELECT id FROM jobs WHERE state=:state AND (:user IS NULL OR user=:user) ORDER BY rank, number",
        {"state": JobState.pending.value, "user": user},
    )
    return [row["id"] for row in rows]


def _get(db: sqlite3.Connection, job_id: str) -> JobRecord:
    row = db.execute("SELECT * FROM jobs WHERE id=?", (job_id,)).fetchone()
    if row is None:
        raise NotFound("There is no such job.", "It may be too old: only the newest thousands are kept.")
    return _record(db, row)


def _record(db: sqlite3.Connection, row: sqlite3.Row) -> JobRecord:
    images = db.execute("SELECT data FROM images WHERE job=? ORDER BY number", (row["number"],))
    return JobRecord(
        number=row["number"],
        id=row["id"],
        user=row["user"],
        state=JobState(row["state"]),
        params_json=row["params"],
        attempts=row["attempts"],
        rev=row["rev"],
        created=row["created"],
        started=row["started"],
        finished=row["finished"],
        result=json.loads(row["result"]),
        images=tuple(json.loads(image["data"]) for image in images),
    )
