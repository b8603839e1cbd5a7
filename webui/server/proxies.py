"""Behind a reverse proxy: whose word counts about the client, and the sub-path under which the page is found."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from webui.server.asgi import App, Receive, Scope, Send, header, refuse

FORWARDED = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port"}
    | {b"x-forwarded-prefix", b"x-forwarded-server", b"x-real-ip", b"x-original-url", b"x-rewrite-url"}
)


def forwarded(app: App, trusted: Iterable[str] = ()) -> App:
    """Believe `X-Forwarded-For` and `-Proto` of the proxies named in `trusted` (addresses or networks), of nobody else.

    Whatever carries such headers was passed on by somebody: `scope["passed_on"]` says so, and then even a connection
    from this machine is not this machine's user. The headers themselves go no further, so nothing behind this file can
    be led to build addresses out of them.
    """
    networks = [ipaddress.ip_network(text, strict=False) for text in trusted]

    def is_trusted(text: str) -> bool:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in networks)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope.get("headers", ())
        told = [key for key, _ in headers if key in FORWARDED or key == b"via"]
        scope["passed_on"] = bool(told)
        client = scope.get("client")
        if told and client and is_trusted(str(client[0])):
            _believe(scope, is_trusted)
        scope["headers"] = [(key, value) for key, value in headers if key not in FORWARDED]
        await app(scope, receive, send)

    return guarded


def _believe(scope: Scope, is_trusted: object) -> None:
    assert callable(is_trusted)
    hops = [part.strip() for part in header(scope, "x-forwarded-for").split(",") if part.strip()]
    while len(hops) > 1 and is_trusted(hops[-1]):
        hops.pop()
    if hops:  # the nearest address that is no proxy of ours: what stands before it, anybody may have written
        scope["client"] = (hops[-1], 0)
    if header(scope, "x-forwarded-proto") in ("http", "https"):
        scope["scheme"] = header(scope, "x-forwarded-proto")


def checked_root_path(text: str) -> str:
    """ "/studio" of "studio/". Raises ValueError for what is no path."""
    path = "/" + text.strip("/")
    if path == "/":
        return ""
    if not re.fullmatch(r"(/[A-Za-z0-9_.~-]+)+", path) or any(part in (".", "..") for part in path.split("/")):
        raise ValueError(text)
    return path


def below(app: App, root_path: str) -> App:
    """Serve under `root_path`, whether the proxy takes it away from the address or leaves it there.

    The page's addresses are relative, so behind this everything is as if it stood at the top.
    """
    if not root_path:
        return app

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == root_path and scope["type"] == "http":  # relative addresses need the slash at the end
            query = scope.get("query_string", b"").decode("latin-1")
            target = root_path.rpartition("/")[2] + "/" + ("?" + query if query else "")
            await refuse(scope, send, 307, "Moved", "The page is one slash further.", "", [("location", target)])
            return
        if path.startswith(root_path + "/"):
            scope["path"] = path.removeprefix(root_path)
            scope["raw_path"] = scope.get("raw_path", b"").removeprefix(root_path.encode())
        scope["root_path"] = ""
        await app(scope, receive, send)

    return guarded
