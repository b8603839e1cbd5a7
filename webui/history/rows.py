"""Records into rows and back. Every function works inside the caller's transaction."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable
from typing import Any

from webui.history.folding import fold
from webui.history.records import MAX_INTEGER, Record, State
from webui.history.schema import OUTPUTS
from webui.provenance import UsedModel


def insert(db: sqlite3.Connection, record: Record, *, picture_id: int | None = None, live: bool = False) -> int:
    """Write a checked record; gives its id.

    `picture_id`: the id it had, kept when nobody has it. `live`: it is made right now, so it is the newest of all.
    """
    if picture_id is not None and db.execute("SELECT 1 FROM pictures WHERE id=?", (picture_id,)).fetchone():
        picture_id = None
    text = text_id(db, record.prompt, record.negative_prompt, record.notes)
    parent, relation, changes = _parent(db, record)
    folder = folder_id(db, record.folder)
    if record.state is State.present:
        make_way(db, folder, record.path)
    position = next_position(db) if live else _position(db, record)
    created = record.created or time.time()
    cursor = db.execute(
        "INSERT INTO pictures (id, position, created, day, user, state, shown, folder, path, text, checkpoint, vae,"
        " sampler, schedule, seed, width, height, steps, cfg_scale, favourite, source, job, picture_index, parent,"
        " relation, pixels_sha256, thumbnail)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            picture_id, position, created, day_of(created), record.user, record.state.value, record.state.shown,
            folder, record.path, text, _model_id(db, record.checkpoint), _model_id(db, record.vae),
            _plain_name_id(db, "sampler", record.sampler), _plain_name_id(db, "schedule", record.schedule),
            record.seed if record.seed is None or abs(record.seed) <= MAX_INTEGER else None,
            record.width, record.height, record.steps, record.cfg_scale, record.favourite, record.source, record.job,
            record.picture_index, parent, relation, record.pixels_sha256, record.thumbnail or thumbnail_key(record),
        ),
    )  # fmt: skip
    new_id = cursor.lastrowid
    assert new_id is not None
    db.execute(
        "INSERT INTO details (picture, params, infotext, environment, changes, seconds, peak_memory, error)"
        " VALUES (?,?,?,?,?,?,?,?)",
        (
            new_id, record.params, record.infotext, _dump(record.environment), _dump(changes), _dump(record.seconds),
            record.peak_memory, record.error,
        ),
    )  # fmt: skip
    db.executemany(
        "INSERT OR IGNORE INTO networks (name, picture) VALUES (?,?)",
        [(_model_id(db, network), new_id) for network in record.networks],
    )
    add_tags(db, new_id, record.tags)
    remember_prompt(db, record.user, record.prompt, record.negative_prompt, position, new_id)
    return new_id


def load(db: sqlite3.Connection, picture_id: int, *, damaged: bool = False) -> Record | None:
    """The whole record, or None. `damaged`: without networks and tags where those cannot be read."""
    row = db.execute(
        "SELECT p.*, f.path AS folder_path, t.prompt, t.negative_prompt, t.notes, d.params, d.infotext, d.environment,"
        " d.changes, d.seconds, d.peak_memory, d.error,"
        " (SELECT name FROM names WHERE id = p.sampler) AS sampler_name,"
        " (SELECT name FROM names WHERE id = p.schedule) AS schedule_name"
        " FROM pictures p JOIN folders f ON f.id = p.folder JOIN texts t ON t.id = p.text"
        " JOIN details d ON d.picture = p.id WHERE p.id = ?",
        (picture_id,),
    ).fetchone()
    if row is None:
        return None
    networks: tuple[UsedModel, ...] = ()
    tags: tuple[str, ...] = ()
    try:
        networks = networks_of(db, picture_id)
        tags = tags_of(db, picture_id)
    except sqlite3.DatabaseError:
        if not damaged:
            raise
    return Record(
        path=row["path"],
        folder=row["folder_path"],
        state=State(row["state"]),
        created=row["created"],
        position=row["position"],
        user=row["user"],
        source=row["source"],
        prompt=row["prompt"],
        negative_prompt=row["negative_prompt"],
        checkpoint=_model(db, row["checkpoint"]),
        vae=_model(db, row["vae"]),
        networks=networks,
        sampler=row["sampler_name"] or "",
        schedule=row["schedule_name"] or "",
        seed=row["seed"],
        width=row["width"],
        height=row["height"],
        steps=row["steps"],
        cfg_scale=row["cfg_scale"],
        params=row["params"],
        picture_index=row["picture_index"],
        infotext=row["infotext"],
        environment=json.loads(row["environment"]),
        pixels_sha256=row["pixels_sha256"],
        job=row["job"],
        seconds=json.loads(row["seconds"]),
        peak_memory=row["peak_memory"],
        error=row["error"],
        favourite=bool(row["favourite"]),
        tags=tags,
        notes=row["notes"],
        parent=row["parent"],
        relation=row["relation"],
        changes=json.loads(row["changes"]),
        thumbnail=row["thumbnail"],
    )


def set_state(db: sqlite3.Connection, picture_id: int, state: State, error: str | None = None) -> bool:
    """Change the state; False when there is no such row. A present picture takes its path from any stale row."""
    row = db.execute("SELECT folder, path FROM pictures WHERE id=?", (picture_id,)).fetchone()
    if row is None:
        return False
    if state is State.present:
        make_way(db, row["folder"], row["path"], but=picture_id)
    path = None if state is State.unsaved else row["path"]
    db.execute("UPDATE pictures SET state=?, shown=?, path=? WHERE id=?", (state.value, state.shown, path, picture_id))
    if error is not None:
        db.execute("UPDATE details SET error=? WHERE picture=?", (error, picture_id))
    return True


def indexed_row(db: sqlite3.Connection, record: Record) -> int | None:
    """The row that the start-up made of this picture's file, while its own record was waiting to be written."""
    row = db.execute(
        "SELECT p.id FROM pictures p JOIN details d ON d.picture = p.id WHERE p.folder=? AND p.path=?"
        " AND p.state='present' AND p.seed IS ? AND d.environment='{}'",
        (folder_id(db, record.folder), record.path, record.seed),
    ).fetchone()
    return int(row["id"]) if row else None


