"""The history over HTTP: find, look, mark, delete and undo, make again, compare, take out and in. Links to pictures are
in `sharing`.

Every route acts for a `Viewer`; what is somebody else's is answered like what does not exist. Pictures are addressed by
their id alone: no path ever comes from a request.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from webui.api.common import ERRORS, NO_STORE
from webui.api.history_responses import (
    CardView,
    Changed,
    DayView,
    DifferenceView,
    DraftChange,
    DraftView,
    FamilyView,
    FavouriteChange,
    Favourites,
    HistoryStatus,
    Ids,
    LinesImported,
    Notes,
    OutlineView,
    PageView,
    PictureId,
    PictureView,
    PlanView,
    PromptList,
    PromptSelection,
    PromptView,
    ReplayRequest,
    ReplayStarted,
    RowView,
    Selected,
    TagChange,
    Tagged,
    TagView,
    TrashEmptying,
    UserView,
    card_view,
    family_view,
    page_view,
    picture_view,
    plan_view,
)
from webui.api.pictures import PICTURE, picture_response
from webui.api.sharing import sharing_routes
from webui.api.viewer import CurrentViewer, ViewerOf, identify_by, only_viewer
from webui.errors import HistoryUnavailable, InvalidParams
from webui.history.query import MAX_QUERY
from webui.history.search import MAX_PAGE
from webui.history.store import History
from webui.identity import Viewer

if TYPE_CHECKING:
    from webui.catalog import Catalog
    from webui.inputs import InputRights
    from webui.jobs.service import JobService

KEEP = {"cache-control": "private, max-age=31536000, immutable"}  # for addresses that change with their content
MAX_IMPORT = 64 * 2**20  # bytes

# What is answered that is not JSON.
THUMBNAIL: dict[int | str, dict[str, Any]] = {200: {"content": {"image/webp": {}}}}
ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}}}
LINES: dict[int | str, dict[str, Any]] = {200: {"content": {"application/x-ndjson": {}}}}

Search = Annotated[str, Query(max_length=MAX_QUERY)]
Cursor = Annotated[str, Query(max_length=40)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
IdList = Annotated[str, Query(max_length=60_000, pattern=r"^\d{1,19}(,\d{1,19})*$")]


def history_routes(
    history: History,
    jobs: JobService,
    catalog: Catalog,
    rights: InputRights,
    viewer_of: ViewerOf = only_viewer,
) -> APIRouter:
    """The routes below /history, and /shared for people with a link. `viewer_of` may raise to refuse a request."""
    router = APIRouter(tags=["history"], responses=ERRORS, dependencies=[Depends(identify_by(viewer_of))])
    router.include_router(_finding(history))
    router.include_router(_selections(history))
    router.include_router(_in_and_out(history))
    router.include_router(_typing(history))
    router.include_router(_one_picture(history))
    router.include_router(_again(history, jobs, catalog, rights))
    router.include_router(sharing_routes(history))
    return router


def _finding(history: History) -> APIRouter:
    router = APIRouter(prefix="/history")

    @router.get("")
    def page(
        response: Response,
        viewer: CurrentViewer,
        q: Search = "",
        after: Cursor = "",
        before: Cursor = "",
        limit: Limit = 60,
        trash: bool = False,
    ) -> PageView:
        """A page of pictures, the newest first, or of the trash. `q` is in the search language of the guide."""
        response.headers.update(NO_STORE)
        found = history.page(viewer.scope, q, after=after, before=before, limit=limit, trashed=trash)
        return page_view(found)

    @router.get("/status")
    def status(response: Response) -> HistoryStatus:
        """Whether the history can be written at present."""
        response.headers.update(NO_STORE)
        return HistoryStatus(banner=history.banner(), busy=history.busy)

    @router.get("/days")
    def days(response: Response, viewer: CurrentViewer, q: Search = "") -> list[DayView]:
        """How many of the pictures found each day has; its cursor leads to the day."""
        response.headers.update(NO_STORE)
        return [DayView(**asdict(day)) for day in history.days(viewer.scope, q)]

    @router.get("/outline")
    def outline(response: Response, viewer: CurrentViewer, q: Search = "", trash: bool = False) -> OutlineView:
        """The shape of the whole grid: runs of pictures by day, each of which is a page after its cursor."""
        response.headers.update(NO_STORE)
        blocks = history.outline(viewer.scope, q, trashed=trash)
        return OutlineView(blocks=[(block.day, block.count, block.cursor) for block in blocks])

    @router.get("/ids")
    def ids(response: Response, viewer: CurrentViewer, q: Search = "", trash: bool = False) -> Ids:
        """The ids of everything found, ten thousand at most; for "select all"."""
        response.headers.update(NO_STORE)
        return Ids(ids=history.ids(viewer.scope, q, trashed=trash))

    @router.get("/tags")
    def tags(response: Response, viewer: CurrentViewer) -> list[TagView]:
        """Every tag in use, the most used first."""
        response.headers.update(NO_STORE)
        return [TagView(tag=tag, count=count) for tag, count in history.tags(viewer.scope)]

    @router.get("/users")
    def users(response: Response, viewer: CurrentViewer) -> list[UserView]:
        """Whose pictures there are: for an administrator everybody's, for others their own; "" is nobody by name."""
        response.headers.update(NO_STORE)
        return [UserView(user=user, count=count) for user, count in history.users(viewer.scope)]

    return router


