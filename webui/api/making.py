"""Jobs for callers that wait for their pictures: submit, wait without holding a thread, and hand over the files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from webui.api.pictures import picture_file
from webui.api.streaming import OVER, entries
from webui.errors import NotFound, SaveError, WebUIError, WorkerDied, error_from_dict
from webui.events import Image

if TYPE_CHECKING:
    from webui.jobs.bus import Watcher
    from webui.jobs.service import JobService
    from webui.params import GenerationParams

MAX_ANSWER = 2**30  # bytes of pictures in one answer


@dataclass(frozen=True, slots=True)
class Made:
    """One finished picture: its facts as in the job's view, and the bytes of its file."""

    facts: dict[str, Any]
    data: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """A job that is over."""

    view: dict[str, Any]
    pictures: tuple[Made, ...]


async def make(
    jobs: JobService,
    outputs: Path,
    params: GenerationParams,
    user: str,
    *,
    started: Callable[[str], None] = lambda _: None,
    key: str | None = None,
) -> Result:
    """Queue a job, wait for its end, and collect its pictures. `started` is told the job's id.

    A job that was interrupted gives what it finished. Raises what the job failed with, and the errors of `submit`.
    """
    job = await run_in_threadpool(jobs.submit, params, user, key)
    started(job)
    try:
        watcher = await run_in_threadpool(jobs.watch, job)
    except WebUIError:  # nobody would fetch its pictures
        with contextlib.suppress(NotFound):
            await run_in_threadpool(jobs.cancel, job)
        raise
    return await _collect(jobs, outputs, job, watcher)


async def _collect(jobs: JobService, outputs: Path, job: str, watcher: Watcher) -> Result:
    """Wait for the end of a watched job. Raises what it failed with."""
    unsaved: dict[int, bytes] = {}
    size = 0
    async for entry in entries(watcher):
        if entry is not None and isinstance(entry.event, Image) and not entry.event.path:
            data = jobs.take_picture(job, entry.event.index)
            if data is not None and size + len(data) <= MAX_ANSWER:
                unsaved[entry.event.index] = data
                size += len(data)
    view = await run_in_threadpool(jobs.view, job)
    if view is None or view["state"] not in OVER:
        raise WorkerDied("The server ends before the job does.", "Ask again when it is back; the job is kept.")
    if view["error"]:
        raise error_from_dict(view["error"])
    pictures = await run_in_threadpool(_files, view, outputs, unsaved)
    return Result(view, tuple(pictures))


def _files(view: dict[str, Any], outputs: Path, unsaved: dict[int, bytes]) -> list[Made]:
    """Raises `WebUIError` for more than an answer can hold."""
    found: list[Made] = []
    size = 0
    for facts in view["images"]:
        data = unsaved.get(facts["index"])
        if data is None:
            try:
                data = picture_file(outputs, facts["path"])[0].read_bytes() if facts["path"] else b""
            except (NotFound, OSError):
                data = b""
        if not data:
            raise SaveError(
                facts["error"] or "A picture was made, but its file is not there any more.", "Make it again."
            )
        size += len(data)
        if size > MAX_ANSWER:
            raise WebUIError("The pictures are larger than one answer can be.", "Ask for fewer at once.")
        found.append(Made(facts, data))
    return found
