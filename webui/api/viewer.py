"""Whose request this is. The server knows (`webui.server.access`); every route asks here, and here alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from webui.errors import NotFound

if TYPE_CHECKING:
    from webui.jobs.service import JobService


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks. `name` owns what they make; an administrator sees everybody's."""

    name: str = ""
    admin: bool = False

    @property
    def scope(self) -> str | None:
        """Whose things they see; None: everybody's."""
        return None if self.admin else self.name


ViewerOf = Callable[[Request], Viewer]
"""Tells whose request it is; may raise to refuse it."""


def only_viewer(_: Request) -> Viewer:
    """Without accounts: whoever may come in sees everything, and what they make is nobody's in particular."""
    return Viewer("", admin=True)


def identify_by(viewer_of: ViewerOf) -> Callable[[Request], None]:
    """A dependency for the whole app or a router: it runs before every route's own, and `CurrentViewer` reads it."""

    def identify(request: Request) -> None:
        request.state.viewer = viewer_of(request)

    return identify


def _current_viewer(request: Request) -> Viewer:
    viewer: Viewer = request.state.viewer
    return viewer


CurrentViewer = Annotated[Viewer, Depends(_current_viewer)]


def own_job(jobs: JobService, viewer: Viewer, job_id: str) -> dict[str, Any]:
    """The job's view. Raises `NotFound`, in the same words for what is somebody else's."""
    view = jobs.view(job_id)
    if view is None or (viewer.scope is not None and view["user"] != viewer.scope):
        raise NotFound("There is no such job.", "It may have been removed from the list; make the picture again.")
    return view
