"""What the history routes take and answer, as types."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field

from webui.errors import InvalidParams
from webui.history.family import Family
from webui.history.replay import ReplayPlan, exact_params
from webui.history.rights import MAX_SELECTED, Picture
from webui.history.search import Card, Page

Id = Annotated[int, Field(ge=1, lt=2**63)]
PictureId = Annotated[int, InPath(ge=1, lt=2**63)]
Tag = Annotated[str, Field(max_length=100)]


class Strict(BaseModel):
    """A request body: nothing unknown, no value turned into another type."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class CardView(BaseModel):
    """A picture in the grid. `thumbnail` is the address of its thumbnail; `cursor` its place in the list."""

    id: int
    cursor: str
    created: float
    day: str
    state: str
    width: int
    height: int
    seed: int | None
    prompt: str
    model: str
    favourite: bool
    user: str
    source: str
    job: str
    picture_index: int
    parent: int | None
    thumbnail: str


class PageView(BaseModel):
    """A page, the newest first; `older` and `newer` go into `after` and `before` of the next request."""

    cards: list[CardView]
    older: str
    newer: str
    problems: list[str]


class OutlineView(BaseModel):
    """The grid's shape: (day, how many pictures, cursor) of each block; a page after the cursor holds the block."""

    blocks: list[tuple[str, int, str]]


class DayView(BaseModel):
    day: str
    count: int
    cursor: str


class TagView(BaseModel):
    tag: str
    count: int


class UserView(BaseModel):
    user: str
    count: int


class ModelUse(BaseModel):
    kind: str
    name: str
    sha256: str


class PictureView(BaseModel):
    """All that is known of a picture. `params` make it alone; None when they are not known.

    `cursor` is its place in the list: the grid can be opened there.
    """

    id: int
    cursor: str
    created: float
    state: str
    user: str
    source: str
    name: str
    path: str | None
    file: str | None
    thumbnail: str
    width: int
    height: int
    prompt: str
    negative_prompt: str
    seed: int | None
    steps: int | None
    cfg_scale: float | None
    sampler: str
    schedule: str
    checkpoint: ModelUse | None
    vae: ModelUse | None
    networks: list[ModelUse]
    params: dict[str, Any] | None
    infotext: str
    environment: dict[str, str]
    pixels_sha256: str
    job: str
    picture_index: int
    seconds: dict[str, float]
    peak_memory: int
    error: str
    favourite: bool
    tags: list[str]
    notes: str
    parent: int | None
    relation: str
    changes: dict[str, Any]
    children: int


class MemberView(BaseModel):
    card: CardView
    parent: int | None
    relation: str
    changes: dict[str, Any]
    generation: int


class FamilyView(BaseModel):
    root: int
    members: list[MemberView]
    complete: bool


class PromptView(BaseModel):
    id: int
    prompt: str
    negative_prompt: str
    uses: int
    used: float
    picture: int | None
    cursor: str


class PromptList(BaseModel):
    prompts: list[PromptView]
    older: str


class MissingView(BaseModel):
    kind: str
    name: str
    sha256: str
    reason: str


class PlanView(BaseModel):
    params: dict[str, Any]
    relation: str
    changes: dict[str, Any]
    missing: list[MissingView]
    notes: list[str]


class ReplayStarted(BaseModel):
    """The job that makes the child; its pictures have this picture as parent."""

    job: str
    plan: PlanView


class RowView(BaseModel):
    group: Literal["parameter", "model", "environment"]
    name: str
    values: list[str | None]
    equal: bool


class DifferenceView(BaseModel):
    """`verdict`: identical, different, other size, or unknown. Differences are of 255."""

    verdict: str
    max_difference: int | None
    mean_difference: float | None
    notes: list[str]
    rows: list[RowView]


class ShareView(BaseModel):
    id: int
    picture: int
    created: float
    expires: float | None
    with_parameters: bool


class ShareMade(BaseModel):
    """`path` is the link's; it is told this once."""

    id: int
    path: str
    expires: float | None


