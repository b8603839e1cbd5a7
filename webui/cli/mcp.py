"""`app.py mcp`: the tools of `webui.mcp_server` for a running server, over standard input and output."""

from __future__ import annotations

from typing import Annotated

import typer


def mcp(
    url: Annotated[str, typer.Option("--url", help="The running server.", metavar="URL")] = "http://127.0.0.1:7860",
    token: Annotated[
        str, typer.Option("--token", help="Its access token.", envvar="LATENT_WEBUI_TOKEN", metavar="TOKEN")
    ] = "",
    auth: Annotated[
        str, typer.Option("--auth", help="User and password.", envvar="LATENT_WEBUI_AUTH", metavar="USER:PASSWORD")
    ] = "",
) -> None:
    """Let programs that speak MCP make pictures and search the history of a running server."""
    from webui.client import Client
    from webui.mcp_server import credentials, serve

    serve(Client(url, token=token, **credentials(auth)))