def set_cost(db: sqlite3.Connection, picture_id: int, seconds: dict[str, float], peak_memory: int) -> None:
    """What the picture's job took: seconds by stage, and bytes."""
    db.execute("UPDATE details SET seconds=?, peak_memory=? WHERE picture=?", (_dump(seconds), peak_memory, picture_id))


def make_way(db: sqlite3.Connection, folder: int, path: str | None, but: int = 0) -> None:
    """Another picture has this path now, so whatever row had it has lost its file."""
    db.execute(
        "UPDATE pictures SET state='missing', path=NULL WHERE folder=? AND path=? AND state='present' AND id<>?",
        (folder, path, but),
    )


def delete(db: sqlite3.Connection, picture_ids: Iterable[int]) -> int:
    """Remove rows for good, and texts that nobody uses any more. Gives how many there were."""
    count = 0
    for picture_id in picture_ids:
        row = db.execute("SELECT text FROM pictures WHERE id=?", (picture_id,)).fetchone()
        if row is not None:
            db.execute("DELETE FROM pictures WHERE id=?", (picture_id,))
            drop_text(db, row["text"])
            count += 1
    return count


# Parts of a row


def folder_id(db: sqlite3.Connection, folder: str) -> int:
    """The id of a folder of pictures, made when it is new."""
    if not folder:
        return OUTPUTS
    db.execute("INSERT OR IGNORE INTO folders (path) VALUES (?)", (folder,))
    found: int = db.execute("SELECT id FROM folders WHERE path=?", (folder,)).fetchone()[0]
    return found


def text_id(db: sqlite3.Connection, prompt: str, negative_prompt: str, notes: str) -> int:
    """The id of a triple of texts, written and indexed when it is new."""
    digest = hashlib.blake2b("\0".join((prompt, negative_prompt, notes)).encode(), digest_size=16).digest()
    row = db.execute("SELECT id FROM texts WHERE digest=?", (digest,)).fetchone()
    if row is not None:
        return int(row[0])
    search = (fold(prompt), fold(negative_prompt), fold(notes))
    cursor = db.execute(
        "INSERT INTO texts (digest, prompt, negative_prompt, notes, search_prompt, search_negative, search_notes)"
        " VALUES (?,?,?,?,?,?,?)",
        (digest, prompt, negative_prompt, notes, *search),
    )
    assert cursor.lastrowid is not None
    db.execute(
        "INSERT INTO texts_index (rowid, search_prompt, search_negative, search_notes) VALUES (?,?,?,?)",
        (cursor.lastrowid, *search),
    )
    return cursor.lastrowid


def drop_text(db: sqlite3.Connection, text: int) -> None:
    """Remove a text, and it from the index, if no picture and no prompt history uses it."""
    row = db.execute(
        "SELECT * FROM texts WHERE id=:id AND NOT EXISTS (SELECT 1 FROM pictures WHERE text=:id)"
        " AND NOT EXISTS (SELECT 1 FROM prompts WHERE text=:id)",
        {"id": text},
    ).fetchone()
    if row is None:
        return
    db.execute(
        "INSERT INTO texts_index (texts_index, rowid, search_prompt, search_negative, search_notes)"
        " VALUES ('delete',?,?,?,?)",
        (text, row["search_prompt"], row["search_negative"], row["search_notes"]),
    )
    db.execute("DELETE FROM texts WHERE id=?", (text,))


def set_notes(db: sqlite3.Connection, picture_id: int, notes: str) -> None:
    """Give a picture other notes."""
    row = db.execute(
        "SELECT p.text, t.prompt, t.negative_prompt FROM pictures p JOIN texts t ON t.id = p.text WHERE p.id=?",
        (picture_id,),
    ).fetchone()
    new = text_id(db, row["prompt"], row["negative_prompt"], notes)
    if new != row["text"]:
        db.execute("UPDATE pictures SET text=? WHERE id=?", (new, picture_id))
        drop_text(db, row["text"])


