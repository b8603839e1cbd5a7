"""The history on the command line: list, show, replay, delete, restore, import a folder, export, import lines.

Plain functions; `webui.cli` makes commands of them. Each takes where to say things (`say`, a line at a time); what a
script wants to read goes to `say`, progress to a callback of its own. Whoever sits at the command line is an
administrator. Errors are `webui.errors` classes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from webui import events
from webui.errors import InvalidParams, NotFound, SaveError, error_from_dict
from webui.history.comparison import Difference
from webui.history.importer import Imported, ImportProgress
from webui.history.jsonlines import ImportedLines
from webui.history.recorder import Recorder
from webui.history.records import Record
from webui.history.replay import Models, ReplayPlan
from webui.history.search import MAX_PAGE
from webui.history.store import History
from webui.params import GenerationParams
from webui.paths import Paths, write_atomic

Say = Callable[[str], None]
Generate = Callable[[GenerationParams], Iterator[events.Event]]
ADMIN = None  # the user of every call here
DEFAULT_LIMIT = 50


@contextlib.contextmanager
def opened(paths: Paths) -> Iterator[History]:
    """The history for the length of a command."""
    history = History(paths)
    try:
        yield history
    finally:
        history.wait()  # a damaged file is being made again
        history.stop()


def list_pictures(
    paths: Paths, search: str = "", *, limit: int = DEFAULT_LIMIT, trashed: bool = False, say: Say = print
) -> int:
    """One line a picture, the newest first: id, time, size, seed, state, beginning of the prompt. Gives how many."""
    with opened(paths) as history:
        count, after = 0, ""
        while count < limit:
            found = history.page(ADMIN, search, after=after, limit=min(MAX_PAGE, limit - count), trashed=trashed)
            for problem in found.problems if not after else ():
                say(f"# {problem}")
            for card in found.cards:
                moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(card.created))
                marks = ("*" if card.favourite else " ") + {"missing": "?", "unsaved": "!"}.get(card.state.value, " ")
                prompt = " ".join(card.prompt.split())[:80]
                size, seed = f"{card.width}x{card.height}", "-" if card.seed is None else card.seed
                say(f"{card.id:>7} {marks} {moment} {size:>9} {seed:>12} {prompt}")
            count += len(found.cards)
            after = found.older
            if not after:
                break
        return count


def show(paths: Paths, picture_id: int, *, say: Say = print) -> None:
    """All that is known of a picture. Raises `NotFound`."""
    with opened(paths) as history:
        picture = history.get(ADMIN, picture_id)
        for line in describe(picture.id, picture.record, picture.children):
            say(line)


def describe(picture_id: int, record: Record, children: int) -> list[str]:
    """A record as lines of text."""
    facts: list[tuple[str, Any]] = [
        ("id", picture_id),
        ("file", f"{record.folder or 'outputs'}/{record.path}" if record.path else f"none ({record.error})"),
        ("state", record.state.value),
        ("made", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))),
        ("user", record.user),
        ("by", record.source),
        ("checkpoint", _model(record, "checkpoint")),
        ("VAE", _model(record, "vae")),
        *((network.kind, network.name) for network in record.networks),
        *record.environment.items(),
        ("seconds", record.seconds.get("total")),
        ("peak memory", f"{record.peak_memory / 2**20:.0f} MB" if record.peak_memory else None),
        ("pixels", record.pixels_sha256),
        ("favourite", "yes" if record.favourite else None),
        ("tags", ", ".join(record.tags)),
        ("notes", record.notes),
        ("parent", f"{record.parent} ({record.relation})" if record.parent else None),
        ("children", children or None),
    ]
    width = max(len(name) for name, _ in facts)
    lines = [f"{name:<{width}}  {value}" for name, value in facts if value not in (None, "")]
    return [*lines, "", *record.infotext.splitlines()]


def replay(
    paths: Paths,
    picture_id: int,
    models: Models,
    generate: Generate,
    recorder: Recorder,
    *,
    changes: dict[str, Any] | None = None,
    anyway: bool = False,
    say: Say = print,
) -> Difference | None:
    """Make a picture again in this process, or with some params changed, and say how far the two are apart.

    `generate` is the engine's, whose save hook is `recorder.saving`. Gives the difference, None for a changed one.
    Raises `NotFound`, `InvalidParams`, `ModelNotFound` for a missing file (unless `anyway`), and what the job failed
    with.
    """
    with opened(paths) as history:
        plan = history.plan_replay(ADMIN, picture_id, models, changes)
        params = _told(plan, say).params if anyway else _told(plan, say).require_complete()
        job = f"replay-{picture_id}-{time.time_ns()}"
        user = history.get(ADMIN, picture_id).record.user
        history.link(ADMIN, job, picture_id, plan.relation, plan.changes)
        for event in recorder.following(generate(params), job=job, user=user):
            if isinstance(event, events.Warning):
                say(event.text)
            elif isinstance(event, events.Failed):
                raise error_from_dict(event.error)
        children = history.of_job(ADMIN, job)
        if not children:
            raise SaveError("The picture was made, but it is not in the history.", "See the messages above.")
        path = history.file(ADMIN, children[0].id)
        result = None
        if plan.relation == "replay":
            result = history.difference(ADMIN, picture_id, children[0].id)
            for line in verdict(history, result, picture_id, children[0].id):
                say(line)
        say(str(path))
        return result


def verdict(history: History, found: Difference, parent: int, child: int) -> list[str]:
    """How far a replay came, in words, with what was different in the making."""
    if found.verdict == "identical":
        return ["identical"]
    lines = [found.verdict, *found.notes]
    if found.max_difference is not None and found.mean_difference is not None:
        lines = [
            f"{found.verdict}: at most {found.max_difference} of 255, on average {found.mean_difference:.3f}",
            *found.notes,
        ]
    for row in history.compare(ADMIN, [parent, child]):
        before, after = (value if value is not None else "not known" for value in row.values)
        lines.append(f"  {row.name}: {before} -> {after}")
    return lines


def delete(paths: Paths, picture_ids: Sequence[int], *, say: Say = print) -> list[int]:
    """Into the trash. Raises `NotFound` when none of them exists."""
    with opened(paths) as history:
        gone = history.delete(ADMIN, picture_ids)
        if not gone:
            raise NotFound("None of these pictures exists, or they are in the trash already.")
        say(f"{_count(len(gone))} moved to the trash. Undo: history restore {' '.join(map(str, gone))}")
        return gone


def restore(paths: Paths, picture_ids: Sequence[int], *, say: Say = print) -> list[int]:
    """Out of the trash. Raises `NotFound` when none of them is there."""
    with opened(paths) as history:
        back = history.restore(ADMIN, picture_ids)
        if not back:
            raise NotFound("None of these pictures is in the trash.")
        say(f"{_count(len(back))} restored.")
        return back


def empty_trash(paths: Paths, *, say: Say = print) -> int:
    """Delete everything in the trash for good."""
    with opened(paths) as history:
        count = history.empty_trash(ADMIN)
        say(f"{_count(count)} deleted for good.")
        return count


def import_folder(
    paths: Paths,
    folder: Path,
    *,
    user: str = "",
    everything: bool = False,
    progress: Callable[[ImportProgress], None] = lambda _: None,
    say: Say = print,
) -> Imported:
    """Take in the pictures of another program's folder where they are; started again it goes on where it stopped."""
    with opened(paths) as history:
        result = history.import_folder(folder, user=user, everything=everything, progress=progress)
        say(f"{_count(result.found)} found: {result.added} added, {result.known} known already.")
        if result.plain:
            say(f"{_count(result.plain)} without metadata left out (--everything takes them in).")
        for problem in result.unreadable:
            say(f"  {problem}")
        if result.refused > len(result.unreadable):
            say(f"  and {result.refused - len(result.unreadable)} more that could not be read")
        return result


