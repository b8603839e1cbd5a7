"""Signed cookies: who signed in, until when, and a proof that we said so.

Nothing about a session is kept on the server but the ids of those that were signed out before their time. The proof
covers the account's fingerprint, so a changed password, a removed user, or the first account on a machine that had none
ends the sessions from before.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from webui.paths import write_atomic

_log = logging.getLogger(__name__)

SECONDS = 30 * 24 * 3600
KEY_BYTES = 32
MAX_COOKIE = 1024  # characters
MAX_ENDED = 10_000


@dataclass(frozen=True, slots=True)
class Session:
    """A session as its cookie tells it; `proof` is checked by `Sessions.of`. `expires`: unix seconds."""

    name: str
    id: str
    expires: int


def signing_key(path: Path) -> bytes:
    """The key that signs cookies, made on first use, readable by its owner alone."""
    try:
        key = path.read_bytes()
    except OSError:
        key = b""
    if len(key) != KEY_BYTES:
        key = secrets.token_bytes(KEY_BYTES)
        write_atomic(path, key)
    return key


class Sessions:
    """Makes, reads and ends sessions. `ended` is the file of those that were signed out; None keeps them in memory."""

    def __init__(self, key: bytes, ended: Path | None = None) -> None:
        self._key = key
        self._file = ended
        self._lock = threading.Lock()
        self._ended = _read(ended) if ended is not None else {}
        self._unwritten = False  # the disk refused `ended`
        # ports are no part of a cookie's home: two instances on one machine must not take each other's
        self.cookie = "latent_" + hashlib.sha256(b"cookie" + key).hexdigest()[:8]

    def make(self, name: str, fingerprint: str, seconds: int = SECONDS) -> str:
        """A new session's cookie value; its id was never used before, whatever cookie the browser brought."""
        return self.sign(Session(name, secrets.token_urlsafe(12), int(time.time()) + seconds), fingerprint)

    def sign(self, session: Session, fingerprint: str) -> str:
        body = f"{_encode(session.name)}.{session.id}.{session.expires}"
        return f"{body}.{self._proof(body, fingerprint)}"

    def read(self, value: str) -> Session | None:
        """What a cookie claims; nothing of it is proven yet."""
        parts = value.split(".")
        if len(value) > MAX_COOKIE or len(parts) != 4:
            return None
        name, expires = _decode(parts[0]), parts[2]
        if name is None or not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
            return None
        return Session(name, parts[1], int(expires))

    def proves(self, session: Session, value: str, fingerprint: str) -> bool:
        """Whether we made this cookie for that account, it has not expired, and nobody signed out."""
        right = self.sign(session, fingerprint)
        fits = hmac.compare_digest(value.encode("utf-8", "replace"), right.encode())
        return fits and session.expires > time.time() and session.id not in self._ended

    def end(self, session: Session) -> None:
        """Sign out: the cookie is worth nothing from now on, in whatever browser a copy of it is.

        A disk that refuses is no error: until it takes the file (see `keep`), a restart would forget the end.
        """
        with self._lock:
            now = time.time()
            kept = {one: expires for one, expires in self._ended.items() if expires > now}
            kept[session.id] = session.expires
            self._ended = dict(list(kept.items())[-MAX_ENDED:])
            self._unwritten = True
        self.keep()

    def keep(self) -> None:
        """Write what is not on the disk yet."""
        with self._lock:
            if not self._unwritten or self._file is None:
                return
            try:
                write_atomic(self._file, json.dumps(self._ended).encode())
            except OSError as error:
                _log.warning("who signed out cannot be written to %s: %s", self._file, error)
                return
            self._unwritten = False

    def _proof(self, body: str, fingerprint: str) -> str:
        return hmac.new(self._key, f"session:{body}:{fingerprint}".encode(), hashlib.sha256).hexdigest()


def _read(path: Path) -> dict[str, int]:
    try:
        data = json.loads(path.read_bytes())
        return {str(one): int(expires) for one, expires in data.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _encode(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _decode(text: str) -> str | None:
    try:
        return base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode()
    except (UnicodeError, binascii.Error):
        return None
