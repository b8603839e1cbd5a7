"""Queries as SQL: a page of the grid, days with their counts, prompts, tags, pictures with a similar prompt.

Pages are read along an index in the order of the history and continue behind the last row seen (keyset, never OFFSET),
so each page costs what the first one did and rows that arrive meanwhile shift nothing. Every condition is a test on the
rows of that walk, never a reason to sort: a walk past a hundred thousand narrow rows takes some hundredths of a second.
Text is found through the trigram index; words shorter than three characters, which it does not know, by looking into
each distinct text.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from math import log
from operator import itemgetter
from typing import Any

from webui.errors import InvalidParams, NotFound
from webui.history.folding import fold
from webui.history.query import DateTerm, Query, RangeTerm, SizeTerm, Term, TextTerm
from webui.history.records import State

MAX_PAGE = 500
BLOCK = 240  # pictures; a multiple of many numbers of columns, so that few rows are cut by its end
SHOWN_PROMPT = 300  # characters of a prompt in the grid
TRIGRAM = 3  # characters of the shortest word that the index knows
SIMILAR_CANDIDATES = 4000
SIMILAR_WORDS = 8

_CURSOR = re.compile(r"(\d{1,16})\.(\d{1,19})")
_WORD = re.compile(r"[^\s,.:;()\[\]{}<>|\"']+")

Conditions = list[tuple[str, list[Any]]]


@dataclass(frozen=True, slots=True)
class Card:
    """A picture as the grid needs it. `cursor` is its place: a page may begin before or after it."""

    id: int
    cursor: str
    created: float
    day: str
    state: State
    width: int
    height: int
    seed: int | None
    prompt: str  # its beginning
    model: str
    favourite: bool
    user: str
    source: str
    job: str
    picture_index: int
    parent: int | None
    thumbnail: str


@dataclass(frozen=True, slots=True)
class Page:
    """Cards, the newest first. `older` and `newer` continue in that direction; "" where there is nothing more.

    `newer` of the first page is "" although pictures may arrive later: ask with `before` the first card's cursor.
    """

    cards: tuple[Card, ...]
    older: str
    newer: str
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Day:
    """How many of the pictures found were made on a day; a page after `cursor` begins with the day's newest."""

    day: str
    count: int
    cursor: str


@dataclass(frozen=True, slots=True)
class Block:
    """A run of pictures of one day in the grid; a page after `cursor`, `count` long, holds exactly them."""

    day: str
    count: int
    cursor: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """An entry of the prompt history; `picture` is the newest one made with it that still exists."""

    id: int
    prompt: str
    negative_prompt: str
    uses: int
    used: float  # unix seconds
    picture: int | None
    cursor: str


def page(
    db: sqlite3.Connection,
    user: str | None,
    query: Query,
    *,
    after: str = "",
    before: str = "",
    limit: int = 60,
    trashed: bool = False,
) -> Page:
    """Up to `limit` cards behind (`after`, older) or in front of (`before`, newer) a cursor; by default the newest.

    Raises `InvalidParams` for a cursor that none of ours is.
    """
    limit = max(1, min(limit, MAX_PAGE))
    wanted = _visible(user, trashed) + [_condition(term) for term in query.terms]
    if after:
        wanted.append(("(p.position, p.id) < (?, ?)", [*_cursor(after)]))
    if before:
        wanted.append(("(p.position, p.id) > (?, ?)", [*_cursor(before)]))
    direction = "ASC" if before and not after else "DESC"
    ascending = direction == "ASC"
    rows = db.execute(*page_sql(wanted, direction, limit + 1)).fetchall()
    rows.sort(key=lambda row: (row["position"], row["id"]), reverse=not ascending)
    more = len(rows) > limit
    cards = [_card(row) for row in rows[:limit]]
    if ascending:
        cards.reverse()
    older, newer = (bool(cards), more) if ascending else (more, bool(after and cards))
    return Page(
        tuple(cards),
        cards[-1].cursor if older and cards else "",
        cards[0].cursor if newer and cards else "",
        query.problems,
    )


