"""The native job routes: submit, list, watch, steer. The page itself lives on them.

A client follows `GET /jobs/{id}/events`, or polls `GET /jobs/{id}?rev=N`: 204 while nothing changed since revision N,
so a poll costs next to nothing. Looking at a job of somebody else is answered like one that does not exist (404),
changing it is refused (403).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from webui.api.common import ERRORS, NO_STORE, AsciiJSON, JsonBody
from webui.api.pictures import PICTURE, media_type
from webui.api.responses import Accepted, ErrorView, JobCreated, JobList, JobView, Position
from webui.api.streaming import OVER, event_stream, until_over
from webui.api.viewer import CurrentViewer, own_job, steered_job
from webui.errors import InvalidParams, NotFound
from webui.identity import Viewer
from webui.jobs.states import JobState
from webui.params import params_from_json

if TYPE_CHECKING:
    from webui.inputs import InputRights
    from webui.jobs.service import JobService

MAX_LISTED = 500
MAX_PICTURES = 100_000  # more than any job has
MAX_WAIT = 60.0  # seconds; proxies give up after that
NOTHING_NEW: dict[int | str, dict[str, Any]] = {204: {"description": "Nothing changed since `rev`"}}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    204: {"description": "The job is over and everything was read: stop asking"},
}
JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}},
    204: {"description": "There is no preview (yet)"},
}
_SUBMIT_EXAMPLE = {"prompt": "a red apple on a table", "steps": 20, "sampler": "Euler a", "seed": 7}
_SUBMIT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/GenerationParams"},
                "example": _SUBMIT_EXAMPLE,
            }
        },
    }
}

After = Annotated[int | None, Query(ge=0, description="The last sequence number that was seen")]
LastEventId = Annotated[str | None, Header(max_length=40, description="The same, as EventSource sends it")]


def job_routes(jobs: JobService, outputs: Path, rights: InputRights) -> APIRouter:
    """The routes below /jobs."""
    router = APIRouter(tags=["jobs"], responses=ERRORS)
    router.include_router(_in_and_out(jobs, rights))
    router.include_router(_events(jobs, outputs))
    router.include_router(_looking(jobs))
    router.include_router(_steering(jobs))
    return router


def _in_and_out(jobs: JobService, rights: InputRights) -> APIRouter:
    router = APIRouter(prefix="/jobs")

    @router.post(
        "",
        status_code=201,
        response_model=JobCreated,
        responses={429: {"model": ErrorView, "description": "The queue is full"}},
        openapi_extra=_SUBMIT_BODY,
    )
    def submit(
        body: JsonBody,
        viewer: CurrentViewer,
        idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
    ) -> AsciiJSON | JobCreated:
        """Queue a job. The body is one JSON object of generation parameters; what is left out has its default.

        The answer comes at once. The same `Idempotency-Key` again answers with the job that the first request made.
        """
        params = params_from_json(body)
        rights.require(viewer, params)
        return JobCreated(id=jobs.submit(params, user=viewer.name, key=idempotency_key))

    @router.get("", response_model=JobList)
    def list_jobs(
        response: Response,
        viewer: CurrentViewer,
        state: Annotated[str | None, Query(max_length=20)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 50,
        order: Literal["newest", "turn"] = "newest",
        images: Annotated[
            int | None, Query(ge=0, le=MAX_PICTURES, description="Of each job the first so many pictures alone")
        ] = None,
    ) -> dict[str, Any]:
        """The newest jobs first; `state` keeps those in that state alone.

        `order` "turn" is for looking at the queue: first what runs, then up to `limit` jobs that wait, the next one
        first, and then up to `limit` that are over. Whoever asks again and again wants few `images`: each comes with
        its parameters text.
        """
        response.headers.update(NO_STORE)
        if order == "turn":
            views = jobs.in_turn(limit, viewer.scope, images)
            return {"jobs": [v for v in views if state is None or v["state"] == state]}
        states = [one for one in JobState if state is None or one.value == state]
        return {"jobs": jobs.list(limit, viewer.scope, states, images)}

    @router.post("/{job_id}/retry", status_code=201, response_model=JobCreated)
    def retry(job_id: str, viewer: CurrentViewer) -> JobCreated:
        """Queue a job that is over once more, under a new id."""
        steered_job(jobs, viewer, job_id)
        return JobCreated(id=jobs.retry(job_id))

    return router


def _events(jobs: JobService, outputs: Path) -> APIRouter:
    router = APIRouter(prefix="/jobs")

    @router.get("/{job_id}/events", response_class=StreamingResponse, responses=STREAM)
    async def events(
        job_id: str, viewer: CurrentViewer, after: After = None, last_event_id: LastEventId = None
    ) -> Response:
        """What the job says, from its beginning to its end, as server-sent events.

        The kinds are loading, loaded, started, step, preview, image, warning, memory, and at last one of finished and
        failed; then the stream ends. Every event has a sequence number as its id. Whoever comes back with the last
        one in `Last-Event-ID` goes on behind it: steps and previews may be missing then, pictures, warnings and the
        end never are.
        """
        seen = _sequence(after, last_event_id)

        def watch() -> tuple[bool, Any]:
            over = own_job(jobs, viewer, job_id)["state"] in OVER
            return over, jobs.watch(job_id, seen, viewer.name)

        over, watcher = await run_in_threadpool(watch)
        if over and watcher.caught_up:
            watcher.close()
            return Response(status_code=204, headers=NO_STORE)
        return _stream(event_stream(watcher, outputs))

    return router


def _looking(jobs: JobService) -> APIRouter:
    router = APIRouter(prefix="/jobs/{job_id}")

    @router.get("", response_model=JobView, responses=NOTHING_NEW)
    async def view(
        job_id: str,
        response: Response,
        viewer: CurrentViewer,
        rev: Annotated[int | None, Query(description="The revision that is known already")] = None,
        wait: Annotated[float, Query(ge=0, le=MAX_WAIT, description="Seconds to wait for the job's end")] = 0.0,
        known: Annotated[int, Query(ge=0, description="How many of its pictures are known already")] = 0,
    ) -> Any:
        """One job as it stands; with `wait`, once it is over or the time is up.

        With `known`, its `images` are those behind the first so many. A job that was begun anew may have fewer than
        that; then all of them come.
        """
        found = await run_in_threadpool(own_job, jobs, viewer, job_id)
        if wait and found["state"] not in OVER:
            found = await until_over(jobs, job_id, wait)
        if rev is not None and found["rev"] == rev:
            return Response(status_code=204, headers=NO_STORE)
        response.headers.update(NO_STORE)
        if known <= found["image_count"]:
            found["images"] = found["images"][known:]
        return found

    @router.get("/preview.jpg", response_class=Response, responses=JPEG)
    def preview(job_id: str, viewer: CurrentViewer) -> Response:
        """The picture in the making, from memory; it never touches the disk. 204 while there is none."""
        own_job(jobs, viewer, job_id)
        jpeg = jobs.preview(job_id)
        if jpeg is None:
            return Response(status_code=204, headers=NO_STORE)
        return Response(jpeg, media_type="image/jpeg", headers=NO_STORE)

    @router.get("/pictures/{index}.png", response_class=Response, responses=PICTURE)
    def unsaved(job_id: str, index: int, viewer: CurrentViewer) -> Response:
        """A finished picture that was not to be saved, or that the disk did not take, from memory."""
        own_job(jobs, viewer, job_id)
        data = jobs.picture(job_id, index)
        if data is None:
            raise NotFound("There is no such picture.", "Pictures that were saved are below /outputs/.")
        return Response(data, media_type=media_type(data), headers=NO_STORE)

    return router


def _steering(jobs: JobService) -> APIRouter:
    router = APIRouter(prefix="/jobs/{job_id}")

    @router.post("/interrupt", response_model=Accepted)
    def interrupt(job_id: str, viewer: CurrentViewer) -> Accepted:
        """End a running job early and keep what it finished; a waiting job is cancelled."""
        return steer(job_id, viewer, jobs.interrupt)

    @router.post("/skip", response_model=Accepted)
    def skip(job_id: str, viewer: CurrentViewer) -> Accepted:
        """Leave the picture (batch) in the making and go on with the next."""
        return steer(job_id, viewer, jobs.skip)

    @router.post("/cancel", response_model=Accepted)
    def cancel(job_id: str, viewer: CurrentViewer) -> Accepted:
        """Take a waiting job out of the queue; one that began a moment before is interrupted."""
        return steer(job_id, viewer, jobs.cancel)

    @router.post("/move-up", response_model=Accepted)
    def move_up(job_id: str, viewer: CurrentViewer) -> Accepted:
        """Let a waiting job run one place earlier: among the jobs of whoever asks, for administrators among all."""
        steered_job(jobs, viewer, job_id)
        return Accepted(changed=jobs.move_up(job_id, viewer.scope))

    @router.post("/move", response_model=Accepted)
    def move(job_id: str, body: Position, viewer: CurrentViewer) -> Accepted:
        """Let a waiting job run at another place; 0 is the next of all, or for users the next of their own."""
        steered_job(jobs, viewer, job_id)
        return Accepted(changed=jobs.move(job_id, body.position, viewer.scope))

    def steer(job_id: str, viewer: Viewer, action: Any) -> Accepted:
        steered_job(jobs, viewer, job_id)
        return Accepted(changed=bool(action(job_id)))

    return router


def _stream(parts: AsyncIterator[str]) -> StreamingResponse:
    """Not stored by caches, and not collected by a proxy until it is whole (nginx reads the last header)."""
    headers = {**NO_STORE, "x-accel-buffering": "no"}
    return StreamingResponse(parts, media_type="text/event-stream", headers=headers)


def _sequence(after: int | None, last_event_id: str | None) -> int | None:
    """Where to go on. What EventSource sends is newer than the address it was first given."""
    if not last_event_id:
        return after
    if not re.fullmatch(r"\d{1,19}", last_event_id, re.ASCII):
        raise InvalidParams("Last-Event-ID is not a sequence number of this server.", "Leave it out to start anew.")
    return int(last_event_id)
