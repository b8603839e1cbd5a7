"""The family tree of a picture: from its oldest ancestor down to everything that was made from it."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from webui.history.search import Card, cards_of

MAX_MEMBERS = 500
MAX_GENERATIONS = 100


@dataclass(frozen=True, slots=True)
class Member:
    """A picture of the family. `relation` is how it came from its parent ("replay", "variation", ...)."""

    card: Card
    parent: int | None
    relation: str
    changes: dict[str, Any]
    generation: int  # 0 = the oldest ancestor


@dataclass(frozen=True, slots=True)
class Family:
    """The members in the order of a walk through the tree: parents before children, siblings by age."""

    root: int
    members: tuple[Member, ...]
    complete: bool  # False: there are more members than are listed


def family(db: sqlite3.Connection, user: str | None, picture_id: int) -> Family:
    """The family as far as the user may see it."""
    root = _root(db, user, picture_id)
    found = db.execute(
        "WITH RECURSIVE tree(id, generation, trail) AS ("
        " SELECT :root, 0, printf('%020d', :root)"
        " UNION ALL SELECT p.id, t.generation + 1, t.trail || '/' || printf('%020d', p.id)"
        "  FROM tree t JOIN pictures p ON p.parent = t.id AND instr(t.trail, printf('%020d', p.id)) = 0"
        "  WHERE t.generation < :deepest AND p.state <> 'writing' AND (:user IS NULL OR p.user = :user)"
        " ) SELECT t.id, t.generation, p.parent, p.relation, d.changes FROM tree t JOIN pictures p ON p.id = t.id"
        " JOIN details d ON d.picture = t.id ORDER BY t.trail LIMIT :limit",
        {"root": root, "deepest": MAX_GENERATIONS, "user": user, "limit": MAX_MEMBERS + 1},
    ).fetchall()
    listed = found[:MAX_MEMBERS]
    cards = {card.id: card for card in cards_of(db, user, [row["id"] for row in listed])}
    members = tuple(
        Member(
            card=cards[row["id"]],
            parent=row["parent"] if row["parent"] in cards else None,
            relation=row["relation"],
            changes=json.loads(row["changes"]),
            generation=row["generation"],
        )
        for row in listed
    )
    return Family(root, members, len(found) <= MAX_MEMBERS)


def _root(db: sqlite3.Connection, user: str | None, picture_id: int) -> int:
    """The oldest ancestor that the user may see."""
    oldest = picture_id
    for _ in range(MAX_GENERATIONS):
        row = db.execute(
            "SELECT up.id FROM pictures p JOIN pictures up ON up.id = p.parent"
            " WHERE p.id = ? AND (? IS NULL OR up.user = ?)",
            (oldest, user, user),
        ).fetchone()
        if row is None or row[0] == picture_id:
            return oldest
        oldest = row[0]
    return oldest
