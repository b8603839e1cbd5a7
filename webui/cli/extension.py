"""`app.py extension`: list, enable, disable, add. `app.py NAME ...`: the commands that an extension brings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from webui import settings as stored
from webui.cli.flags import Folders, expanded
from webui.errors import SettingsError
from webui.extensions.adding import add as add_extension
from webui.extensions.adding import candidate
from webui.extensions.front import FrontExtensions
from webui.extensions.start import start
from webui.extensions.uses import remembered
from webui.paths import REPO_ROOT, Paths
from webui.settings import SettingsStore

extension = typer.Typer(name="extension", help="List, switch and add extensions.", no_args_is_help=True)


def _front(folders: Folders) -> FrontExtensions:
    paths = folders.paths()
    settings, problems = stored.load(paths.config_file)
    for problem in problems:
        print(problem, file=sys.stderr)
    return FrontExtensions(paths, SettingsStore(settings, paths.config_file))


@extension.command("list")
@expanded()
def list_extensions(folders: Folders) -> None:
    """Every extension that is here, with version, hash, hooks, and what they took in the server that ran last."""
    uses = remembered(folders.paths())
    for one in _front(folders).listing():
        state = "off" if not one["enabled"] else "not used" if one["problem"] else "on"
        print(f"{one['name']:<24}{one['version']:<10}{state:<10}{one['hash']:<14}{', '.join(one['asks'])}")
        if one["problem"]:
            print(f"    {one['problem']}")
        for use in uses.get(one["name"], []):
            calls = "1 call" if use["calls"] == 1 else f"{use['calls']} calls"
            failures = f", {use['failures']} failed" if use["failures"] else ""
            print(f"    {use['hook']} ({use['side']}): {calls} in {use['seconds']:.3f} s{failures}")


@extension.command("enable")
@expanded()
def enable(name: Annotated[str, typer.Argument(help="The extension's name.")], folders: Folders) -> None:
    """Switch an extension on."""
    _front(folders).switch(name, True)
    print(f"{name} is on.")


@extension.command("disable")
@expanded()
def disable(name: Annotated[str, typer.Argument(help="The extension's name.")], folders: Folders) -> None:
    """Switch an extension off."""
    _front(folders).switch(name, False)
    print(f"{name} is off.")


@extension.command("add")
@expanded()
def add(
    source: Annotated[Path, typer.Argument(help="A folder with extension.toml in it, or a wheel.", exists=True)],
    folders: Folders,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts that have looked already.")] = False,
) -> None:
    """Copy an extension to where it is found, after showing what it will run."""
    target = folders.paths().extensions[0]
    with candidate(source) as found:
        manifest = found.manifest
        print(f"{manifest.title} {manifest.version}: {manifest.summary}".rstrip(": "))
        print(f"by {manifest.author or 'nobody named'}, licence {manifest.licence or 'not named'}")
        print(f"uses: {', '.join(manifest.asks) or 'no hooks'}")
        print(f"sha256 of its files: {found.digest}")
        print("It will run this code with all your rights:")
        for name in found.code:
            print(f"    {name}")
        if found.missing:
            raise SettingsError(" ".join(found.missing), "Install it yourself if you trust it; nothing is done here.")
        if not yes and not typer.confirm("Add it?"):
            raise typer.Exit(1)
        folder = add_extension(found, target)
    print(f"Added to {folder}. It is in use after the next start.")


def commands_of(name: str, paths: Paths | None = None) -> typer.Typer | None:
    """The commands of the extension of that name; None when there is none, or it has none."""
    paths = paths or Paths.under(REPO_ROOT)
    settings, _ = stored.load(paths.config_file)
    _, host = start(paths, settings, "front")
    brought = dict(host.ask("commands"))
    if name not in brought:
        return None
    app = typer.Typer(name=name, help=host.manifests[name].summary, no_args_is_help=True)
    app.callback()(_several)
    for command, function in brought[name].items():
        app.command(command)(function)
    return app


def _several() -> None:
    """So that a single command still has a name."""
