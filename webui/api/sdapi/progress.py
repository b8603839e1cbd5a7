"""How far things are, and ending them early. Everybody sees and steers their own jobs alone."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query

from webui.api.encoded import encode_picture
from webui.api.sdapi.context import Context
from webui.api.sdapi.errors import SdapiRoute
from webui.api.sdapi.requests import ProgressOf
from webui.api.sdapi.responses import PendingTasks, ProgressState, ProgressView, TaskView
from webui.api.streaming import OVER
from webui.api.viewer import CurrentViewer
from webui.errors import Forbidden
from webui.identity import Viewer
from webui.jobs.states import JobState

MAX_LISTED = 500


def progress_routes(context: Context) -> APIRouter:
    """/progress, /interrupt and /skip."""
    router = APIRouter(route_class=SdapiRoute)

    @router.get("/progress", response_model=ProgressView)
    def progress(viewer: CurrentViewer, skip_current_image: Annotated[bool, Query()] = False) -> ProgressView:
        """How far the running job is; all zeros when none of yours runs."""
        view = running(context, viewer)
        if view is None:
            return ProgressView(state=ProgressState())
        preview = None if skip_current_image else context.jobs.preview(view["id"])
        return ProgressView(
            progress=share_done(view),
            eta_relative=view["seconds_left"] or 0.0,
            state=_state(view),
            current_image=encode_picture(preview) if preview else None,
            textinfo=view["line"] or None,
        )

    @router.post("/interrupt")
    def interrupt(viewer: CurrentViewer) -> dict[str, Any]:
        """End the running job early and keep what it finished. 403 for the job of somebody else."""
        view = steered(context, viewer)
        if view is not None:
            context.jobs.interrupt(view["id"])
        return {}

    @router.post("/skip")
    def skip(viewer: CurrentViewer) -> None:
        """Leave the picture (batch) in the making and go on with the next. 403 for the job of somebody else."""
        view = steered(context, viewer)
        if view is not None:
            context.jobs.skip(view["id"])

    return router


def task_routes(context: Context) -> APIRouter:
    """/internal: the progress of one request, by the name that it was given."""
    router = APIRouter(prefix="/internal", route_class=SdapiRoute)

    @router.post("/progress", response_model=TaskView)
    def task_progress(body: ProgressOf, viewer: CurrentViewer) -> TaskView:
        """How far a task is. A name that is not known is a task that has not begun."""
        job = context.tasks.job_of(viewer.name, body.id_task)
        view = context.jobs.view(job) if job else None
        if job is None or view is None:
            return TaskView(textinfo="Waiting...")
        if view["state"] in OVER:
            return TaskView(completed=True)
        if view["state"] == "pending":
            return TaskView(queued=True, textinfo=f"In queue: {(view['position'] or 0) + 1}")
        preview = context.jobs.preview(job) if body.live_preview else None
        new = preview is not None and view["preview"] != body.id_live_preview
        return TaskView(
            active=True,
            progress=share_done(view),
            eta=view["seconds_left"],
            live_preview=f"data:image/jpeg;base64,{encode_picture(preview)}" if new and preview else None,
            id_live_preview=view["preview"] if new else body.id_live_preview,
            textinfo=view["line"] or None,
        )

    @router.get("/pending-tasks", response_model=PendingTasks)
    def pending(viewer: CurrentViewer) -> PendingTasks:
        """What waits, by task name, or by job id where there is none."""
        waiting = context.jobs.list(MAX_LISTED, viewer.scope, (JobState.pending,))
        names = [context.tasks.task_of(v["user"], v["id"]) or v["id"] for v in reversed(waiting)]
        return PendingTasks(size=len(names), tasks=names)

    @router.get("/ping")
    def ping() -> dict[str, Any]:
        """That the server answers."""
        return {}

    return router


def running(context: Context, viewer: Viewer) -> dict[str, Any] | None:
    """The job that runs, if it is the viewer's."""
    view = context.jobs.running()
    return view if view is not None and viewer.owns(view["user"]) else None


def steered(context: Context, viewer: Viewer) -> dict[str, Any] | None:
    """The job that runs, for ending it; None when none does. Raises `Forbidden` for somebody else's."""
    view = context.jobs.running()
    if view is not None and not viewer.owns(view["user"]):
        raise Forbidden("The job that runs is somebody else's.", "Yours wait; /jobs/ID/cancel takes one of them out.")
    return view


def share_done(view: dict[str, Any]) -> float:
    """0.01 to 1 while the job runs, so that 0 always means that nothing does."""
    return min(1.0, max(0.01, float(view["progress"])))


def _state(view: dict[str, Any]) -> ProgressState:
    started = view["started"]
    return ProgressState(
        job=view["id"],
        job_count=max(1, view["batches"]),
        job_timestamp=time.strftime("%Y%m%d%H%M%S", time.localtime(started)) if started else "0",
        job_no=max(0, view["batch"] - 1),
        sampling_step=view["step"],
        sampling_steps=view["steps"],
    )