def page_sql(wanted: Conditions, direction: str, limit: int) -> tuple[str, list[Any]]:
    """The statement behind a page: which cards first (narrow), then what a card shows."""
    where, values = _joined(wanted)
    return (
        "SELECT p.id, p.position, p.created, p.day, p.state, p.width, p.height, p.seed, p.favourite, p.user, p.source,"
        f" p.job, p.picture_index, p.parent, p.thumbnail, substr(t.prompt, 1, {SHOWN_PROMPT}) AS prompt,"
        " (SELECT name FROM names WHERE id = p.checkpoint) AS model"
        f" FROM (SELECT p.id AS chosen FROM pictures p WHERE {where}"
        f" ORDER BY p.position {direction}, p.id {direction} LIMIT ?)"
        " JOIN pictures p ON p.id = chosen JOIN texts t ON t.id = p.text",
        [*values, limit],
    )


def days(db: sqlite3.Connection, user: str | None, query: Query) -> list[Day]:
    """Every day with pictures that the query finds, in the order of the grid."""
    where, values = _joined(_visible(user, False) + [_condition(term) for term in query.terms])
    rows = db.execute(
        f"SELECT p.day, count(*) AS count, max(p.position) AS top FROM pictures p WHERE {where}"
        " GROUP BY p.day ORDER BY top DESC, p.day DESC",
        values,
    )
    return [Day(row["day"], row["count"], f"{row['top'] + 1}.0") for row in rows]


def outline(db: sqlite3.Connection, user: str | None, query: Query, *, trashed: bool = False) -> list[Block]:
    """Everything the query finds as blocks, the newest first: the shape of the grid before its pictures are read.

    A block is a run of at most `BLOCK` pictures of one day; a day begins a block of its own, so that new pictures
    change the blocks of their day alone. 100,000 pictures take about 0.1 s.
    """
    where, values = _joined(_visible(user, trashed) + [_condition(term) for term in query.terms])
    walk = db.execute(
        f"SELECT p.day, p.position, p.id FROM pictures p WHERE {where} ORDER BY p.position DESC, p.id DESC", values
    )
    blocks: list[Block] = []
    for day, members in groupby(walk, itemgetter(0)):
        while run := list(islice(members, BLOCK)):
            _, position, first = run[0]
            blocks.append(Block(day, len(run), f"{position}.{first + 1}"))
    return blocks


def ids(db: sqlite3.Connection, user: str | None, query: Query, limit: int, *, trashed: bool = False) -> list[int]:
    """The ids of everything the query finds, the newest first."""
    where, values = _joined(_visible(user, trashed) + [_condition(term) for term in query.terms])
    rows = db.execute(
        f"SELECT p.id FROM pictures p WHERE {where} ORDER BY p.position DESC, p.id DESC LIMIT ?", [*values, limit]
    )
    return [row[0] for row in rows]


def cards_of(db: sqlite3.Connection, user: str | None, picture_ids: Sequence[int]) -> list[Card]:
    """The cards of those of the pictures that the user may see, in the order asked for."""
    marks = ",".join("?" * len(picture_ids))
    wanted: Conditions = [(f"p.id IN ({marks})", [*picture_ids]), ("p.state <> 'writing'", [])]
    if user is not None:
        wanted.append(("p.user = ?", [user]))
    found = {row["id"]: _card(row) for row in db.execute(*page_sql(wanted, "DESC", len(picture_ids)))}
    return [found[picture_id] for picture_id in picture_ids if picture_id in found]


def users(db: sqlite3.Connection, user: str | None) -> list[tuple[str, int]]:
    """Everybody whose pictures the user may see, with their number, by name; "" is nobody by name."""
    where, values = _joined(_visible(user, False))
    rows = db.execute(f"SELECT p.user, count(*) AS count FROM pictures p WHERE {where} GROUP BY p.user", values)
    return sorted(((row["user"], row["count"]) for row in rows), key=lambda one: one[0].casefold())


def tags(db: sqlite3.Connection, user: str | None) -> list[tuple[str, int]]:
    """Every tag with the number of pictures that carry it, the most used first."""
    where, values = _joined(_visible(user, False))
    rows = db.execute(
        "SELECT min(t.tag) AS tag, count(*) AS count FROM tags t JOIN pictures p ON p.id = t.picture"
        f" WHERE {where} GROUP BY t.search ORDER BY count DESC, t.search",
        values,
    )
    return [(row["tag"], row["count"]) for row in rows]


