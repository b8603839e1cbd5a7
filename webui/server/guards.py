"""What every request passes before anything else sees it, outermost first: headers, host, size, origin.

They wrap the switchboard, so they hold for the start page as well as for the full app. Together they answer DNS
rebinding (hosts), disk and memory filling (size), and cross-site requests (origin).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from webui.server.asgi import SAFE_METHODS, App, Message, Receive, Scope, Send, header, refuse

MAX_BODY = 64 * 2**20  # bytes; the largest upload is a picture
DEFAULT_PORTS = {"http": 80, "https": 443}

# Gradio compiles event handlers from strings and writes its configuration into the page, hence the two 'unsafe'
# words; everything that is loaded or connected to comes from this server alone.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "media-src 'self' blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-src 'self'",
        "frame-ancestors 'self'",
    )
)

SECURITY_HEADERS = (
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
)


def security_headers(app: App) -> App:
    """Add the headers above to every response that has not set its own."""
    raw = [(key.encode(), value.encode()) for key, value in SECURITY_HEADERS]

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {key.lower() for key, _ in message.get("headers", ())}
                message["headers"] = [*message.get("headers", ()), *(p for p in raw if p[0] not in present)]
            await send(message)

        await app(scope, receive, send_with_headers)

    return guarded


def split_host(value: str) -> tuple[str, int | None] | None:
    """`Host` or `Origin`'s host part as (lower-case name, port or None); None when it is malformed."""
    try:
        parts = urlsplit("//" + value)
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    return name.rstrip("."), port


def host_is_trusted(value: str, names: Collection[str], *, any_address: bool) -> bool:
    """Whether a `Host` header names this server.

    `any_address`: a literal IP address passes too. DNS rebinding needs a name, so an address is harmless; it is
    wanted when the server listens on a network, where it may be reached under addresses it does not know.
    """
    split = split_host(value)
    if split is None:
        return False
    name = split[0]
    if name in names:
        return True
    if not any_address:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def trusted_hosts(app: App, names: Collection[str], *, any_address: bool = False) -> App:
    """Answer 400 to a request that names another host than this server."""
    known = {name.lower() for name in names}

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if host_is_trusted(header(scope, "host"), known, any_address=any_address):
            await app(scope, receive, send)
        else:
            await refuse(
                scope,
                send,
                400,
                "UnknownHost",
                "This server is not known under that host name.",
                "Use the address it printed at its start, or name the host with --allow-host.",
            )

    return guarded


class _BodyTooLarge(Exception):
    """The body passed the limit while the app was reading it."""


def body_limit(app: App, limit: int = MAX_BODY) -> App:
    """Answer 413 to a body above `limit` bytes, whether its length is announced or not."""

    async def too_large(scope: Scope, send: Send) -> None:
        await refuse(
            scope,
            send,
            413,
            "TooLarge",
            f"The request is larger than {limit // 2**20} MB.",
            "Send a smaller file.",
            [("connection", "close")],
        )

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        announced = header(scope, "content-length")
        if announced and (not announced.isdigit() or int(announced) > limit):
            await too_large(scope, send)
            return
        size = 0
        started = False

        async def counted_receive() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise _BodyTooLarge
            return message

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await app(scope, counted_receive, watched_send)
        except _BodyTooLarge:
            if not started:
                await too_large(scope, send)

    return guarded


def origin_is_own(origin: str, host: str, allowed: Collection[str]) -> bool:
    """Whether an `Origin` is this server itself, as the request addressed it, or one on the allow-list.

    The scheme is not compared: behind a proxy that ends TLS the server sees http where the browser says https.
    """
    if origin in allowed:
        return True
    scheme, separator, rest = origin.partition("://")
    if not separator or scheme not in DEFAULT_PORTS:
        return False  # "null" and everything that is no web origin
    theirs, ours = split_host(rest), split_host(host)
    if theirs is None or ours is None or theirs[0] != ours[0]:
        return False
    standard = DEFAULT_PORTS[scheme]
    return (theirs[1] or standard) == (ours[1] or standard)


def same_origin(app: App, allowed: Collection[str] = ()) -> App:
    """Answer 403 to requests that change something and come from another web origin.

    A request without `Origin` and `Sec-Fetch-Site` is no browser's (a script, curl) and passes.
    """

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in SAFE_METHODS:
            await app(scope, receive, send)
            return
        origin, site = header(scope, "origin"), header(scope, "sec-fetch-site")
        if origin:
            passes = origin_is_own(origin, header(scope, "host"), allowed)
        else:
            passes = site in ("", "same-origin", "none")
        if passes:
            await app(scope, receive, send)
        else:
            await refuse(
                scope,
                send,
                403,
                "ForeignOrigin",
                "The request comes from another web site.",
                "Use this server's own page, or allow the origin with --cors-origin.",
            )

    return guarded
