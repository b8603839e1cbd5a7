"""`app.py history`: the pictures that were made, found again, made again, thrown away, taken in and out.

The work is done by `webui.history.commands`; here are the words of the command line for it. Standard output holds what
a script may want to read; progress is on standard error.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from webui import events
from webui.cli.flags import Folders, Machine, expanded, load_settings, plain_type
from webui.console import clean
from webui.errors import InvalidParams
from webui.extensions.start import start
from webui.history import Recorder, commands
from webui.history.importer import ImportProgress
from webui.params import GenerationParams

history = typer.Typer(
    name="history",
    help="Find the pictures that were made, make them again, delete them, take others in.",
    no_args_is_help=True,
)

PictureId = Annotated[int, typer.Argument(min=1, metavar="ID", help="The picture's number (see `history list`).")]
PictureIds = Annotated[list[int], typer.Argument(min=1, metavar="ID...", help="Numbers of pictures.")]
ToImport = Annotated[Path, typer.Argument(file_okay=False, metavar="FOLDER", help="Its pictures stay where they are.")]


def say(line: str) -> None:
    """A line on standard output. Prompts and notes come from files of others: no control codes."""
    print(clean(line))


@history.command("list")
@expanded()
def list_pictures(
    folders: Folders,
    search: Annotated[str, typer.Argument(help='Such as "castle model:photon fav:"; see docs/history.md.')] = "",
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="At most so many.")] = commands.DEFAULT_LIMIT,
    trash: Annotated[bool, typer.Option("--trash", help="Those in the trash.")] = False,
) -> None:
    """List pictures, the newest first, one line each."""
    commands.list_pictures(folders.paths(), search, limit=limit, trashed=trash, say=say)


@history.command()
@expanded()
def show(picture: PictureId, folders: Folders) -> None:
    """Show all that is known of a picture."""
    commands.show(folders.paths(), picture, say=say)


@history.command()
@expanded()
def replay(
    picture: PictureId,
    folders: Folders,
    machine: Machine,
    changed: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME=VALUE", help="Change a parameter: seed=5. May be given several times."),
    ] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Even if a model file is not here any more.")] = False,
) -> None:
    """Make a picture again, here and now, and say how far the two are apart."""
    from webui.catalog import Catalog
    from webui.cli.interrupting import interrupting
    from webui.console import Console
    from webui.engine import Engine
    from webui.engine.control import Control

    paths = folders.paths()
    settings, problems = load_settings(paths, machine.overrides())
    _, extensions = start(paths, settings, "engine")
    changes = dict(map(change, changed or ()))
    paths.make_folders()
    control = Control()
    with (
        Console(paths.log_dir, stderr=True).running() as console,
        interrupting(control, console.warn),
        contextlib.closing(Recorder(paths)) as recorder,
        contextlib.closing(Catalog(paths)) as catalog,
    ):
        for problem in problems:
            console.warn(problem)
        engine = Engine(settings, paths, catalog, recorder.saving, extensions)

        def generate(params: GenerationParams) -> Iterator[events.Event]:
            for event in engine.generate(catalog.resolve(params, settings), control):
                if not isinstance(event, events.Warning | events.Failed):  # `commands.replay` tells of these itself
                    console.show(event)
                yield event

        commands.replay(paths, picture, catalog, generate, recorder, changes=changes, anyway=anyway, say=say)


@history.command()
@expanded()
def delete(pictures: PictureIds, folders: Folders) -> None:
    """Move pictures to the trash."""
    commands.delete(folders.paths(), pictures, say=say)


@history.command()
@expanded()
def restore(pictures: PictureIds, folders: Folders) -> None:
    """Take pictures out of the trash, back to where they were."""
    commands.restore(folders.paths(), pictures, say=say)


@history.command()
@expanded()
def empty_trash(folders: Folders) -> None:
    """Delete everything in the trash for good."""
    commands.empty_trash(folders.paths(), say=say)


@history.command("import")
@expanded()
def import_folder(
    folder: ToImport,
    folders: Folders,
    everything: Annotated[
        bool, typer.Option("--everything", help="Also pictures that do not say how they were made.")
    ] = False,
) -> None:
    """Take in the pictures of another program's folder; interrupted, it goes on where it stopped."""
    with progress_bar() as progress:
        commands.import_folder(folders.paths(), folder, everything=everything, progress=progress, say=say)


@history.command()
@expanded()
def export(
    target: Annotated[Path, typer.Argument(dir_okay=False, metavar="FILE", help="The file to write.")],
    folders: Folders,
    search: Annotated[str, typer.Argument(help="Only what is found by this; everything if not given.")] = "",
) -> None:
    """Write records as JSON lines."""
    commands.export(folders.paths(), target, search, say=say)


@history.command()
@expanded()
def import_lines(
    source: Annotated[Path, typer.Argument(dir_okay=False, metavar="FILE", help="What `history export` wrote.")],
    folders: Folders,
) -> None:
    """Take in records from JSON lines."""
    commands.import_lines(folders.paths(), source, say=say)


def change(text: str) -> tuple[str, Any]:
    """("seed", 5) of "seed=5": text for a field that is text, else as JSON has it. Raises `InvalidParams`."""
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    field = GenerationParams.model_fields.get(name)
    if not equals or field is None:
        raise InvalidParams(f"--with {text} names no parameter.", "Write it like this: --with seed=5")
    if field.annotation is not None and plain_type(field.annotation) is str and name != "sigmas":
        return name, value
    try:
        return name, json.loads(f"[{value}]" if name == "sigmas" else value)
    except ValueError:
        return name, value  # the name of a choice; what is none is refused with the other params


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[ImportProgress], None]]:
    """A bar on standard error, where that is a terminal, for the length of an import."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    terminal = Terminal(stderr=True)
    with Progress(*columns, console=terminal, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None)

        def show_progress(now: ImportProgress) -> None:
            bar.update(task, completed=now.done, total=now.total, description=clean(now.file))

        yield show_progress
