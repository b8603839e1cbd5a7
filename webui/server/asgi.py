"""The few words of ASGI that the switchboard and the guards need, without a framework.

They run before fastapi is imported, and around it afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def header(scope: Scope, name: str) -> str:
    """The first value of a request header, "" when it is absent."""
    wanted = name.lower().encode("latin-1")
    for key, value in scope.get("headers", ()):
        if key == wanted:
            return str(value.decode("latin-1"))
    return ""


def wants_page(scope: Scope) -> bool:
    """Whether a person navigates here, so that an HTML page is the fitting answer."""
    if scope.get("method") not in ("GET", "HEAD"):
        return False
    mode = header(scope, "sec-fetch-mode")
    return mode == "navigate" if mode else "text/html" in header(scope, "accept")


async def respond(
    scope: Scope,
    send: Send,
    status: int,
    body: bytes,
    content_type: str,
    headers: Iterable[tuple[str, str]] = (),
) -> None:
    """One whole response; HEAD gets the headers alone."""
    pairs = [("content-type", content_type), ("content-length", str(len(body))), *headers]
    raw = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in pairs]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})


async def respond_json(
    scope: Scope, send: Send, status: int, data: object, headers: Iterable[tuple[str, str]] = ()
) -> None:
    """A JSON response that no cache keeps."""
    body = json.dumps(data, ensure_ascii=False).encode()
    await respond(scope, send, status, body, "application/json", [("cache-control", "no-store"), *headers])


async def refuse(
    scope: Scope,
    send: Send,
    status: int,
    error: str,
    message: str,
    advice: str,
    headers: Iterable[tuple[str, str]] = (),
) -> None:
    """An error in the form that every route of ours uses."""
    await respond_json(scope, send, status, {"error": error, "message": message, "advice": advice}, headers)


async def respond_page(
    scope: Scope, send: Send, status: int, html: str, headers: Iterable[tuple[str, str]] = ()
) -> None:
    """A small page of our own that no cache keeps."""
    await respond(
        scope, send, status, html.encode(), "text/html; charset=utf-8", [("cache-control", "no-store"), *headers]
    )


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """The request's body, or None when it is longer than `limit` bytes or the client went away."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)
