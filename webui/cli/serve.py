"""`app.py` or `app.py serve`: the page, the API and the engine behind them."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from webui.cli.flags import Folders, Machine, expanded, load_settings
from webui.errors import SettingsError
from webui.settings import Theme

_PAGE = "Page"


def _option(
    flag: str,
    help_text: str,
    *,
    low: int | None = None,
    high: int | None = None,
    metavar: str | None = None,
    envvar: str | None = None,
) -> Any:
    return typer.Option(flag, help=help_text, rich_help_panel=_PAGE, min=low, max=high, metavar=metavar, envvar=envvar)


@expanded()
def serve(
    folders: Folders,
    machine: Machine,
    listen: Annotated[bool, _option("--listen", "Let other machines of the network in, with a token.")] = False,
    port: Annotated[
        int | None, _option("--port", "The port (7860); 0 takes a free one.", metavar="N", low=0, high=65535)
    ] = None,
    api: Annotated[bool, _option("--api", "Also serve the interactive description of the API at /docs.")] = False,
    theme: Annotated[Theme | None, _option("--theme", "Colours of the page.")] = None,
    no_browser: Annotated[bool, _option("--no-browser", "Do not open a browser.")] = False,
    share: Annotated[bool, _option("--share", "Not available; says why.")] = False,
    allow_host: Annotated[
        list[str] | None,
        _option("--allow-host", "Another host name under which this server is addressed.", metavar="NAME"),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        _option("--cors-origin", "A web origin that may call the API from a browser.", metavar="ORIGIN"),
    ] = None,
    access_token: Annotated[
        str, _option("--access-token", "The token that other machines show.", envvar="LATENT_WEBUI_TOKEN")
    ] = "",
) -> None:
    """Serve the page (the default command)."""
    if share:
        raise SettingsError(
            "--share is not available: a public address would lead through somebody else's server, to a page without"
            " accounts.",
            "Use --listen in your own network, or a tunnel of your own, such as: ssh -L 7860:127.0.0.1:7860 HOST",
        )
    from webui.cli.combinations import bad_combinations, installed_versions
    from webui.console import Console
    from webui.server import ServeOptions
    from webui.server import serve as run_server

    paths = folders.paths()
    settings, problems = load_settings(paths, machine.overrides())
    console = Console(paths.log_dir)
    for problem in (*problems, *bad_combinations(installed_versions(), os.environ)):
        console.warn(problem)
    options = ServeOptions(
        host="0.0.0.0" if listen else "127.0.0.1",
        port=settings.server.port if port is None else port,
        api=api,
        open_browser=settings.server.open_browser and not no_browser and has_display(),
        theme=theme.value if theme else "",
        cors_origins=tuple(cors_origin or ()),
        allowed_hosts=tuple(allow_host or ()),
        access_token=access_token,
    )
    code = run_server(
        settings,
        paths,
        options,
        say=console.say,
        on_event=console.handle,
        on_ready=lambda stages: console.started(stages, ()),
    )
    raise typer.Exit(code)


def has_display() -> bool:
    """Whether a browser could open a window here, for somebody who sits in front of it."""
    if os.environ.get("SSH_CONNECTION") or os.environ.get("CI"):
        return False
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
