"""The queue: every job's record in one SQLite file, and the only place where a job's state changes.

In which order jobs run is decided by `policy`; here is what it goes by, kept so that a restart changes nothing.

A change of state is one statement, `UPDATE ... WHERE id=? AND state=?`, and counts only if it changed a row. So of two
claims, or of a claim and a cancel, exactly one wins, in whatever thread or process they run.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import takewhile
from math import ceil
from pathlib import Path
from typing import Any

from webui.errors import InvalidParams, NotFound, QueueFull
from webui.inputs import references_in, starts_from
from webui.jobs import policy
from webui.jobs.database import Database, Tell
from webui.jobs.states import OVER, JobState, require_transition

KEEP_FINISHED = 5000  # records of ended jobs; the pictures themselves are never deleted
PRUNE_EVERY = 50  # ended jobs
PACE_OF = 20  # latest jobs, whose mean time is what the next one is expected to take
MAX_RETRY_AFTER = 3600  # seconds
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
    # what `policy` goes by; `turn` counts claims, since the clock may jump
    """
    ALTER TABLE jobs ADD COLUMN model TEXT NOT NULL DEFAULT '';
    ALTER TABLE jobs ADD COLUMN overtaken INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN placed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
    UPDATE jobs SET model=coalesce(json_extract(params, '$.checkpoint'), '') WHERE json_valid(params);
    CREATE INDEX jobs_turn ON jobs(turn);
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
    """A job as it is stored. Times are unix seconds. `result` is what `live.to_result` wrote.

    `images` are its pictures: all `image_count` of them, or the first ones where no more were asked for.
    """

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
    image_count: int


