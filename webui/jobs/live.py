"""What a job looks like to whoever watches it: events folded into one view, and the view as plain data."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from webui.errors import WebUIError
from webui.events import (
    Event,
    Extensions,
    Failed,
    Finished,
    Image,
    Loaded,
    Loading,
    Memory,
    Preview,
    Started,
    Step,
    Warning,
    kind_of,
    to_json_dict,
)
from webui.jobs.queue import JobRecord
from webui.jobs.states import JobState

MAX_WARNINGS = 100  # of one job; a warning that repeats counts once


@dataclass(frozen=True, slots=True)
class Live:
    """How far a job is. Everything but the pictures is kept with its record when it ends (`to_result`)."""

    rev: int = 0
    phase: str = "waiting"  # waiting, loading, sampling, saving, or "" when over
    line: str = ""  # what is happening, in words
    step: int = 0
    steps: int = 0
    batch: int = 0
    batches: int = 0
    rate: float = 0.0  # steps per second
    seconds_left: float = 0.0
    progress: float = 0.0  # 0..1
    preview: int = 0  # counts previews; 0 = none yet
    peak_memory: int = 0  # bytes
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    warnings: tuple[dict[str, str], ...] = ()
    error: dict[str, str] | None = None
    images: tuple[dict[str, Any], ...] = ()


def fold(live: Live, event: Event, rev: int, outputs: Path) -> Live:
    """The view after `event`. What changes nothing that is shown gives the same object back."""
    changed = _fold(live, event, outputs)
    return live if changed is live else replace(changed, rev=rev)


def _fold(live: Live, event: Event, outputs: Path) -> Live:
    if isinstance(event, Loading):
        return replace(live, phase="loading", line=loading_line(event))
    if isinstance(event, Loaded):
        return replace(live, phase="loading", line="")
    if isinstance(event, Started):
        return replace(live, phase="sampling", line="", steps=event.steps, batch=1)
    if isinstance(event, Step):
        done = (event.batch - 1 + event.step / max(1, event.steps)) / max(1, event.batches)
        return replace(
            live,
            phase="sampling" if event.step < event.steps else "saving",
            line="",
            step=event.step,
            steps=event.steps,
            batch=event.batch,
            batches=event.batches,
            rate=_finite(event.rate),
            seconds_left=_finite(event.seconds_left),
            progress=min(1.0, max(0.0, done)),
        )
    if isinstance(event, Memory):
        return live if event.peak <= live.peak_memory else replace(live, peak_memory=event.peak)
    if isinstance(event, Extensions):
        return live
    if isinstance(event, Preview):
        return replace(live, preview=live.preview + 1)
    if isinstance(event, Image):
        return replace(live, images=(*live.images, image_dict(event, outputs)))
    if isinstance(event, Warning):
        warning = {"code": event.code, "text": event.text}
        if warning in live.warnings or len(live.warnings) >= MAX_WARNINGS:
            return live
        return replace(live, warnings=(*live.warnings, warning))
    if isinstance(event, Finished):
        return replace(
            live,
            phase="",
            line="",
            seconds={name: _finite(value) for name, value in event.seconds.items()},
            peak_memory=max(live.peak_memory, event.peak_memory),
            seconds_left=0.0,
            progress=live.progress if event.interrupted else 1.0,
        )
    return replace(live, phase="", line="", seconds_left=0.0, error=dict(event.error))  # Failed


def loading_line(event: Loading) -> str:
    """Not the console's line: that one holds a path, and the page may be seen by others."""
    word = {"vae": "VAE ", "lora": "LoRA ", "upscaler": "upscaler ", "face restorer": "face restorer "}.get(
        event.what, ""
    )
    return f"Loading {word}{event.name}".strip()


def event_dict(event: Event, outputs: Path) -> dict[str, Any]:
    """An event as a watcher over the network gets it: its kind, its facts, no pixels and no path of this machine."""
    if isinstance(event, Image):
        return {"kind": kind_of(event), **image_dict(event, outputs)}
    data = to_json_dict(event)
    if isinstance(event, Loading):
        data["line"] = loading_line(event)
    elif isinstance(event, Loaded):
        del data["source"]
    if isinstance(event, Finished):
        data["seconds"] = {name: _finite(value) for name, value in event.seconds.items()}
    return {key: _finite(value) if isinstance(value, float) else value for key, value in data.items()}


