"""The commands: serve (when none is named), generate, upscale, history, models, extension, caches, mcp, users, doctor,
bench, test.

Reading a command line costs what that one command needs: its module is imported when it is asked for, and torch by
none of them before the work begins.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from webui import __version__
from webui.errors import WebUIError, printable

COMMANDS = (
    *("serve", "generate", "upscale", "history", "models", "extension"),
    *("caches", "mcp", "users", "doctor", "bench", "test"),
)
_TOP_LEVEL = ("--help", "--version")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code is 0, 1 for an error that was told, 2 for a wrong flag, 130 for Ctrl+C."""
    _say_what_can_be_said()
    given = list(sys.argv[1:] if arguments is None else arguments)
    rest, folder = without_data_dir(given)
    brought = bool(rest) and rest[0] not in COMMANDS and not rest[0].startswith("-")  # by an extension, if any
    arguments = familiar(rest if brought else given)
    try:
        command_line(arguments[0], folder)(arguments, prog_name="app.py")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except WebUIError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(_sentence(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _say_what_can_be_said() -> None:
    """A path with letters that the terminal does not have must not end a command whose picture is made already."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _sentence(error: OSError) -> str:
    """What the disk, or the network, refused."""
    where = f"{error.filename}: " if error.filename is not None else ""
    return printable(f"{where}{error.strerror or error}.")


def familiar(arguments: list[str]) -> list[str]:
    """The line as the commands read it: flags alone are `serve`'s, `all` may follow `--use-cpu` as it used to, and
    `--api`, which switches the API on elsewhere, asks for what is always there."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in _TOP_LEVEL):
        arguments = ["serve", *arguments]
    spoken = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        if not (before == "--use-cpu" and word == "all"):
            spoken.append(word)
    return [word for word in spoken if word != "--api"] if spoken[0] == "serve" else spoken


def without_data_dir(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """A line for an extension's commands, which know no such flag, and the folder that `--data-dir` names in it."""
    rest: list[str] = []
    folder: str | None = None
    words = iter(arguments)
    for word in words:
        if word == "--data-dir":
            folder = next(words, folder)
        elif word.startswith("--data-dir="):
            folder = word.partition("=")[2]
        else:
            rest.append(word)
    return rest, Path(folder) if folder else None


def command_line(wanted: str, data_dir: Path | None = None) -> typer.Typer:
    """The application with the wanted command, or with all of them when it is not the name of one.

    A word that is no command may be the name of an extension that brings some, in `data_dir` or the usual folder.
    """
    app = typer.Typer(
        help="Latent WebUI: pictures from words, on this machine. Without a command the page is served: see "
        "`app.py serve --help` for its flags.",
        add_completion=False,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
    )
    app.callback()(_every_command)
    every = wanted not in COMMANDS
    if every or wanted == "serve":
        from webui.cli.serve import serve

        app.command()(serve)
    if every or wanted == "generate":
        from webui.cli.generate import generate

        app.command()(generate)
    if every or wanted == "upscale":
        from webui.cli.upscale import upscale

        app.command()(upscale)
    if every or wanted == "history":
        from webui.cli.history import history

        app.add_typer(history)
    if every or wanted == "models":
        from webui.cli.model_tools import models

        app.add_typer(models)
    if every or wanted == "mcp":
        from webui.cli.mcp import mcp

        app.command()(mcp)
    if every or wanted == "caches":
        from webui.cli.caches import caches

        app.add_typer(caches)
    if every or wanted == "users":
        from webui.cli.users import users

        app.add_typer(users)
    if every or wanted == "extension":
        from webui.cli.extension import extension

        app.add_typer(extension)
    if every and not wanted.startswith("-"):
        from webui.cli.extension import commands_of
        from webui.paths import Paths

        brought = commands_of(wanted, Paths.under(data_dir) if data_dir is not None else None)
        if brought is not None:
            app.add_typer(brought)
    if every or wanted == "doctor":
        from webui.cli.doctor import doctor

        app.command()(doctor)
    if every or wanted == "bench":
        from webui.cli.bench import bench

        app.command()(bench)
    if every or wanted == "test":
        from webui.cli.check import test

        app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(test)
    return app


def _version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


def _every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Options that stand before a command."""