def prompts(
    db: sqlite3.Connection, user: str, text: str = "", *, after: str = "", limit: int = 50
) -> tuple[list[Prompt], str]:
    """A user's distinct prompts, the newest first, and the cursor to go on with ("" at the end).

    `text`: words that the prompt or the negative prompt has to contain.
    """
    limit = max(1, min(limit, MAX_PAGE))
    wanted: Conditions = [("q.user = ?", [user])]
    for word in fold(text).split()[:40]:
        wanted.append(("(instr(t.search_prompt, ?) OR instr(t.search_negative, ?))", [word, word]))
    if after:
        wanted.append(("(q.used, q.text) < (?, ?)", [*_cursor(after)]))
    where, values = _joined(wanted)
    rows = db.execute(
        "SELECT q.text, q.used, q.uses, q.picture, t.prompt, t.negative_prompt,"
        " (SELECT 1 FROM pictures WHERE id = q.picture AND shown = 1) AS seen"
        f" FROM prompts q JOIN texts t ON t.id = q.text WHERE {where}"
        " ORDER BY q.used DESC, q.text DESC LIMIT ?",
        [*values, limit + 1],
    ).fetchall()
    found = [
        Prompt(
            id=row["text"],
            prompt=row["prompt"],
            negative_prompt=row["negative_prompt"],
            uses=row["uses"],
            used=row["used"] / 1000,
            picture=row["picture"] if row["seen"] else None,
            cursor=f"{row['used']}.{row['text']}",
        )
        for row in rows[:limit]
    ]
    return found, found[-1].cursor if len(rows) > limit else ""


def similar(db: sqlite3.Connection, user: str | None, picture_id: int, limit: int = 60) -> list[Card]:
    """Pictures whose prompts have the most in common with this one's, the nearest first, one of each prompt.

    The prompt's longest words fetch candidates through the trigram index; among those, words count by how rare they
    are (a weighted Jaccard index). Raises `NotFound`.
    """
    limit = max(1, min(limit, MAX_PAGE))
    own_where, own_values = _joined([*_visible(user, None), ("p.id = ?", [picture_id])])
    row = db.execute(
        f"SELECT t.id, t.search_prompt FROM pictures p JOIN texts t ON t.id = p.text WHERE {own_where}", own_values
    ).fetchone()
    if row is None:
        raise NotFound("There is no such picture.", "It may have been deleted.")
    words = set(_WORD.findall(row["search_prompt"]))
    probes = sorted((w for w in words if len(w) >= TRIGRAM), key=lambda w: (-len(w), w))[:SIMILAR_WORDS]
    texts: dict[int, set[str]] = {row["id"]: words}
    if probes:
        match = "{search_prompt} : (" + " OR ".join(_phrase(word) for word in probes) + ")"
        for other in db.execute(
            "SELECT t.id, t.search_prompt FROM texts t WHERE t.id IN (SELECT rowid FROM texts_index WHERE texts_index"
            " MATCH ? ORDER BY rowid DESC LIMIT ?)",
            (match, SIMILAR_CANDIDATES),
        ):
            texts[other["id"]] = set(_WORD.findall(other["search_prompt"]))
    frequency = Counter(word for found in texts.values() for word in found)
    rarity = {word: log(1 + len(texts) / count) for word, count in frequency.items()}
    scores = {text: _overlap(words, found, rarity) for text, found in texts.items()}
    chosen: list[int] = []
    where, values = _joined([*_visible(user, False), ("p.text = ?", []), ("p.id <> ?", [])])
    for text in sorted((t for t, score in scores.items() if score > 0), key=lambda t: (-scores[t], -t)):
        newest = db.execute(
            f"SELECT p.id FROM pictures p WHERE {where} ORDER BY +p.position DESC, p.id DESC LIMIT 1",
            [*values, text, picture_id],
        ).fetchone()
        if newest is not None:
            chosen.append(newest[0])
        if len(chosen) == limit:
            break
    return cards_of(db, user, chosen)


def _overlap(a: set[str], b: set[str], rarity: dict[str, float]) -> float:
    both = sum(rarity[word] for word in a & b)
    either = sum(rarity[word] for word in a | b)
    return both / either if either else 0.0


# Conditions


def _visible(user: str | None, trashed: bool | None) -> Conditions:
    """What the user may see: their own (None: everybody's), in the grid or in the trash (None: in either)."""
    wanted: Conditions = []
    if trashed is None:
        wanted.append(("p.state <> 'writing'", []))
    else:
        wanted.append(("p.shown = 0 AND p.state = 'trashed'" if trashed else "p.shown = 1", []))
    if user is not None:
        wanted.append(("p.user = ?", [user]))
    return wanted


