"""Who may come in when the server listens on a network: whoever sits at this machine, or shows the access token.

At its start the server prints a link with a random token. Opening it sets a signed cookie; without one a remote peer
gets a small sign-in page (navigation) or 401 (everything else). The signing key is kept, so a cookie outlives a
restart; the token does not. A link to a single picture that somebody shared is its own permission. Accounts take this
file's place later.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections import deque
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlencode

from webui.identity import OWNER
from webui.paths import write_atomic
from webui.server.asgi import App, Receive, Scope, Send, header, read_body, refuse, respond, respond_page, wants_page
from webui.server.start_page import sign_in_page

COOKIE = "latent_access"
COOKIE_SECONDS = 30 * 24 * 3600
SIGN_IN_PATH = "/sign-in"
MAX_WRONG_TRIES = 5
WRONG_TRY_SECONDS = 30.0
KEY_BYTES = 32
_SHARED = re.compile(r"/shared/[A-Za-z0-9_-]+(/picture)?")  # the two routes of a link, and nothing below or beside


def is_loopback(address: str) -> bool:
    """Whether a peer's address is this machine's own."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def signing_key(path: Path) -> bytes:
    """The key that signs cookies, made on first use, readable by the owner alone."""
    try:
        key = path.read_bytes()
    except OSError:
        key = b""
    if len(key) != KEY_BYTES:
        key = secrets.token_bytes(KEY_BYTES)
        write_atomic(path, key)
    return key


def sign(key: bytes, expires: int) -> str:
    """A cookie's value: when it ends, and a proof that we wrote it."""
    proof = hmac.new(key, f"access:{expires}".encode(), hashlib.sha256).hexdigest()
    return f"{expires}.{proof}"


def cookie_is_valid(key: bytes, value: str, now: float) -> bool:
    """Whether we signed the cookie and it has not ended. Takes the same time for every wrong proof."""
    expires = value.partition(".")[0]
    if not expires.isdigit() or len(expires) > 12:
        return False
    return hmac.compare_digest(value.encode(), sign(key, int(expires)).encode()) and int(expires) > now


def is_shared(scope: Scope) -> bool:
    """Whether a link to a shared picture is opened: making one was an explicit act, and its token is checked there."""
    return scope["method"] == "GET" and _SHARED.fullmatch(scope["path"]) is not None


class Access:
    """The check itself: `Access(token, key).guard(app)`."""

    def __init__(self, token: str, key: bytes) -> None:
        self._token = token.encode()
        self._key = key
        self._wrong: dict[str, deque[float]] = {}

    def guard(self, app: App) -> App:
        """Let through whoever may come in; ask everybody else for the token."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or is_shared(scope) or self.admits(scope):
                scope["viewer"] = OWNER
                await app(scope, receive, send)
            else:
                await self._ask(scope, receive, send)

        return guarded

    def admits(self, scope: Scope) -> bool:
        """Whether the request comes from this machine, or carries our cookie or the token as a bearer."""
        client = scope.get("client")
        if client and is_loopback(client[0]):
            return True
        if cookie_is_valid(self._key, self._cookie(scope), time.time()):
            return True
        kind, _, credential = header(scope, "authorization").partition(" ")
        return kind.lower() == "bearer" and self._try_token(scope, credential.strip())

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope.get("query_string", b"").decode("latin-1")
        if scope["method"] == "GET" and "token=" in query:
            given = dict(parse_qsl(query, keep_blank_values=True))
            if self._try_token(scope, given.pop("token", "")):
                rest = urlencode(given)
                await self._welcome(scope, send, "./" + ("?" + rest if rest else ""))
                return
        if scope["method"] == "POST" and scope["path"] == SIGN_IN_PATH:
            form = parse_qs((await read_body(receive, 4096) or b"").decode("utf-8", "replace"))
            if self._try_token(scope, form.get("token", [""])[0].strip()):
                await self._welcome(scope, send, "./")
                return
            await self._page(scope, send, "That is not the token this server printed at its start.")
        elif wants_page(scope):
            await self._page(scope, send, "That link has ended." if "token=" in query else "")
        else:
            await refuse(
                scope,
                send,
                401,
                "NotSignedIn",
                "This server asks for its access token.",
                "Open the link that it printed at its start, or send the token as a bearer.",
                [("www-authenticate", "Bearer")],
            )

    async def _page(self, scope: Scope, send: Send, problem: str) -> None:
        if self._blocked(scope):
            wait = [("retry-after", str(int(WRONG_TRY_SECONDS)))]
            await respond_page(scope, send, 429, sign_in_page("Too many wrong tries. Wait half a minute."), wait)
        else:
            await respond_page(scope, send, 401, sign_in_page(problem))

    async def _welcome(self, scope: Scope, send: Send, target: str) -> None:
        value = sign(self._key, int(time.time()) + COOKIE_SECONDS)
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        cookie = f"{COOKIE}={value}; Max-Age={COOKIE_SECONDS}; Path=/; HttpOnly; SameSite=Lax{secure}"
        headers = [("location", target), ("set-cookie", cookie), ("cache-control", "no-store")]
        await respond(scope, send, 303, b"", "text/plain", headers)

    def _cookie(self, scope: Scope) -> str:
        jar: SimpleCookie = SimpleCookie()
        try:
            jar.load(header(scope, "cookie"))
        except CookieError:
            return ""
        return jar[COOKIE].value if COOKIE in jar else ""

    def _try_token(self, scope: Scope, given: str) -> bool:
        if self._blocked(scope):
            return False
        if hmac.compare_digest(given.encode("utf-8", "replace"), self._token):
            return True
        self._wrong.setdefault(self._peer(scope), deque(maxlen=MAX_WRONG_TRIES)).append(time.monotonic())
        while len(self._wrong) > 10_000:
            self._wrong.pop(next(iter(self._wrong)))
        return False

    def _blocked(self, scope: Scope) -> bool:
        tries = self._wrong.get(self._peer(scope))
        return tries is not None and len(tries) == MAX_WRONG_TRIES and time.monotonic() - tries[0] < WRONG_TRY_SECONDS

    @staticmethod
    def _peer(scope: Scope) -> str:
        client = scope.get("client")
        return str(client[0]) if client else ""
