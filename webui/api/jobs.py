"""The native job routes: submit, list, watch, steer. The page itself lives on them.

A client polls `GET /jobs/{id}?rev=N`: 204 while nothing changed since revision N, so a poll costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from webui.api.common import ERRORS, AsciiJSON, JsonBody
from webui.api.responses import Accepted, ErrorView, JobCreated, JobList, JobView
from webui.errors import NotFound
from webui.params import params_from_json

if TYPE_CHECKING:
    from webui.jobs.service import JobService

MAX_LISTED = 500
NO_STORE = {"cache-control": "no-store"}


def job_routes(jobs: JobService) -> APIRouter:
    """The routes below /jobs."""
    router = APIRouter(prefix="/jobs", tags=["jobs"], responses=ERRORS)

    @router.post(
        "",
        status_code=201,
        response_model=JobCreated,
        responses={429: {"model": ErrorView, "description": "The queue is full"}},
    )
    def submit(
        body: JsonBody, idempotency_key: Annotated[str | None, Header(max_length=200)] = None
    ) -> AsciiJSON | JobCreated:
        """Queue a job. The body is one JSON object of generation parameters; what is left out has its default.

        The same `Idempotency-Key` again answers with the job that the first request made.
        """
        return JobCreated(id=jobs.submit(params_from_json(body), key=idempotency_key))

    @router.get("", response_model=JobList)
    def list_jobs(
        response: Response,
        state: Annotated[str | None, Query(max_length=20)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 50,
    ) -> dict[str, Any]:
        """The newest jobs first; `state` keeps those in that state alone."""
        response.headers.update(NO_STORE)
        views = jobs.list(MAX_LISTED if state else limit)
        return {"jobs": [v for v in views if state is None or v["state"] == state][:limit]}

    @router.get("/{job_id}", response_model=JobView, responses={204: {"description": "Nothing changed since `rev`"}})
    def view(job_id: str, response: Response, rev: Annotated[int | None, Query()] = None) -> Any:
        """One job as it stands."""
        found = jobs.view(job_id)
        if found is None:
            raise _no_such_job()
        if rev is not None and found["rev"] == rev:
            return Response(status_code=204, headers=NO_STORE)
        response.headers.update(NO_STORE)
        return found

    @router.get("/{job_id}/preview.jpg", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
    def preview(job_id: str) -> Response:
        """The picture in the making, from memory; it never touches the disk. 204 while there is none."""
        jpeg = jobs.preview(job_id)
        if jpeg is None:
            if jobs.view(job_id) is None:
                raise _no_such_job()
            return Response(status_code=204, headers=NO_STORE)
        return Response(jpeg, media_type="image/jpeg", headers=NO_STORE)

    @router.post("/{job_id}/interrupt", response_model=Accepted)
    def interrupt(job_id: str) -> Accepted:
        """End a running job early and keep what it finished; a waiting job is cancelled."""
        return _steer(job_id, jobs.interrupt)

    @router.post("/{job_id}/skip", response_model=Accepted)
    def skip(job_id: str) -> Accepted:
        """Leave the picture (batch) in the making and go on with the next."""
        return _steer(job_id, jobs.skip)

    @router.post("/{job_id}/cancel", response_model=Accepted)
    def cancel(job_id: str) -> Accepted:
        """Take a waiting job out of the queue."""
        return _steer(job_id, jobs.cancel)

    @router.post("/{job_id}/move-up", response_model=Accepted)
    def move_up(job_id: str) -> Accepted:
        """Let a waiting job run one place earlier."""
        found = jobs.view(job_id)
        if found is None:
            raise _no_such_job()
        position = found["position"]
        return Accepted(changed=bool(position) and jobs.move(job_id, position - 1))

    @router.get("/{job_id}/pictures/{index}.png", response_class=Response)
    def unsaved(job_id: str, index: int) -> Response:
        """A finished picture that the disk did not take, from memory."""
        png = jobs.picture(job_id, index)
        if png is None:
            raise NotFound("There is no such picture.", "Pictures that were saved are below /outputs/.")
        return Response(png, media_type="image/png", headers=NO_STORE)

    @router.post("/{job_id}/retry", status_code=201, response_model=JobCreated)
    def retry(job_id: str) -> JobCreated:
        """Queue a job that is over once more, under a new id."""
        return JobCreated(id=jobs.retry(job_id))

    def _steer(job_id: str, action: Any) -> Accepted:
        if jobs.view(job_id) is None:
            raise _no_such_job()
        return Accepted(changed=bool(action(job_id)))

    return router


def _no_such_job() -> NotFound:
    return NotFound("There is no such job.", "It may have been removed from the list; make the picture again.")
