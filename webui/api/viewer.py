"""Whose request this is. The server knows (`webui.server.access`); every route asks here, and here alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from webui.errors import Forbidden, NotFound, NotSignedIn
from webui.identity import OWNER, Viewer

if TYPE_CHECKING:
    from webui.jobs.service import JobService


ViewerOf = Callable[[Request], Viewer]
"""Tells whose request it is; may raise to refuse it."""


def only_viewer(_: Request) -> Viewer:
    """Where no server stands before the app: whoever may come in sees everything, and what they make is nobody's."""
    return OWNER


def guarded_viewer(request: Request) -> Viewer:
    """Who the server's guard let in. Raises `NotSignedIn` where none has spoken, rather than letting anybody in."""
    viewer = request.scope.get("viewer")
    if not isinstance(viewer, Viewer):
        raise NotSignedIn("Nobody is signed in.", "Open the page's address and sign in.")
    return viewer


def identify_by(viewer_of: ViewerOf) -> Callable[[Request], None]:
    """A dependency for the whole app or a router: it runs before every route's own, and `CurrentViewer` reads it."""

    def identify(request: Request) -> None:
        request.state.viewer = viewer_of(request)

    return identify


def _current_viewer(request: Request) -> Viewer:
    viewer: Viewer = request.state.viewer
    return viewer


CurrentViewer = Annotated[Viewer, Depends(_current_viewer)]


def _require_admin(viewer: CurrentViewer) -> None:
    if not viewer.admin:
        raise Forbidden("This is for administrators alone.", "Ask one of them.")


AdminOnly = Depends(_require_admin)
"""A dependency of routes that change what is everybody's. Raises `Forbidden`."""


def own_job(jobs: JobService, viewer: Viewer, job_id: str) -> dict[str, Any]:
    """The job's view. Raises `NotFound`, in the same words for what is somebody else's."""
    view = jobs.view(job_id)
    if view is None or not viewer.owns(view["user"]):
        raise NotFound("There is no such job.", "It may have been removed from the list; make the picture again.")
    return view


def steered_job(jobs: JobService, viewer: Viewer, job_id: str) -> dict[str, Any]:
    """The view of a job that the viewer is about to change. Ids are random, so whoever names one was told of the job
    and is not kept in the dark about it: `Forbidden` for somebody else's, `NotFound` for none."""
    view = jobs.view(job_id)
    if view is not None and not viewer.owns(view["user"]):
        raise Forbidden("That job is somebody else's.", "Only they and administrators can change it.")
    return own_job(jobs, viewer, job_id)
