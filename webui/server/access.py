"""The one door: who may come in, and as whom. Page, API, pictures and events all stand behind it.

Without accounts this machine's own user needs nothing, and everybody else a link that the server printed (it works
once), or the access token that the user chose. With accounts everybody signs in, by name and password or by a link that
they made on the page themselves. Programs send `Authorization: Bearer TOKEN` or Basic. Whoever comes in is a
`webui.identity.Viewer` in `scope["viewer"]`, and everything behind acts for that one.

Four things are open to everybody, and no other: the sign-in page, signing in, signing out, and a link to one picture
that somebody shared (its token is its own permission).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterator
from urllib.parse import parse_qs, parse_qsl, urlencode

from webui.accounts import Account, Accounts
from webui.identity import NOBODY, OWNER, Viewer
from webui.server.asgi import (
    App,
    Receive,
    Scope,
    Send,
    header,
    read_body,
    refuse,
    respond,
    respond_json,
    respond_page,
    wants_page,
)
from webui.server.attempts import WrongTries, peer_of
from webui.server.links import OneTimeLinks, is_token
from webui.server.options import ServeOptions
from webui.server.sessions import SECONDS, Session, Sessions
from webui.server.start_page import link_page, sign_in_page

SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
MAX_FORM = 8192  # bytes
MAX_HEADER = 4096  # characters of an Authorization header that are looked at
MAX_REMEMBERED = 1000  # passwords of programs that were checked already
_SHARED = re.compile(r"/shared/[A-Za-z0-9_-]+(/picture)?")  # the two routes of a link, and nothing below or beside
# Clients of AUTOMATIC1111 wait for these words and this challenge; no page calls these routes, so no browser asks.
BASIC_PATHS, WRONG_BASIC = ("/sdapi/", "/internal/", "/controlnet/"), "Incorrect username or password"
NOT_SIGNED_IN = ("NotSignedIn", "This server asks who you are.", "Sign in on its page, or send a token as a bearer.")


def is_loopback(address: str) -> bool:
    """Whether a peer's address is this machine's own."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def is_shared(scope: Scope) -> bool:
    """Whether a link to a shared picture is opened: making one was an explicit act, and its token is checked there."""
    return scope["method"] == "GET" and _SHARED.fullmatch(scope["path"]) is not None


def is_preflight(scope: Scope) -> bool:
    """Whether a browser asks, without credentials by its nature, if another origin may call; CORS answers that."""
    return scope["method"] == "OPTIONS" and all(header(scope, k) for k in ("origin", "access-control-request-method"))


