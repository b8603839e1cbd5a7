"""Many pictures, one job each, in this process: how far it is, and where to go on after it was stopped.

Each job has an id that follows from its request, and the history keeps it with the pictures. So the same command again
makes only what is missing, half drawn, or was not saved, whatever ended it the last time; nothing else remembers where
it was.
"""

from __future__ import annotations

import glob
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from webui import events
from webui.cli.interrupting import interrupting
from webui.engine.control import Control
from webui.errors import NotFound, WebUIError
from webui.extensions import Host
from webui.params import GenerationParams
from webui.paths import Paths
from webui.settings import Settings

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif"})
MAX_FILES = 100_000


@dataclass(frozen=True)
class Item:
    """A picture's file and how its request is made; making it may raise for a file that is no picture."""

    file: Path
    request: Callable[[], GenerationParams]


def pictures_in(places: Sequence[Path]) -> list[Path]:
    """The named files, and the pictures of the named folders by their names. Raises `NotFound`.

    A name with "*" or "?" that is no file is a pattern: on Windows no shell has made files of it.
    """
    found: list[Path] = []
    for place in itertools.chain.from_iterable(map(_matching, places)):
        if place.is_dir():
            found += sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        elif place.is_file():
            found.append(place)
        else:
            raise NotFound(f"There is no file or folder {place}.", "Check its name.")
    if not found:
        raise NotFound("There is no picture to work on.", "Name PNG, JPEG, WEBP or AVIF files, or a folder of them.")
    return list(dict.fromkeys(found))[:MAX_FILES]


def _matching(place: Path) -> list[Path]:
    """The files that a pattern fits, by name; else the place itself."""
    fits = [] if place.exists() else [Path(name) for name in sorted(glob.glob(str(place)))]  # noqa: PTH207 - Path's takes no absolute one
    return [path for path in fits if path.is_dir() or path.suffix.lower() in SUFFIXES] or [place]


def job_of(params: GenerationParams) -> str:
    """The id of a request's job: the same for the same request."""
    return f"batch-{params.fingerprint()[:24]}"


def run_all(
    items: Iterable[Item],
    count: int,
    settings: Settings,
    paths: Paths,
    problems: Iterable[str],
    extensions: Host | None = None,
    *,
    again: bool = False,
) -> tuple[list[str], int]:
    """Do what is not done yet, telling everything on standard error; the saved paths and the exit code.

    A file that cannot be worked on is told and left out. Ctrl+C ends after the picture in the making.
    """
    from webui.catalog import Catalog
    from webui.console import Console
    from webui.engine import Engine
    from webui.history import History, Recorder

    control = Control()
    saved: list[str] = []
    code = skipped = done = 0
    with (
        Console(paths.log_dir, stderr=True).running() as console,
        interrupting(control, console.warn),
        closing(Recorder(paths)) as recorder,
    ):
        for problem in problems:
            console.warn(problem)
        history = History(paths)
        catalog = Catalog(paths)
        engine = Engine(settings, paths, catalog, recorder.saving, extensions)
        for number, item in enumerate(items, start=1):
            if control.interrupted:
                break
            try:
                params = item.request()
                job = job_of(params)
                if not again and history.finished_of(job) >= params.pictures:
                    skipped += 1
                    continue
                console.say(f"{number} of {count}: {item.file.name}")
                resolved = catalog.resolve(params, settings)
            except WebUIError as error:
                console.warn(f"{item.file.name}: {error}")
                code = 1
                continue
            told = _followed(recorder.following(engine.generate(resolved, control), job=job), console.show)
            saved += told.saved
            code, done = code or int(told.failed), done + int(told.whole)
        if skipped:
            console.say(f"{skipped} of {count} were made before and left out; --again makes them once more.")
        if control.interrupted and skipped + done < count:
            console.say(f"{count - skipped - done} are left. The same command goes on there.")
            code = code or 130
    return saved, code


@dataclass
class _Told:
    """What the events of one job said."""

    saved: list[str]
    failed: bool = False
    stopped: bool = False  # by Ctrl+C: what was saved may be half drawn

    @property
    def whole(self) -> bool:
        return bool(self.saved) and not self.failed and not self.stopped


def _followed(stream: Iterator[events.Event], show: Callable[[events.Event], None]) -> _Told:
    told = _Told([])
    for event in stream:
        show(event)
        if isinstance(event, events.Image):
            told.saved += [event.path] if event.path else []
            told.failed |= bool(event.error)
        elif isinstance(event, events.Finished):
            told.stopped = event.interrupted
        told.failed |= isinstance(event, events.Failed)
    return told