def _joined(wanted: Conditions) -> tuple[str, list[Any]]:
    return " AND ".join(sql for sql, _ in wanted) or "1", [value for _, values in wanted for value in values]


def _condition(term: Term) -> tuple[str, list[Any]]:
    if isinstance(term, TextTerm):
        sql, values = _text_condition(term)
    elif isinstance(term, RangeTerm):
        sql, values = f"p.{term.field} BETWEEN ? AND ?", [term.low, term.high]
        if term.low == term.high:
            sql, values = f"p.{term.field} = ?", [term.low]
    elif isinstance(term, SizeTerm):
        sql, values = "(p.width = ? AND p.height = ?)", [term.width, term.height]
        if term.height is None:
            sql, values = "(p.width = ? OR p.height = ?)", [term.width, term.width]
    elif isinstance(term, DateTerm):
        sql, values = "+p.day BETWEEN ? AND ?", [term.first, term.last]
    else:
        sql, values = _FLAGS[term.flag], []
    # coalesce: a value that is not known is not what is looked for, so the exclusion holds
    return (f"NOT coalesce(({sql}), 0)" if term.exclude else sql), values


_FLAGS = {
    "favourite": "p.favourite = 1",
    "missing": "p.state = 'missing'",
    "unsaved": "p.state = 'unsaved'",
    "imported": "p.source <> ''",
    "replay": "p.parent IS NOT NULL",
}


def _text_condition(term: TextTerm) -> tuple[str, list[Any]]:
    value = term.value
    if term.field in ("text", "negative"):
        columns = ("search_prompt", "search_notes") if term.field == "text" else ("search_negative",)
        if len(value) >= TRIGRAM:
            match = "{" + " ".join(columns) + "} : " + _phrase(value)
            return "+p.text IN (SELECT rowid FROM texts_index WHERE texts_index MATCH ?)", [match]
        contains = " OR ".join(f"instr({column}, ?)" for column in columns)
        return f"+p.text IN (SELECT id FROM texts WHERE {contains})", [value] * len(columns)
    if term.field in ("model", "vae"):
        kind = "checkpoint" if term.field == "model" else "vae"
        return f"p.{kind} IN ({_NAMED_OR_HASHED})", [kind, value, value]
    if term.field == "lora":
        return f"p.id IN (SELECT picture FROM networks WHERE name IN ({_NAMED_OR_HASHED}))", ["lora", value, value]
    if term.field in ("sampler", "schedule"):
        return f"p.{term.field} IN (SELECT id FROM names WHERE kind = ? AND instr(search, ?))", [term.field, value]
    if term.field == "tag":
        if term.whole:
            return "p.id IN (SELECT picture FROM tags WHERE search = ?)", [value]
        return "p.id IN (SELECT picture FROM tags WHERE search >= ? AND search < ?)", [value, value + chr(0x10FFFF)]
    if term.field == "job":
        return "p.job = ?", [value]
    return "p.user = ?", [value]


_NAMED_OR_HASHED = (
    "SELECT id FROM names WHERE kind = ? AND (instr(search, ?) OR (sha256 <> '' AND instr(sha256, ?) = 1))"
)


def _phrase(text: str) -> str:
    """A phrase of the FTS5 query language: any text is only text inside its quotes."""
    return '"' + text.replace('"', '""') + '"'


def _cursor(text: str) -> tuple[int, int]:
    match = _CURSOR.fullmatch(text)
    if match is None or int(match[2]) >= 2**63:
        raise InvalidParams("The cursor is not one of this history.", "Start again from the first page.")
    return int(match[1]), int(match[2])


def _card(row: sqlite3.Row) -> Card:
    return Card(
        id=row["id"],
        cursor=f"{row['position']}.{row['id']}",
        created=row["created"],
        day=row["day"],
        state=State(row["state"]),
        width=row["width"],
        height=row["height"],
        seed=row["seed"],
        prompt=row["prompt"],
        model=row["model"] or "",
        favourite=bool(row["favourite"]),
        user=row["user"],
        source=row["source"],
        job=row["job"],
        picture_index=row["picture_index"],
        parent=row["parent"],
        thumbnail=row["thumbnail"],
    )