class Access:
    """The door itself: `Access(...).guard(app)`."""

    def __init__(self, options: ServeOptions, accounts: Accounts, sessions: Sessions, links: OneTimeLinks) -> None:
        self._options = options
        self._accounts = accounts
        self._sessions = sessions
        self._links = links
        self._wrong = WrongTries()
        self._checked: OrderedDict[bytes, str] = OrderedDict()  # keyed hash of name and password -> fingerprint
        self._hash_key = secrets.token_bytes(32)
        self._hashing = asyncio.Semaphore(2)  # a flood of sign-ins must not take every core
        links.fingerprint_of = self._fingerprint

    def guard(self, app: App) -> App:
        """Let through whoever may come in, with who they are; ask everybody else."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            scope.pop("viewer", None)
            if scope["type"] != "http":
                await app(scope, receive, send)
            elif scope["path"] == SIGN_OUT:
                await self._sign_out(scope, send)
            elif scope["path"] == SIGN_IN and scope["method"] == "POST":
                await self._sign_in(scope, receive, send)
            elif is_shared(scope) or is_preflight(scope):
                scope["viewer"] = NOBODY
                await app(scope, receive, send)
            elif (viewer := await self.viewer(scope)) is not None:
                scope["viewer"] = viewer
                await app(scope, receive, send)
            else:
                await self._ask(scope, send)

        return guarded

    async def viewer(self, scope: Scope) -> Viewer | None:
        """Who sends the request, None for nobody that is known."""
        if self._options.no_auth or self._is_owner_here(scope):
            return OWNER
        if (session := self._session(scope)) is not None:
            return self._viewer(session.name)
        kind, _, credential = header(scope, "authorization")[:MAX_HEADER].partition(" ")
        if kind.lower() == "bearer":
            return await self._try(scope, "", credential.strip())
        if kind.lower() == "basic":
            return await self._try(scope, *_basic(credential))
        return None

    def _is_owner_here(self, scope: Scope) -> bool:
        """Whether it is this machine's user, who needs no credential as long as nobody has an account."""
        client = scope.get("client")
        here = client is not None and is_loopback(str(client[0]))
        return here and not scope.get("passed_on") and not self._options.behind_proxy and not self._accounts.exist

    # Identities

    def _viewer(self, name: str) -> Viewer | None:
        if not self._accounts.exist:
            return OWNER if name == "" else None
        account = self._accounts.find(name)
        return Viewer(account.name, account.admin) if account else None

    def _fingerprint(self, name: str) -> str | None:
        if not self._accounts.exist:
            token = hashlib.sha256(self._options.access_token.encode("utf-8", "surrogatepass")).hexdigest()
            return f"owner:{token}" if name == "" else None
        account = self._accounts.find(name)
        return account.fingerprint if account else None

    def _session(self, scope: Scope) -> Session | None:
        for value in _cookies(header(scope, "cookie"), self._sessions.cookie):
            session = self._sessions.read(value)
            fingerprint = self._fingerprint(session.name) if session else None
            if session and fingerprint and self._sessions.proves(session, value, fingerprint):
                return session
        return None

    # Credentials

    async def _try(self, scope: Scope, name: str, secret: str) -> Viewer | None:
        """Whom a credential names. Wrong ones are counted, and after too many nothing is looked at for a while."""
        peer = peer_of(scope)
        if not secret or self._wrong.wait(peer):
            return None
        if not self._accounts.exist:
            token = self._options.access_token
            fits = hmac.compare_digest(secret.encode("utf-8", "replace"), token.encode("utf-8", "replace"))
            if token and fits:
                return OWNER
        elif (account := self._accounts.of_token(secret)) is not None:
            return Viewer(account.name, account.admin)
        elif name:
            account = await self._of_password(peer, name, secret)
            return Viewer(account.name, account.admin) if account else None
        self._wrong.add(peer)
        return None

    async def _of_password(self, peer: str, name: str, password: str) -> Account | None:
        digest = hmac.new(self._hash_key, f"{name}\0{password}".encode("utf-8", "replace"), hashlib.sha256).digest()
        if (known := self._checked_before(digest, name)) is not None:
            return known
        with self._wrong.waiting(peer):
            async with self._hashing:
                if (known := self._checked_before(digest, name)) is not None:
                    return known
                if self._wrong.tried_too_often(peer):  # by others of the peer's that were sent together with this one
                    return None
                account = await asyncio.to_thread(self._accounts.sign_in, name, password)
                if account is None:
                    self._wrong.add(peer)  # before the next one has its turn
                    return None
        self._checked[digest] = account.fingerprint
        while len(self._checked) > MAX_REMEMBERED:
            self._checked.popitem(last=False)
        return account

    def _checked_before(self, digest: bytes, name: str) -> Account | None:
        """Programs send their password with every request; it is hashed slowly once."""
        account = self._accounts.find(name)
        return account if account is not None and self._checked.get(digest) == account.fingerprint else None

    # Asking

    async def _ask(self, scope: Scope, send: Send) -> None:
        wait = self._wrong.wait(peer_of(scope))
        query = scope.get("query_string", b"").decode("latin-1")
        if wait:
            await self._too_many(scope, send, wait)
        elif wants_page(scope) and "token=" in query:
            given = dict(parse_qsl(query, keep_blank_values=True))
            token = given.pop("token", "")
            if self._works(token):
                # not used yet: programs that look at links ahead must not use them up
                await respond_page(scope, send, 200, link_page(token, urlencode(given)))
            else:
                self._wrong.add(peer_of(scope))
                await self._page(scope, send, "That link was used already, or it has ended.")
        elif wants_page(scope):
            await self._page(scope, send, "")
        elif scope["path"].startswith(BASIC_PATHS):
            error, message, advice = NOT_SIGNED_IN
            content = {"error": error, "message": message, "advice": advice, "detail": WRONG_BASIC}
            await respond_json(scope, send, 401, content, [("www-authenticate", 'Basic realm="Latent WebUI"')])
        else:
            await refuse(scope, send, 401, *NOT_SIGNED_IN, [("www-authenticate", 'Bearer realm="Latent WebUI"')])

    def _works(self, token: str) -> bool:
        own = self._options.access_token
        return is_token(token) and (
            self._links.works(token)
            or bool(own and not self._accounts.exist and hmac.compare_digest(token.encode(), own.encode()))
        )

    async def _sign_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = peer_of(scope)
        form = parse_qs((await read_body(receive, MAX_FORM) or b"").decode("utf-8", "replace"), keep_blank_values=True)
        user, password, token, rest = (form.get(key, [""])[0] for key in ("user", "password", "token", "query"))
        user, token = user.strip(), token.strip()
        if wait := self._wrong.wait(peer):
            await self._too_many(scope, send, wait)
            return
        name = self._links.use(token) if token else None
        viewer = self._viewer(name) if name is not None else await self._try(scope, user, token or password)
        fingerprint = self._fingerprint(viewer.name) if viewer else None
        if viewer is None or fingerprint is None:
            words = "The name or the password is wrong." if self._accounts.exist else "That is not the token."
            await self._page(scope, send, words)
            return
        await asyncio.to_thread(self._sessions.keep)
        value = self._sessions.make(viewer.name, fingerprint)
        target = "./" + ("?" + urlencode(parse_qsl(rest)) if rest else "")
        await self._redirect(scope, send, target, value, SECONDS)

    async def _sign_out(self, scope: Scope, send: Send) -> None:
        if scope["method"] != "POST":
            await refuse(scope, send, 405, "MethodNotAllowed", "Signing out is a POST.", "", [("allow", "POST")])
            return
        if (session := self._session(scope)) is not None:
            self._links.end(session.name)
            await asyncio.to_thread(self._sessions.end, session)
        await self._redirect(scope, send, "./", "", 0)

    async def _redirect(self, scope: Scope, send: Send, target: str, value: str, seconds: int) -> None:
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        path = self._options.root_path or "/"
        cookie = f"{self._sessions.cookie}={value}; Max-Age={seconds}; Path={path}; HttpOnly; SameSite=Lax{secure}"
        headers = [("location", target), ("set-cookie", cookie), ("cache-control", "no-store")]
        await respond(scope, send, 303, b"", "text/plain", headers)

    async def _page(self, scope: Scope, send: Send, problem: str) -> None:
        await respond_page(scope, send, 401, self._sign_in_page(scope, problem))

    def _sign_in_page(self, scope: Scope, problem: str) -> str:
        up = "../" * max(0, scope["path"].count("/") - 1)  # the form's address is relative, for pages under a sub-path
        return sign_in_page(problem, accounts=self._accounts.exist, up=up)

    async def _too_many(self, scope: Scope, send: Send, wait: int) -> None:
        headers = [("retry-after", str(wait))]
        if wants_page(scope) or scope["path"] == SIGN_IN:
            page = self._sign_in_page(scope, "Too many wrong tries. Wait half a minute.")
            await respond_page(scope, send, 429, page, headers)
        else:
            await refuse(scope, send, 429, "TooManyTries", "Too many wrong tries.", "Wait and try again.", headers)


def _cookies(text: str, name: str) -> Iterator[str]:
    """The values of that name in a Cookie header. Other programs of the host may have set cookies of any form, and
    even one of the same name for another path: none of them hides ours."""
    for part in text.split(";"):
        key, equals, value = part.partition("=")
        if equals and key.strip() == name:
            yield value.strip()


def _basic(credential: str) -> tuple[str, str]:
    """(name, password) of a Basic credential; the name ends at the first colon, the password may hold more."""
    try:
        text = base64.b64decode(credential.strip(), validate=True)
    except (binascii.Error, ValueError):
        return "", ""
    for encoding in ("utf-8", "latin-1"):
        try:
            name, _, password = text.decode(encoding).partition(":")
        except UnicodeDecodeError:
            continue
        return name, password
    return "", ""
