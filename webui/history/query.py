"""The search language: words, "quoted phrases", fields, and a minus before what must not be there. Pure text, no SQL.

    castle "blue sky" -fog              the prompt or the notes contain castle and blue sky, and not fog
    negative:blurry                     the negative prompt contains blurry
    model:photon  vae:mse  lora:grain   a part of the file's name, or the beginning of its hash
    sampler:euler  schedule:karras      a part of the name
    seed:7  seed:100..200  steps:20     a number or a range
    size:512x768  size:1024             both sides, or either side, in pixels
    date:2026-11  date:today  date:2026-11-01..2026-11-07
    fav:  fav:no  tag:cats  is:missing  (also unsaved, imported, replay)  job:ID
    user:NAME                           made by that user; user:"" without a name

Every term must hold. Case does not matter. A tag matches from its beginning, or as a whole when it is quoted. A field
whose value is not finished yet has no effect, so that a search can run at every key.
"""

from __future__ import annotations

import calendar
import datetime
import re
from dataclasses import dataclass
from typing import Literal

from webui.history.folding import clean, fold

MAX_QUERY = 2000  # characters
MAX_TERMS = 40
MAX_INTEGER = 2**63 - 1

TextField = Literal["text", "negative", "model", "vae", "lora", "sampler", "schedule", "tag", "job", "user"]
IS_STATES = ("missing", "unsaved", "imported", "replay")

_TEXT_FIELDS: dict[str, TextField] = {
    "prompt": "text", "negative": "negative", "model": "model", "checkpoint": "model", "vae": "vae", "lora": "lora",
    "sampler": "sampler", "schedule": "schedule", "tag": "tag", "job": "job", "user": "user",
}  # fmt: skip
_FIELDS = (*_TEXT_FIELDS, "seed", "steps", "size", "date", "fav", "is")
_TOKEN = re.compile(r'(-?)(?:([a-z]+):)?("([^"]*)"?|\S*)', re.IGNORECASE)
_RANGE = re.compile(r"(-?\d{1,19})?(\.\.)?(-?\d{1,19})?")
_UNFINISHED_DATE = re.compile(r"(\d{0,3}|\d{4}-|\d{4}-\d{1,2}-)")
_DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?")


@dataclass(frozen=True, slots=True)
class TextTerm:
    """`value` is folded, but job and user are as typed. `whole`: the field equals it (a quoted tag) instead of
    containing it.
    """

    field: TextField
    value: str
    exclude: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class RangeTerm:
    """An inclusive range of numbers."""

    field: Literal["seed", "steps"]
    low: int
    high: int
    exclude: bool = False


@dataclass(frozen=True, slots=True)
class SizeTerm:
    """Width and height in pixels; `height` None: either side is `width`."""

    width: int
    height: int | None
    exclude: bool = False


@dataclass(frozen=True, slots=True)
class DateTerm:
    """Local days from `first` to `last`, both included, as YYYY-MM-DD."""

    first: str
    last: str
    exclude: bool = False


@dataclass(frozen=True, slots=True)
class FlagTerm:
    """`favourite`, or one of `IS_STATES`."""

    flag: str
    exclude: bool = False