def export(paths: Paths, target: Path, search: str = "", *, say: Say = print) -> int:
    """Write JSON lines to a file, in one step. Raises `SaveError` when it cannot be written."""
    with opened(paths) as history:
        lines = list(history.export(ADMIN, search, folders=True))
        try:
            write_atomic(target, "".join(lines).encode())
        except OSError as error:
            raise SaveError(
                f"{target} could not be written: {error.strerror or error}.", "Choose another file."
            ) from error
        say(f"{_count(len(lines))} written to {target}.")
        return len(lines)


def import_lines(paths: Paths, source: Path, *, say: Say = print) -> ImportedLines:
    """Take in JSON lines from a file. Raises `InvalidParams` when it cannot be read."""
    try:
        with opened(paths) as history, source.open(encoding="utf-8", errors="replace") as lines:
            result = history.import_lines(ADMIN, lines, folders=True)
    except OSError as error:
        raise InvalidParams(f"{source} cannot be read: {error.strerror or error}.", "Check its name.") from error
    say(f"{_count(result.added)} added, {result.known} known already.")
    for problem in result.problems:
        say(f"  {problem}")
    if result.refused > len(result.problems):
        say(f"  and {result.refused - len(result.problems)} more lines that are no records")
    return result


def _told(plan: ReplayPlan, say: Say) -> ReplayPlan:
    for note in plan.notes:
        say(note)
    return plan


def _model(record: Record, kind: str) -> str:
    model = record.checkpoint if kind == "checkpoint" else record.vae
    if model is None:
        return ""
    return f"{model.name} [{model.sha256[:10]}]" if model.sha256 else model.name


def _count(number: int) -> str:
    return f"{number:,} picture{'' if number == 1 else 's'}"
