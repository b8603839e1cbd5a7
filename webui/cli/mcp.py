"""`app.py mcp`: the tools of `webui.mcp_server` for a running server, over standard input and output."""

from __future__ import annotations

from webui.cli.remote import HERE, Auth, Token, Url, client_of


def mcp(url: Url = HERE, token: Token = "", auth: Auth = "") -> None:
    """Let programs that speak MCP make pictures and search the history of a running server."""
    from webui.mcp_server import serve

    serve(client_of(url, token, auth))