def remember_prompt(
    db: sqlite3.Connection, user: str, prompt: str, negative_prompt: str, used: int, picture: int | None
) -> None:
    """Put a prompt into the user's prompt history, or to its newest place."""
    if not prompt.strip():
        return
    db.execute(
        "INSERT INTO prompts (user, text, used, uses, picture) VALUES (?,?,?,1,?) ON CONFLICT (user, text) DO UPDATE"
        " SET uses = uses + 1, picture = CASE WHEN excluded.used >= used OR picture IS NULL THEN"
        " coalesce(excluded.picture, picture) ELSE picture END, used = max(used, excluded.used)",
        (user, text_id(db, prompt, negative_prompt, ""), used, picture),
    )


def add_tags(db: sqlite3.Connection, picture_id: int, tags: Iterable[str]) -> None:
    db.executemany(
        "INSERT OR IGNORE INTO tags (search, picture, tag) VALUES (?,?,?)",
        [(fold(tag), picture_id, tag) for tag in tags],
    )


def tags_of(db: sqlite3.Connection, picture_id: int) -> tuple[str, ...]:
    rows = db.execute("SELECT tag FROM tags WHERE picture=? ORDER BY search", (picture_id,))
    return tuple(row["tag"] for row in rows)


def networks_of(db: sqlite3.Connection, picture_id: int) -> tuple[UsedModel, ...]:
    rows = db.execute(
        "SELECT n.kind, n.name, n.sha256 FROM networks w JOIN names n ON n.id = w.name WHERE w.picture = ?"
        " ORDER BY n.kind, n.name",
        (picture_id,),
    )
    return tuple(UsedModel(row["kind"], row["name"], row["sha256"]) for row in rows)


def link_children(db: sqlite3.Connection, job: str, parent: int, relation: str, changes: dict[str, Any]) -> None:
    """The pictures that `job` makes, or has made already, are children of `parent`."""
    text = _dump(changes)
    db.execute("INSERT OR REPLACE INTO replays VALUES (?,?,?,?)", (job, parent, relation, text))
    children = [row[0] for row in db.execute("SELECT id FROM pictures WHERE job=? AND id<>?", (job, parent))]
    for child in children:
        db.execute("UPDATE pictures SET parent=?, relation=? WHERE id=?", (parent, relation, child))
        db.execute("UPDATE details SET changes=? WHERE picture=?", (text, child))


def day_of(created: float) -> str:
    """The local date, YYYY-MM-DD."""
    try:
        return time.strftime("%Y-%m-%d", time.localtime(created))
    except (OverflowError, OSError, ValueError):
        return "1970-01-01"


def next_position(db: sqlite3.Connection) -> int:
    """The place after everything of our own: the clock's milliseconds, or more if the clock went back."""
    db.execute(
        "UPDATE counters SET value = max(value + 1, ?) WHERE name = 'position'", (max(0, int(time.time() * 1000)),)
    )
    value: int = db.execute("SELECT value FROM counters WHERE name = 'position'").fetchone()[0]
    return value


def thumbnail_key(record: Record) -> str:
    """A name for the thumbnail: the same pixels have the same one; else the file as it was found."""
    facts = record.pixels_sha256 or f"{record.folder}\0{record.path}\0{record.created}"
    return hashlib.blake2b(facts.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _position(db: sqlite3.Connection, record: Record) -> int:
    position = max(0, int(record.created * 1000)) if record.position is None else record.position
    if not record.source:
        now = max(0, int(time.time() * 1000))  # what claims to be later is not what all others come after
        db.execute("UPDATE counters SET value = max(value, ?) WHERE name = 'position'", (min(position, now),))
    return position


def _parent(db: sqlite3.Connection, record: Record) -> tuple[int | None, str, dict[str, Any]]:
    if record.job and record.parent is None:
        row = db.execute("SELECT parent, relation, changes FROM replays WHERE job=?", (record.job,)).fetchone()
        if row is not None:
            return row["parent"], row["relation"], json.loads(row["changes"])
    known = record.parent and db.execute("SELECT 1 FROM pictures WHERE id=?", (record.parent,)).fetchone()
    return (record.parent if known else None), record.relation, record.changes


def _model_id(db: sqlite3.Connection, model: UsedModel | None) -> int | None:
    return None if model is None else _name_id(db, model.kind, model.name, model.sha256)


def _plain_name_id(db: sqlite3.Connection, kind: str, name: str) -> int | None:
    return _name_id(db, kind, name, "") if name else None


def _name_id(db: sqlite3.Connection, kind: str, name: str, sha256: str) -> int:
    key = (kind, name, sha256)
    row = db.execute("SELECT id FROM names WHERE kind=? AND name=? AND sha256=?", key).fetchone()
    if row is not None:
        return int(row[0])
    cursor = db.execute("INSERT INTO names (kind, name, sha256, search) VALUES (?,?,?,?)", (*key, fold(name)))
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _model(db: sqlite3.Connection, name_id: int | None) -> UsedModel | None:
    row = db.execute("SELECT kind, name, sha256 FROM names WHERE id=?", (name_id,)).fetchone()
    return UsedModel(row["kind"], row["name"], row["sha256"]) if row else None


def _dump(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False, default=str)
