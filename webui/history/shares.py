"""Links to single pictures for people without an account. Each is an explicit act, can be ended, and is a secret.

The token has 192 random bits and is told once, to whoever made it; the database keeps its hash, so a copy of the
database opens nothing.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import sqlite3
import time
from dataclasses import dataclass

from webui.errors import InvalidParams, NotFound

TOKEN_BYTES = 24
MAX_TOKEN = 100  # characters of what is looked up
MAX_DAYS = 3650.0
MAX_SHARES = 100  # links to one picture


@dataclass(frozen=True, slots=True)
class NewShare:
    """A link just made; `token` is not shown again."""

    id: int
    token: str
    expires: float | None  # unix seconds


@dataclass(frozen=True, slots=True)
class Share:
    """A link in force."""

    id: int
    picture: int
    created: float
    expires: float | None
    with_parameters: bool


def create(db: sqlite3.Connection, picture_id: int, user: str, days: float | None, with_parameters: bool) -> NewShare:
    """Raises `InvalidParams` for an impossible time, or when the picture has a hundred links."""
    if days is not None and not (math.isfinite(days) and 0 < days <= MAX_DAYS):
        raise InvalidParams("A link holds for more than no time and at most ten years.", "Give the days as a number.")
    db.execute("DELETE FROM shares WHERE picture=? AND expires <= ?", (picture_id, time.time()))
    if db.execute("SELECT count(*) FROM shares WHERE picture=?", (picture_id,)).fetchone()[0] >= MAX_SHARES:
        raise InvalidParams(f"The picture has {MAX_SHARES} links already.", "End some of them.")
    now = time.time()
    expires = None if days is None else now + days * 86_400
    token = secrets.token_urlsafe(TOKEN_BYTES)
    cursor = db.execute(
        "INSERT INTO shares (token_sha256, picture, user, created, expires, with_parameters) VALUES (?,?,?,?,?,?)",
        (_digest(token), picture_id, user, now, expires, with_parameters),
    )
    assert cursor.lastrowid is not None
    return NewShare(cursor.lastrowid, token, expires)


def of(db: sqlite3.Connection, user: str | None, picture_id: int | None) -> list[Share]:
    """The links in force, the newest first."""
    rows = db.execute(
        "SELECT * FROM shares WHERE (:user IS NULL OR user=:user) AND (:picture IS NULL OR picture=:picture)"
        " AND (expires IS NULL OR expires > :now) ORDER BY id DESC",
        {"user": user, "picture": picture_id, "now": time.time()},
    )
    return [
        Share(row["id"], row["picture"], row["created"], row["expires"], bool(row["with_parameters"])) for row in rows
    ]


def revoke(db: sqlite3.Connection, user: str | None, share_id: int) -> None:
    """Raises `NotFound`, also for somebody else's link."""
    ended = db.execute(
        "DELETE FROM shares WHERE id=:id AND (:user IS NULL OR user=:user)", {"id": share_id, "user": user}
    )
    if ended.rowcount == 0:
        raise no_such_link()


def resolve(db: sqlite3.Connection, token: str) -> tuple[int, bool]:
    """(picture, with parameters) of a token. Raises `NotFound`."""
    row = None
    if 0 < len(token) <= MAX_TOKEN:
        row = db.execute(
            "SELECT picture, with_parameters FROM shares WHERE token_sha256=? AND (expires IS NULL OR expires > ?)",
            (_digest(token), time.time()),
        ).fetchone()
    if row is None:
        raise no_such_link()
    return row["picture"], bool(row["with_parameters"])


def no_such_link() -> NotFound:
    return NotFound("There is no such link.", "It may have ended; ask whoever sent it for another one.")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
