"""Drafts: a form as it was typed, by user, so that a crash or another device loses nothing."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from webui.errors import InvalidParams

MAX_DRAFT = 2 * 2**20  # characters of JSON; two prompts of the greatest length fit
MAX_FORMS = 50  # of one user

_SURROGATE = re.compile("[\ud800-\udfff]")
_FORM = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Draft:
    """A form's values by name, and when they were saved (unix seconds)."""

    form: str
    data: dict[str, Any]
    updated: float


def get(db: sqlite3.Connection, user: str, form: str) -> Draft | None:
    row = db.execute("SELECT data, updated FROM drafts WHERE user=? AND form=?", (user, _checked(form))).fetchone()
    return Draft(form, json.loads(_whole(json.loads(row["data"]))), row["updated"]) if row else None


def put(db: sqlite3.Connection, user: str, form: str, data: Mapping[str, Any]) -> Draft:
    """Raises `InvalidParams` for a form's name that is none, values that are not JSON, or too much of them."""
    try:
        text = _whole(dict(data))
    except (TypeError, ValueError, RecursionError):
        raise InvalidParams("The draft holds values that cannot be kept.", "Send plain JSON values.") from None
    if len(text) > MAX_DRAFT:
        raise InvalidParams("The draft is longer than 2 MB.", "Shorten the prompt.")
    others = db.execute("SELECT count(*) FROM drafts WHERE user=? AND form<>?", (user, _checked(form))).fetchone()[0]
    if others >= MAX_FORMS:
        raise InvalidParams(f"At most {MAX_FORMS} forms are kept.", "Delete a draft that is not needed.")
    now = time.time()
    db.execute("INSERT OR REPLACE INTO drafts (user, form, data, updated) VALUES (?,?,?,?)", (user, form, text, now))
    return Draft(form, json.loads(text), now)


def drop(db: sqlite3.Connection, user: str, form: str) -> bool:
    return db.execute("DELETE FROM drafts WHERE user=? AND form=?", (user, _checked(form))).rowcount > 0


def _whole(data: dict[str, Any]) -> str:
    """As JSON, with a mark in place of half an emoji: a field that is typed in may hold one, and no answer could."""
    return _SURROGATE.sub("\ufffd", json.dumps(data, allow_nan=False, ensure_ascii=False))


def _checked(form: str) -> str:
    if not _FORM.fullmatch(form):
        raise InvalidParams("There is no such form.", "A form's name has small letters, digits, dots and dashes.")
    return form
