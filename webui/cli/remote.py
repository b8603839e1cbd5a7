"""The flags of commands that talk to a running server, and the client that they give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from webui.errors import InvalidParams

if TYPE_CHECKING:
    from webui.client import Client

HERE = "http://127.0.0.1:7860"
Url = Annotated[str, typer.Option("--url", help="The running server.", metavar="URL")]
Token = Annotated[str, typer.Option("--token", help="Its access token.", envvar="LATENT_WEBUI_TOKEN", metavar="TOKEN")]
Auth = Annotated[
    str, typer.Option("--auth", help="User and password.", envvar="LATENT_WEBUI_AUTH", metavar="USER:PASSWORD")
]


def client_of(url: str, token: str, auth: str) -> Client:
    """The client for that server. Raises `InvalidParams`."""
    from webui.client import Client

    return Client(url, token=token, **credentials(auth))


def credentials(text: str) -> dict[str, Any]:
    """`user:password` as the client takes it. Raises `InvalidParams`."""
    if not text:
        return {}
    user, colon, password = text.partition(":")
    if not colon or not user:
        raise InvalidParams("--auth is not of the form user:password.", "Write it like anna:secret.")
    return {"user": user, "password": password}
