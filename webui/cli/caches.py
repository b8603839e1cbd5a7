"""`app.py caches`: what a running server keeps in memory from job to job, seen and cleared."""

from __future__ import annotations

from typing import Annotated

import typer

from webui.caches import CACHES
from webui.cli.remote import HERE, Auth, Token, Url, client_of
from webui.console import clean, size

caches = typer.Typer(
    name="caches", help="See and clear what a running server keeps in memory from job to job.", no_args_is_help=True
)


@caches.command("list")
def list_caches(url: Url = HERE, token: Token = "", auth: Auth = "") -> None:
    """List them, with entries, sizes and bounds, one line each."""
    found = client_of(url, token, auth).caches()
    if not found:
        print("No job has run yet: nothing is kept.")
    for cache in found:
        bounds = [f"{cache.most} at most"] if cache.most else []
        bounds += [f"{size(cache.limit)} at most"] if cache.limit else []
        print(clean(f"{cache.name:<12} {cache.entries:>4} {size(cache.bytes):>10}  {', '.join(bounds)}"))


@caches.command()
def clear(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(CACHES)}; all of them without one.")] = "",
    url: Url = HERE,
    token: Token = "",
    auth: Auth = "",
) -> None:
    """Empty one of them, or all, and give the memory back."""
    waits = client_of(url, token, auth).clear_caches(name)
    print("A job runs: this is done when it is over." if waits else "Cleared.")
