"""`app.py caches`: what a running server keeps in memory from job to job, seen and cleared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from webui.caches import CACHES
from webui.console import clean

if TYPE_CHECKING:
    from webui.client import Client

caches = typer.Typer(
    name="caches", help="See and clear what a running server keeps in memory from job to job.", no_args_is_help=True
)

Url = Annotated[str, typer.Option("--url", help="The running server.", metavar="URL")]
Token = Annotated[str, typer.Option("--token", help="Its access token.", envvar="LATENT_WEBUI_TOKEN", metavar="TOKEN")]
Auth = Annotated[
    str, typer.Option("--auth", help="User and password.", envvar="LATENT_WEBUI_AUTH", metavar="USER:PASSWORD")
]
HERE = "http://127.0.0.1:7860"


@caches.command("list")
def list_caches(url: Url = HERE, token: Token = "", auth: Auth = "") -> None:
    """List them, with entries, megabytes and bounds, one line each."""
    found = _client(url, token, auth).caches()
    if not found:
        print("No job has run yet: nothing is kept.")
    for cache in found:
        bounds = [f"{cache.most} at most"] if cache.most else []
        bounds += [f"{cache.limit / 1e6:,.0f} MB at most"] if cache.limit else []
        print(clean(f"{cache.name:<12} {cache.entries:>4} {cache.bytes / 1e6:>10,.1f} MB  {', '.join(bounds)}"))


@caches.command()
def clear(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(CACHES)}; all of them without one.")] = "",
    url: Url = HERE,
    token: Token = "",
    auth: Auth = "",
) -> None:
    """Empty one of them, or all, and give the memory back."""
    waits = _client(url, token, auth).clear_caches(name)
    print("A job runs: this is done when it is over." if waits else "Cleared.")


def _client(url: str, token: str, auth: str) -> Client:
    from webui.client import Client
    from webui.mcp_server import credentials

    return Client(url, token=token, **credentials(auth))