def _selections(history: History) -> APIRouter:
    router = APIRouter(prefix="/history")

    @router.post("/favourite")
    def favourite(body: FavouriteChange, viewer: CurrentViewer) -> Favourites:
        """Mark pictures as favourites, or no longer. The answer's ids, changed back, undo it."""
        done = history.set_favourite(viewer.scope, body.ids, body.favourite)
        return Favourites(changed=done.count, ids=done.changed)

    @router.post("/tags")
    def change_tags(body: TagChange, viewer: CurrentViewer) -> Tagged:
        """Add and remove tags. The answer says of which pictures each is to be taken off or put back to undo it."""
        done = history.change_tags(viewer.scope, body.ids, add=body.add, remove=body.remove)
        return Tagged(changed=done.count, added=done.added, removed=done.removed)

    @router.post("/delete")
    def delete(body: Selected, viewer: CurrentViewer) -> Ids:
        """Into the trash. The answer's ids, sent to /history/restore, undo it."""
        return Ids(ids=history.delete(viewer.scope, body.ids))

    @router.post("/restore")
    def restore(body: Selected, viewer: CurrentViewer) -> Ids:
        """Out of the trash."""
        return Ids(ids=history.restore(viewer.scope, body.ids))

    @router.post("/trash/empty")
    def empty_trash(body: TrashEmptying, viewer: CurrentViewer) -> Changed:
        """Delete for good: everything in the trash, or the named pictures of it."""
        return Changed(changed=history.empty_trash(viewer.scope, body.ids))

    @router.get("/compare")
    def compare(response: Response, viewer: CurrentViewer, ids: IdList, everything: bool = False) -> list[RowView]:
        """The parameters, models and conditions in which pictures differ (or all of them)."""
        response.headers.update(NO_STORE)
        rows = history.compare(viewer.scope, _numbers(ids), everything=everything)
        return [RowView(group=r.group, name=r.name, values=list(r.values), equal=r.equal) for r in rows]

    @router.get("/zip", response_class=StreamingResponse, responses=ZIP)
    def download(viewer: CurrentViewer, ids: IdList | None = None, q: Search = "") -> StreamingResponse:
        """The files of the pictures as one archive: of the ids, or of everything a search finds."""
        return _archive(history, viewer, history.ids(viewer.scope, q) if ids is None else _numbers(ids))

    @router.post("/zip", response_class=StreamingResponse, responses=ZIP)
    def download_many(body: Selected, viewer: CurrentViewer) -> StreamingResponse:
        """The same for more ids than an address can hold."""
        return _archive(history, viewer, body.ids)

    return router