Term = TextTerm | RangeTerm | SizeTerm | DateTerm | FlagTerm


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for, and a sentence for each term that could not be understood (and has no effect)."""

    terms: tuple[Term, ...] = ()
    problems: tuple[str, ...] = ()


def parse_query(text: str, today: datetime.date | None = None) -> Query:
    """Read a search. Never raises: what cannot be understood is named in `problems`."""
    today = today or datetime.date.today()
    terms: list[Term] = []
    problems: list[str] = []
    if len(text) > MAX_QUERY:
        problems.append(f"Only the first {MAX_QUERY} characters are searched for.")
    for match in _TOKEN.finditer(clean(text, MAX_QUERY)):
        minus, name, raw, quoted = match.groups()
        if not match.group().strip():
            continue
        field = (name or "").lower()
        if field not in _FIELDS:  # a colon within a word, as in (cat:1.2)
            field, raw = "", f"{name}:{raw}" if name else raw
            quoted = None if name else quoted
        value = quoted if quoted is not None and raw.startswith('"') else raw
        if not field and not fold(value).strip():
            continue
        made = _term(field, value, bool(minus), quoted is not None and raw.startswith('"'), today)
        if isinstance(made, str):
            problems.append(made)
        elif made is not None:
            terms.append(made)
    if len(terms) > MAX_TERMS:
        problems.append(f"Only the first {MAX_TERMS} terms are searched for.")
    return Query(tuple(terms[:MAX_TERMS]), tuple(problems))


def _term(field: str, value: str, exclude: bool, quoted: bool, today: datetime.date) -> Term | str | None:
    """The term, a sentence why it is none, or None for one that is not finished."""
    if field == "":
        return TextTerm("text", fold(value), exclude)
    if field in _TEXT_FIELDS:
        kind = _TEXT_FIELDS[field]
        folded = value if kind in ("job", "user") else fold(value)
        nobody = kind == "user" and quoted  # user:"" are the pictures that nobody made by name
        return TextTerm(kind, folded, exclude, quoted and kind == "tag") if folded or nobody else None
    value = value.strip().lower()
    if field == "fav":
        if value in ("", "yes", "y", "true", "1"):
            return FlagTerm("favourite", exclude)
        return FlagTerm("favourite", not exclude) if value in ("no", "n", "false", "0") else "fav: takes yes or no."
    if not value:
        return None
    if field == "is":
        return FlagTerm(value, exclude) if value in IS_STATES else f"is: takes {', '.join(IS_STATES)}."
    if field == "size":
        return _size(value, exclude)
    if field == "date":
        return _date(value, exclude, today)
    return _range("seed" if field == "seed" else "steps", value, exclude)


def _range(field: Literal["seed", "steps"], value: str, exclude: bool) -> RangeTerm | str:
    match = _RANGE.fullmatch(value)
    if match is None or value == "..":
        return f"{field}: takes a number, or a range such as 10..20."
    low, dots, high = match.groups()
    first = int(low) if low else -MAX_INTEGER
    last = int(high) if high else MAX_INTEGER if dots else first
    return RangeTerm(field, max(first, -MAX_INTEGER), min(last, MAX_INTEGER), exclude)


def _size(value: str, exclude: bool) -> SizeTerm | str | None:
    match = re.fullmatch(r"(\d{1,6})(?:([x×*])(\d{1,6})?)?", value)
    if match is None:
        return "size: takes a width and a height, such as 512x768, or one side."
    if match[2] and not match[3]:
        return None  # the height is still to come
    return SizeTerm(int(match[1]), int(match[3]) if match[3] else None, exclude)


def _date(value: str, exclude: bool, today: datetime.date) -> DateTerm | str | None:
    if _UNFINISHED_DATE.fullmatch(value):
        return None
    first, dots, last = value.partition("..")
    begin = _days(first, today) if first else ("0000-00-00", "")
    end = (_days(last, today) if last else ("", "9999-99-99")) if dots else begin
    if begin is None or end is None or value == "..":
        return "date: takes a day, month or year (2026-11-23), today, yesterday, or a range such as 2026-01..2026-03."
    return DateTerm(begin[0], end[1], exclude)


def _days(text: str, today: datetime.date) -> tuple[str, str] | None:
    """The first and last day of "2026", "2026-11", "2026-11-23", "today" or "yesterday"."""
    if text in ("today", "yesterday"):
        day = (today if text == "today" else today - datetime.timedelta(days=1)).isoformat()
        return day, day
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    year, month, day_of_month = int(match[1]), int(match[2] or 0), int(match[3] or 0)
    try:
        first = datetime.date(year, month or 1, day_of_month or 1)
        last_month = month or 12
        last = datetime.date(year, last_month, day_of_month or calendar.monthrange(year, last_month)[1])
    except (ValueError, calendar.IllegalMonthError):
        return None
    return first.isoformat(), last.isoformat()
