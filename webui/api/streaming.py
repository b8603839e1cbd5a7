"""Following jobs without holding a thread: a watcher as an async iterator, the wait for a job's end, and SSE.

A thousand connections that wait cost a thousand small objects and no thread; the page stays as quick as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from webui.errors import WebUIError
from webui.events import Event, Memory, Preview, Step
from webui.jobs.live import event_dict

if TYPE_CHECKING:
    from webui.jobs.bus import Entry, Watcher
    from webui.jobs.service import JobService

BEAT_SECONDS = 15.0  # between two signs of life; proxies end silent connections after a minute
RETRY_MILLISECONDS = 2000
PACE_SECONDS = 0.1  # at most ten messages a second to each who follows
MAX_BATCH = 1000  # events in one message
OVER = ("done", "interrupted", "failed", "cancelled", "lost")


async def entries(watcher: Watcher, beat: float = BEAT_SECONDS) -> AsyncIterator[Entry | None]:
    """The watcher's entries as they come, None whenever nothing came for `beat` seconds. Closes the watcher."""
    loop = asyncio.get_running_loop()
    news = asyncio.Event()
    told = False  # the loop knows of news already: a flood of events costs it one call

    def wake() -> None:
        nonlocal told
        if not told:
            told = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waits here
                loop.call_soon_threadsafe(news.set)

    try:
        watcher.call(wake)
        while not watcher.ended:
            news.clear()
            told = False
            entry = watcher.get(0)
            if entry is not None:
                yield entry
            elif not watcher.ended:
                try:
                    await asyncio.wait_for(news.wait(), beat)
                except (TimeoutError, asyncio.TimeoutError):  # two classes until Python 3.11
                    yield None
    finally:
        watcher.close()


async def until_over(jobs: JobService, job_id: str, seconds: float | None = None) -> dict[str, Any]:
    """The job's view once it is over, or as it stands after `seconds`. Raises `NotFound`.

    Raises `WebUIError` when the server ends first.
    """
    watcher = await run_in_threadpool(jobs.watch, job_id)

    async def follow() -> None:
        async for _ in entries(watcher):
            continue

    try:
        await asyncio.wait_for(follow(), seconds)
    except (TimeoutError, asyncio.TimeoutError):
        over = False
    else:
        over = True
    view = await run_in_threadpool(jobs.view, job_id)
    if view is None or (over and view["state"] not in OVER):
        raise WebUIError("The server ends before the job does.", "Ask again when it is back; the job is kept.")
    return view


def sse(entry: Entry, outputs: Path) -> str:
    """One event in the form of `text/event-stream`: its sequence number, its kind, its facts as JSON."""
    data = {"job": entry.job, "sequence": entry.sequence, **event_dict(entry.event, outputs), **_preview(entry)}
    return f"id: {entry.sequence}\nevent: {data['kind']}\ndata: {json.dumps(data, allow_nan=False)}\n\n"


def _preview(entry: Entry) -> dict[str, str]:
    event: Event = entry.event
    return {"url": f"/jobs/{entry.job}/preview.jpg"} if isinstance(event, Preview) else {}


async def event_stream(
    watcher: Watcher, outputs: Path, *, beat: float = BEAT_SECONDS, pace: float = PACE_SECONDS
) -> AsyncIterator[str]:
    """What a job says, as `text/event-stream`; a comment now and then keeps the connection.

    What happens within `pace` seconds goes out together, and of steps, previews and memory the newest alone: hundreds
    who follow a fast job must not keep the server from its other answers.
    """
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    async for entry in entries(watcher, beat):
        if entry is None:
            yield ": still here\n\n"
            continue
        batch = [entry]
        while len(batch) < MAX_BATCH and (more := watcher.get(0)) is not None:
            batch.append(more)
        yield "".join(sse(one, outputs) for one in newest(batch))
        if not watcher.ended:
            await asyncio.sleep(pace)


def newest(batch: Sequence[Entry]) -> list[Entry]:
    """The entries in order, without those of the moment that a later one of their kind replaces."""
    seen: set[type[Event]] = set()
    kept: list[Entry] = []
    for entry in reversed(batch):
        kind = type(entry.event)
        if kind in (Step, Preview, Memory):
            if kind in seen:
                continue
            seen.add(kind)
        kept.append(entry)
    return kept[::-1]