class SharedView(BaseModel):
    """A shared picture; the parameters are empty when they were not shared."""

    picture: str
    width: int
    height: int
    created: float
    infotext: str
    params: dict[str, Any] | None


class DraftView(BaseModel):
    form: str
    data: dict[str, Any] | None
    updated: float | None


class Changed(BaseModel):
    """How many pictures it was done to."""

    changed: int


class Favourites(Changed):
    """`ids`: of those that were not so before; changing them back undoes it."""

    ids: list[int]


class Tagged(Changed):
    """Of each tag, the pictures that it really came to, or went from."""

    added: dict[str, list[int]]
    removed: dict[str, list[int]]


class Ids(BaseModel):
    ids: list[int]


class LinesImported(BaseModel):
    added: int
    known: int
    refused: int
    problems: list[str]


class HistoryStatus(BaseModel):
    """`banner`: a sentence while the history cannot be written. `busy`: files and rows are being brought together."""

    banner: str
    busy: bool


class Selected(Strict):
    """Pictures to do something with."""

    ids: list[Id] = Field(max_length=MAX_SELECTED)


class FavouriteChange(Selected):
    favourite: bool


class TagChange(Selected):
    add: list[Tag] = Field([], max_length=100)
    remove: list[Tag] = Field([], max_length=100)


class Notes(Strict):
    notes: str = Field(max_length=20_000)


class TrashEmptying(Strict):
    """None: everything that is in the trash."""

    ids: list[Id] | None = Field(max_length=MAX_SELECTED)


class ReplayRequest(Strict):
    """`changes`: fields of the generation parameters. `anyway`: also when a model file is missing."""

    changes: dict[str, Any] = Field({}, max_length=60)
    anyway: bool = False


class ShareRequest(Strict):
    days: float | None = None
    with_parameters: bool = True


class PromptSelection(Strict):
    """None: all of them."""

    ids: list[Id] | None = Field(max_length=MAX_SELECTED)


class DraftChange(Strict):
    """None deletes the draft."""

    data: dict[str, Any] | None


def thumbnail_address(picture_id: int, key: str) -> str:
    """The key makes the address change when the picture does, so that a browser may keep what it has."""
    return f"history/{picture_id}/thumbnail.webp?v={key}"


def card_view(card: Card) -> CardView:
    facts = asdict(card)
    facts.update(state=card.state.value, thumbnail=thumbnail_address(card.id, card.thumbnail))
    return CardView(**facts)


def page_view(page: Page) -> PageView:
    return PageView(
        cards=[card_view(card) for card in page.cards],
        older=page.older,
        newer=page.newer,
        problems=list(page.problems),
    )


def picture_view(picture: Picture) -> PictureView:
    """The record without what is only this machine's business (folders outside the outputs folder)."""
    record = picture.record
    facts = asdict(record)
    for name in ("folder", "position", "params"):
        del facts[name]
    facts.update(
        id=picture.id,
        cursor=picture.cursor,
        children=picture.children,
        state=record.state.value,
        name=(record.path or "").rpartition("/")[2],
        path=record.path if not record.folder else None,
        file=f"history/{picture.id}/file" if record.state.value == "present" else None,
        thumbnail=thumbnail_address(picture.id, record.thumbnail),
        params=params_of(picture),
    )
    return PictureView.model_validate(facts)


def params_of(picture: Picture) -> dict[str, Any] | None:
    """The params of this picture alone as JSON has them, None when they are not known."""
    try:
        return dict(json.loads(exact_params(picture.record).canonical_json()))
    except InvalidParams:
        return None


def family_view(family: Family) -> FamilyView:
    members = [
        MemberView(
            card=card_view(m.card), parent=m.parent, relation=m.relation, changes=m.changes, generation=m.generation
        )
        for m in family.members
    ]
    return FamilyView(root=family.root, members=members, complete=family.complete)


def plan_view(plan: ReplayPlan) -> PlanView:
    return PlanView(
        params=json.loads(plan.params.canonical_json()),
        relation=plan.relation,
        changes=plan.changes,
        missing=[MissingView(**asdict(m)) for m in plan.missing],
        notes=list(plan.notes),
    )