def image_dict(event: Image, outputs: Path) -> dict[str, Any]:
    """A picture as plain data. `path` is relative to the outputs folder, with slashes; "" when it was not saved."""
    return {
        "index": event.index,
        "path": _relative(event.path, outputs),
        "seed": event.seed,
        "width": event.width,
        "height": event.height,
        "infotext": event.infotext,
        "error": event.error,
    }


def _relative(path: str, outputs: Path) -> str:
    if not path:
        return ""
    try:
        return Path(path).relative_to(outputs).as_posix()
    except ValueError:  # reached through a link, say
        try:
            return Path(path).resolve().relative_to(outputs.resolve()).as_posix()
        except (ValueError, OSError):
            return ""


def to_result(live: Live) -> dict[str, Any]:
    """What the record keeps of a job that is over. The pictures are kept one by one (`JobQueue.add_image`)."""
    names = ("step", "steps", "batch", "batches", "progress", "peak_memory", "seconds", "warnings", "error", "rate")
    return {name: getattr(live, name) for name in names}


def failed_result(error: WebUIError, live: Live | None = None) -> dict[str, Any]:
    """The result of a job that ended with `error`."""
    return to_result(replace(live or Live(), error=error.to_dict()))


def from_record(record: JobRecord) -> Live:
    """The view of a job that is not running now; `images` are those of the record."""
    result = dict(record.result)
    result["warnings"] = tuple(result.get("warnings", ()))
    phase = "" if record.state.over else "waiting"
    return Live(rev=record.rev, phase=phase, images=record.images, **result)


def as_dict(record: JobRecord, live: Live, position: int | None, pictures: int | None = None) -> dict[str, Any]:
    """The view as the page and the API get it, with the first `pictures` of its `image_count` pictures, or all.

    Of a folder's pictures it says only how many there are.
    """
    params = json.loads(record.params_json)
    if sources := len(params.get("sources", ())):
        params["sources"] = []
    return {
        "id": record.id,
        "rev": live.rev,
        "user": record.user,
        "state": record.state.value,
        "position": position if record.state is JobState.pending else None,
        "params": params,
        "sources": sources,
        "created": record.created,
        "started": record.started,
        "finished": record.finished,
        "phase": live.phase,
        "line": live.line,
        "step": live.step,
        "steps": live.steps,
        "batch": live.batch,
        "batches": live.batches,
        "rate": live.rate,
        "seconds_left": live.seconds_left,
        "progress": live.progress,
        "preview": live.preview,
        "images": [dict(image) for image in live.images[:pictures]],
        "image_count": max(record.image_count, len(live.images)),  # while it runs, the record has none
        "warnings": [dict(warning) for warning in live.warnings],
        "seconds": _stages(record, live),
        "peak_memory": live.peak_memory,
        "error": dict(live.error) if live.error else None,
    }


def _stages(record: JobRecord, live: Live) -> dict[str, float]:
    """Seconds by stage: how long the job waited comes first, and is not in the total of what was done."""
    if not live.seconds or record.started is None:
        return dict(live.seconds)
    return {"queue": max(0.0, record.started - record.created), **live.seconds}


def end_of(record: JobRecord, live: Live) -> list[Event]:
    """The events that tell again how a job ended, for a watcher that comes when the bus has forgotten them."""
    events: list[Event] = [Warning(**warning) for warning in live.warnings]
    for image in live.images:
        events.append(Image(**{**image, "pixels_sha256": ""}))
    if live.error:
        events.append(Failed(dict(live.error)))
    else:
        interrupted = record.state is not JobState.done
        events.append(Finished(len(live.images), dict(live.seconds), live.peak_memory, interrupted))
    return events


def _finite(value: float) -> float:
    """JSON has no infinity."""
    return value if math.isfinite(value) else 0.0