def _in_and_out(history: History) -> APIRouter:
    router = APIRouter(prefix="/history")

    @router.get("/export", response_class=StreamingResponse, responses=LINES)
    def export(viewer: CurrentViewer, q: Search = "") -> StreamingResponse:
        """All that is known of the pictures, as JSON lines."""

        def pieces() -> Iterator[bytes]:
            for line in history.export(viewer.scope, q):
                yield line.encode()

        headers = {**NO_STORE, "content-disposition": 'attachment; filename="history.jsonl"'}
        return StreamingResponse(pieces(), media_type="application/x-ndjson", headers=headers)

    @router.post(
        "/import",
        openapi_extra={"requestBody": {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
    )
    async def import_lines(request: Request, viewer: CurrentViewer) -> LinesImported:
        """Take in what /history/export gave. The pictures themselves are not part of it."""
        body = await request.body()
        if len(body) > MAX_IMPORT:
            raise InvalidParams("The lines are longer than 64 MB.", "Import larger files on the command line.")
        lines = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8", errors="replace")
        result = await run_in_threadpool(history.import_lines, viewer.scope, lines)
        return LinesImported(
            added=result.added, known=result.known, refused=result.refused, problems=list(result.problems)
        )

    return router


def _typing(history: History) -> APIRouter:
    """What people type: earlier prompts and drafts, always of the viewer alone."""
    router = APIRouter(prefix="/history")

    @router.get("/prompts")
    def prompts(
        response: Response,
        viewer: CurrentViewer,
        q: Search = "",
        after: Cursor = "",
        limit: Limit = 50,
    ) -> PromptList:
        """Earlier prompts, the newest first."""
        response.headers.update(NO_STORE)
        found, older = history.prompts(viewer.name, q, after=after, limit=limit)
        return PromptList(prompts=[PromptView(**asdict(p)) for p in found], older=older)

    @router.post("/prompts/forget")
    def forget_prompts(body: PromptSelection, viewer: CurrentViewer) -> Changed:
        """Take prompts out of the prompt history; pictures keep theirs."""
        return Changed(changed=history.forget_prompts(viewer.name, body.ids))

    @router.get("/drafts/{form}")
    def draft(form: str, response: Response, viewer: CurrentViewer) -> DraftView:
        """The form as it was last typed; `data` is null when there is no draft."""
        response.headers.update(NO_STORE)
        found = history.draft(viewer.name, form)
        return DraftView(form=form, data=found.data if found else None, updated=found.updated if found else None)

    @router.post("/drafts/{form}")
    def save_draft(form: str, body: DraftChange, viewer: CurrentViewer) -> DraftView:
        """Keep the form as typed."""
        if body.data is None:
            history.drop_draft(viewer.name, form)
            return DraftView(form=form, data=None, updated=None)
        saved = history.save_draft(viewer.name, form, body.data)
        return DraftView(form=form, data=saved.data, updated=saved.updated)

    return router


def _one_picture(history: History) -> APIRouter:
    router = APIRouter(prefix="/history/{picture_id}")

    @router.get("")
    def get(picture_id: PictureId, response: Response, viewer: CurrentViewer) -> PictureView:
        """All that is known of a picture."""
        response.headers.update(NO_STORE)
        return picture_view(history.get(viewer.scope, picture_id))

    @router.get("/thumbnail.webp", response_class=Response, responses=THUMBNAIL)
    def thumbnail(
        picture_id: PictureId,
        viewer: CurrentViewer,
        v: Annotated[str, Query(max_length=64)] = "",
    ) -> Response:
        """A small copy. With `v` as the grid gives it, browsers keep it."""
        key, data = history.thumbnail(viewer.scope, picture_id)
        return Response(data, media_type="image/webp", headers=KEEP if v == key else NO_STORE)

    @router.get("/file", response_class=FileResponse, responses=PICTURE)
    def file(picture_id: PictureId, viewer: CurrentViewer, download: bool = False) -> FileResponse:
        """The picture, exactly as it lies on the disk."""
        return picture_response(history.file(viewer.scope, picture_id), download=download)

    @router.post("/notes")
    def notes(picture_id: PictureId, body: Notes, viewer: CurrentViewer) -> PictureView:
        """Replace the notes."""
        history.set_notes(viewer.scope, picture_id, body.notes)
        return picture_view(history.get(viewer.scope, picture_id))

    @router.get("/similar")
    def similar(picture_id: PictureId, response: Response, viewer: CurrentViewer, limit: Limit = 60) -> list[CardView]:
        """More like this: pictures with a similar prompt."""
        response.headers.update(NO_STORE)
        return [card_view(card) for card in history.similar(viewer.scope, picture_id, limit)]

    @router.get("/family")
    def family(picture_id: PictureId, response: Response, viewer: CurrentViewer) -> FamilyView:
        """What the picture was made from, and what was made from that."""
        response.headers.update(NO_STORE)
        return family_view(history.family(viewer.scope, picture_id))

    return router


def _again(history: History, jobs: JobService, catalog: Catalog, rights: InputRights) -> APIRouter:
    router = APIRouter(prefix="/history/{picture_id}")

    @router.get("/replay")
    def replay_plan(picture_id: PictureId, response: Response, viewer: CurrentViewer) -> PlanView:
        """What a replay would do: exact params, model files found elsewhere, missing ones."""
        response.headers.update(NO_STORE)
        return plan_view(history.plan_replay(viewer.scope, picture_id, catalog))

    @router.post("/replay", status_code=201)
    def replay(picture_id: PictureId, body: ReplayRequest, viewer: CurrentViewer) -> ReplayStarted:
        """Queue the same picture again, or with some parameters changed, as a child of this one."""
        plan = history.plan_replay(viewer.scope, picture_id, catalog, body.changes)
        params = plan.params if body.anyway else plan.require_complete()
        rights.require(viewer, params)
        job = jobs.submit(params, user=viewer.name)
        with contextlib.suppress(HistoryUnavailable):  # the job runs; only the tree will not show where it came from
            history.link(viewer.scope, job, picture_id, plan.relation, plan.changes)
        return ReplayStarted(job=job, plan=plan_view(plan))

    @router.get("/difference/{other}")
    def difference(
        picture_id: PictureId, other: PictureId, response: Response, viewer: CurrentViewer
    ) -> DifferenceView:
        """Whether two pictures are identical; if not, how far apart, and what was different in the making."""
        response.headers.update(NO_STORE)
        found = history.difference(viewer.scope, picture_id, other)
        rows = history.compare(viewer.scope, [picture_id, other])
        return DifferenceView(
            verdict=found.verdict,
            max_difference=found.max_difference,
            mean_difference=found.mean_difference,
            notes=list(found.notes),
            rows=[RowView(group=r.group, name=r.name, values=list(r.values), equal=r.equal) for r in rows],
        )

    return router


def _numbers(ids: str) -> list[int]:
    return [int(text) for text in ids.split(",")]


def _archive(history: History, viewer: Viewer, ids: list[int]) -> StreamingResponse:
    headers = {**NO_STORE, "content-disposition": 'attachment; filename="pictures.zip"'}
    return StreamingResponse(history.zip(viewer.scope, ids), media_type="application/zip", headers=headers)