class JobQueue:
    """The jobs in `path`, for any thread. `tell` gets a sentence for each trouble with the file.

    `resident`: how many checkpoints stay in memory, so that going back to one of them costs nothing.
    """

    def __init__(
        self, path: Path, *, tell: Tell = lambda _: None, revisions: Revisions | None = None, resident: int = 1
    ) -> None:
        self.resident = resident
        self._order: tuple[int, int, tuple[str, ...]] = (0, 0, ())  # of which revision and residency, ids
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

    def enqueue(
        self,
        params_json: str,
        *,
        user: str = "",
        key: str | None = None,
        max_pending: int = 500,
        max_own: int | None = None,
    ) -> JobRecord:
        """Add a job at the end of the user's own. The same user's same `key` gives the job that was made before.

        Raises `QueueFull` when `max_pending` jobs wait already, or `max_own` of this user, with the seconds until one
        of them begins; `InvalidParams` for a name out of bounds.
        """
        for what, text in (("user", user), ("key", key or "")):
            if len(text) > MAX_NAME or not text.isprintable():
                raise InvalidParams(f"The {what} has more than {MAX_NAME} characters or one that cannot be printed.")
        job_id, now, rev = secrets.token_hex(8), time.time(), self.revisions.next()
        model = _checkpoint(params_json)

        def work(db: sqlite3.Connection) -> JobRecord:
            if key is not None:
                row = db.execute("SELECT * FROM jobs WHERE user=? AND key=?", (user, key)).fetchone()
                if row is not None:
                    return _record(db, row)
            waiting: int = db.execute("SELECT count(*) FROM jobs WHERE state=?", (JobState.pending.value,)).fetchone()[
                0
            ]
            own = len(_pending_ids(db, user)) if max_own is not None else 0
            full = ""
            if waiting >= max_pending:
                full = f"The queue is full: {waiting} jobs wait already."
            elif max_own is not None and own >= max_own:
                full = f"{own} of your jobs wait already, which is as many as one user may have."
            if full:
                error = QueueFull(full, "Wait for some to finish, or cancel some of them.")
                order = (turn.job.user for turn in _turns(db, self.resident))
                error.retry_after = _seconds_until(db, order, user if waiting < max_pending else None)
                raise error
            db.execute(
                "INSERT INTO jobs (id, user, key, state, rank, params, model, rev, created) VALUES (?,?,?,?,"
                " (SELECT coalesce(max(rank), 0) + 1 FROM jobs), ?,?,?,?)",
                (job_id, user, key, JobState.pending.value, params_json, model, rev, now),
            )
            return _get(db, job_id)

        record = self._database.run(work)
        self._order_changed()
        return record

    def claim(self) -> JobRecord | None:
        """Take the job whose turn it is and make it running, or None. No two callers get the same one."""

        def work(db: sqlite3.Connection) -> JobRecord | None:
            turn = next(_turns(db, self.resident), None)
            if turn is None:
                return None
            # in one immediate transaction with the look at what waits: nobody else can have been faster
            _change(db, turn.job.id, JobState.pending, JobState.running, self.revisions.next())
            db.execute("UPDATE jobs SET turn=(SELECT max(turn) + 1 FROM jobs) WHERE id=?", (turn.job.id,))
            if turn.overtakes is not None:
                db.execute("UPDATE jobs SET overtaken=overtaken + 1 WHERE id=?", (turn.overtakes.id,))
            return _get(db, turn.job.id)

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

    def reorder(self, job_id: str, position: int = 0, *, user: str | None = None) -> bool:
        """Move a pending job to `position` (0 = next). False if it does not wait (any more).

        With `user` it is moved among that user's own jobs, and what the others wait for stays as it is. Without one
        everything up to the job keeps the order that it has now, whoever else comes.
        """

        def work(db: sqlite3.Connection) -> bool:
            every = [turn.job.id for turn in _turns(db, self.resident)]
            own = set(every if user is None else _pending_ids(db, user))
            ids = [name for name in every if name in own]
            if job_id not in ids:
                return False
            ids.remove(job_id)
            ids.insert(max(0, position), job_id)
            if user is None:
                ranks = list(range(_first_rank(db), _first_rank(db) + len(ids)))
            else:
                marks = ",".join("?" * len(ids))
                found = db.execute(f"SELECT rank FROM jobs WHERE id IN ({marks})", ids).fetchall()
                ranks = sorted(row["rank"] for row in found)
            db.executemany("UPDATE jobs SET rank=? WHERE id=?", list(zip(ranks, ids, strict=True)))
            if user is None:
                kept = ids[: ids.index(job_id) + 1]
                db.executemany("UPDATE jobs SET placed=1 WHERE id=?", [(name,) for name in kept])
            else:  # its owner wants it now: no job overtakes it for its checkpoint's sake
                db.execute("UPDATE jobs SET overtaken=? WHERE id=?", (policy.MAX_OVERTAKEN, job_id))
            return True

        moved = self._database.run(work)
        if moved:
            self._order_changed()
        return moved

    def inputs(self) -> set[str]:
        """References of the pictures that the stored jobs start from, those that are over included."""
        texts = self._database.run(lambda db: [row["params"] for row in db.execute("SELECT params FROM jobs")])
        return set().union(*map(references_in, texts))

    def started_from(self, user: str, reference: str) -> bool:
        """Whether a stored job of this user starts from the picture of that reference."""
        naming = "SELECT params FROM jobs WHERE user=? AND instr(params, ?)"
        texts = self._database.run(lambda db: db.execute(naming, (user, reference)).fetchall())
        return any(starts_from(row["params"], reference) for row in texts)

    def position(self, job_id: str) -> int | None:
        """How many jobs run before this one, the running one aside; None unless pending."""
        order = self._in_order()
        return order.index(job_id) if job_id in order else None

    def pending_ids(self, user: str | None = None) -> list[str]:
        """The waiting jobs in the order they will run, of one user or of all."""
        order = self._in_order()
        if user is None:
            return list(order)
        own = set(self._database.run(lambda db: _pending_ids(db, user)))
        return [job_id for job_id in order if job_id in own]

    def _in_order(self) -> tuple[str, ...]:
        """What waits, in order; worked out anew only after a change."""
        now, resident = self.order_rev, self.resident
        known_rev, known_resident, order = self._order
        if (known_rev, known_resident) != (now, resident):
            order = self._database.run(lambda db: tuple(turn.job.id for turn in _turns(db, resident)))
            self._order = (now, resident, order)
        return order

    # Reading

    def get(self, job_id: str) -> JobRecord:
        """Raises `NotFound`."""
        return self._database.run(lambda db: _get(db, job_id))

    def list(
        self,
        limit: int = 50,
        *,
        user: str | None = None,
        states: Collection[JobState] = tuple(JobState),
        pictures: int | None = None,
    ) -> list[JobRecord]:
        """The newest jobs first, of one user or of all, in any of these states; of each the first `pictures` or all."""
        marks, names = ",".join("?" * len(states)), [state.value for state in states]
        which = f"state IN ({marks}) AND (? IS NULL OR user=?)"
        return self._database.run(
            lambda db: [
                _record(db, row, pictures)
                for row in db.execute(
                    f"SELECT * FROM jobs WHERE {which} ORDER BY number DESC LIMIT ?",
                    (*names, user, user, max(0, limit)),
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


def _turns(db: sqlite3.Connection, resident: int) -> Iterator[policy.Turn]:
    """What `policy` makes of the jobs that wait, of who was served when, and of the models in memory."""
    rows = db.execute(
        "SELECT id, user, model, rank, number, overtaken, placed FROM jobs WHERE state=?", (JobState.pending.value,)
    ).fetchall()
    if not rows:
        return iter(())
    waiting = [
        policy.Waiting(r["id"], r["user"], r["model"], (r["rank"], r["number"]), r["overtaken"], bool(r["placed"]))
        for r in rows
    ]
    served = {r["user"]: r["last"] for r in db.execute("SELECT user, max(turn) AS last FROM jobs GROUP BY user")}
    newest = db.execute(
        "SELECT model FROM jobs WHERE turn > 0 AND model <> '' ORDER BY turn DESC LIMIT ?", (20 * resident,)
    )
    return policy.turns(waiting, served, [r["model"] for r in newest], resident)


def _seconds_until(db: sqlite3.Connection, order: Iterator[str], user: str | None) -> int:
    """When the next job in `order` (of users) begins, or the next of `user`, at the pace of the latest jobs."""
    ended = "SELECT finished - started AS seconds FROM jobs WHERE turn > 0 AND finished >= started"
    seconds = [row["seconds"] for row in db.execute(f"{ended} ORDER BY turn DESC LIMIT ?", (PACE_OF,))]
    pace = sum(seconds) / len(seconds) if seconds else float(QueueFull.retry_after)
    since: float | None = db.execute(
        "SELECT min(started) FROM jobs WHERE state=?", (JobState.running.value,)
    ).fetchone()[0]
    left = 0.0 if since is None else max(0.0, pace - max(0.0, time.time() - since))
    before = 0 if user is None else sum(1 for _ in takewhile(lambda other: other != user, order))
    return min(max(1, ceil(left + before * pace)), MAX_RETRY_AFTER)


def _first_rank(db: sqlite3.Connection) -> int:
    first: int = db.execute("SELECT min(rank) FROM jobs WHERE state=?", (JobState.pending.value,)).fetchone()[0]
    return first


def _checkpoint(params_json: str) -> str:
    """The checkpoint that a job needs, "" where its params do not say."""
    try:
        named = json.loads(params_json).get("checkpoint")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return named if isinstance(named, str) else ""


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


def _record(db: sqlite3.Connection, row: sqlite3.Row, pictures: int | None = None) -> JobRecord:
    number, limit = row["number"], -1 if pictures is None else pictures
    found = db.execute("SELECT data FROM images WHERE job=? ORDER BY number LIMIT ?", (number, limit))
    images = tuple(json.loads(image["data"]) for image in found)
    count = len(images)
    if count == pictures:  # there may be more; they are numbered from 0
        last: int | None = db.execute("SELECT max(number) FROM images WHERE job=?", (number,)).fetchone()[0]
        count = 0 if last is None else last + 1
    return JobRecord(
        number=number,
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
        images=images,
        image_count=count,
    )
