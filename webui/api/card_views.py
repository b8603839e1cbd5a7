"""What the routes of the cards answer, as types."""

from __future__ import annotations

from pydantic import BaseModel


class CardView(BaseModel):
    """A model file as a card. `insert` is what a click writes into the prompt; `preview` a version, "" without one."""

    name: str
    label: str
    folder: str
    family: str
    base: str
    variant: str
    size: int
    modified: float
    insert: str
    negative: str
    preview: str
    description: str
    words: str
    reason: str


class CardList(BaseModel):
    """`bases`: family -> the family whose networks go with it."""

    cards: list[CardView]
    bases: dict[str, str]


class TagView(BaseModel):
    name: str
    value: str


class NotesView(BaseModel):
    """NAME.json; a preferred weight of 0 is none."""

    description: str
    notes: str
    activation_text: str
    negative_text: str
    preferred_weight: float
    sd_version: str


class CardDetails(BaseModel):
    """One card in full: facts of the file and its training, the words of the training captions, the user's notes."""

    name: str
    facts: list[TagView]
    tags: list[TagView]
    notes: NotesView
    problems: list[str]
