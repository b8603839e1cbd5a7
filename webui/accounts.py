"""The people who may sign in: `users.json`, with hashed passwords, and whoever the command line names for one run.

Passwords are hashed by scrypt (RFC 7914) with a salt of their own; API tokens are long and random, so SHA-256 is enough
for them. The file is read again when it changes: a user who is added or removed by `app.py users` needs no restart.
A file that cannot be read lets nobody in, rather than everybody.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from webui.errors import AccountError, NotFound
from webui.paths import write_atomic

# About 50 ms and 16 MB a try on a desktop (N, r, p of RFC 7914).
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 1
SALT_BYTES, HASH_BYTES, TOKEN_BYTES = 16, 32, 32
MAX_PASSWORD = 1024  # characters
MIN_PASSWORD = 8
MAX_FILE = 4 * 2**20  # bytes
_NAME = re.compile(r"[\w][\w.@+-]{0,63}")


@dataclass(frozen=True, slots=True)
class Account:
    """`password`: "scrypt$N$r$p$salt$hash", salt and hash in hex. `tokens`: SHA-256 of each API token."""

    name: str
    admin: bool
    password: str
    tokens: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Changes with the password, so that a changed password ends the sessions that it opened."""
        return hashlib.sha256(self.password.encode()).hexdigest()


def hash_password(password: str) -> str:
    """Raises `AccountError` for one that is too short or too long."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise AccountError(f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters.", "Choose another one.")
    return _hash(password, secrets.token_bytes(SALT_BYTES))


def password_fits(password: str, stored: str) -> bool:
    """Whether it is the password that `stored` was made of. Takes the same time whatever the answer is."""
    try:
        kind, n, r, p, salt, digest = stored.split("$")
        if kind != "scrypt" or len(password) > MAX_PASSWORD:
            return False
        found = _scrypt(password, bytes.fromhex(salt), int(n), int(r), int(p))
        return hmac.compare_digest(found, bytes.fromhex(digest))
    except (ValueError, OverflowError, MemoryError):
        return False


def _hash(password: str, salt: bytes) -> str:
    digest = _scrypt(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)
    return f"scrypt${SCRYPT_N}${SCRYPT_R}${SCRYPT_P}${salt.hex()}${digest.hex()}"


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    if n * r > 2**20 or p > 16:
        raise ValueError("a cost that no file of ours has")
    secret = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=HASH_BYTES)


_NOBODY = _hash(secrets.token_urlsafe(16), secrets.token_bytes(SALT_BYTES))  # so that unknown names take as long


class Accounts:
    """The accounts of `path`, and those of `given` ((name, password), administrators) for this run alone."""

    def __init__(self, path: Path, given: Iterable[tuple[str, str]] = ()) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._given = {checked_name(name): Account(name, True, hash_password(word)) for name, word in given}
        self._stamp: tuple[int, int] | None = None
        self._stored: dict[str, Account] = {}
        self._broken = False

    @property
    def exist(self) -> bool:
        """Whether people have accounts here. True, too, for a file that cannot be read: nobody comes in by mistake."""
        return bool(self._all()) or self._broken

    def list(self) -> list[Account]:
        return sorted(self._all().values(), key=lambda account: account.name)

    def find(self, name: str) -> Account | None:
        return self._all().get(name)

    def sign_in(self, name: str, password: str) -> Account | None:
        """The account, if the password is its own. About 50 ms, for unknown names as well."""
        account = self.find(name)
        fits = password_fits(password, account.password if account else _NOBODY)
        return account if fits else None

    def of_token(self, token: str) -> Account | None:
        """The account that an API token belongs to."""
        digest = _digest(token)
        found = None
        for account in self._all().values():
            for one in account.tokens:
                if hmac.compare_digest(one, digest):
                    found = account
        return found

    # Changes, by the commands

    def add(self, name: str, password: str, *, admin: bool = False) -> None:
        """Add an account or give it another password and role. Raises `AccountError`."""
        stored = self._to_change()
        before = stored.get(checked_name(name))
        stored[name] = Account(name, admin, hash_password(password), before.tokens if before else ())
        self._save(stored)

    def remove(self, name: str) -> None:
        """Raises `NotFound`. Jobs and pictures stay, and are the administrators' to see."""
        stored = self._to_change()
        if stored.pop(name, None) is None:
            raise _no_such_user(name)
        self._save(stored)

    def new_token(self, name: str) -> str:
        """A new API token, which is shown once and kept as a hash. Raises `NotFound`."""
        stored = self._to_change()
        if name not in stored:
            raise _no_such_user(name)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        stored[name] = replace(stored[name], tokens=(*stored[name].tokens, _digest(token)))
        self._save(stored)
        return token

    def revoke_tokens(self, name: str) -> int:
        """End all API tokens of an account; how many there were. Raises `NotFound`."""
        stored = self._to_change()
        if name not in stored:
            raise _no_such_user(name)
        count = len(stored[name].tokens)
        stored[name] = replace(stored[name], tokens=())
        self._save(stored)
        return count

    # The file

    def _all(self) -> Mapping[str, Account]:
        with self._lock:
            self._read_if_changed()
            return {**self._stored, **self._given}

    def _to_change(self) -> dict[str, Account]:
        self._all()
        if self._broken:
            raise AccountError(f"{self._path.name} cannot be read.", "Mend it, or move it away and add the users anew.")
        return dict(self._stored)

    def _read_if_changed(self) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._stored, self._broken = None, {}, False
            return
        except OSError:
            self._stamp, self._stored, self._broken = None, {}, True
            return
        stamp = (found.st_mtime_ns, found.st_size)
        if stamp == self._stamp:
            return
        try:
            self._stored, self._broken = _read(self._path), False
        except (OSError, ValueError, TypeError, KeyError, RecursionError, AccountError):
            self._stored, self._broken = {}, True
        self._stamp = stamp

    def _save(self, stored: Mapping[str, Account]) -> None:
        users = [asdict(account) for account in sorted(stored.values(), key=lambda account: account.name)]
        write_atomic(self._path, json.dumps({"version": 1, "users": users}, indent=2).encode() + b"\n")
        self._stamp = None


def _read(path: Path) -> dict[str, Account]:
    if path.stat().st_size > MAX_FILE:
        raise ValueError("too large")
    users: list[dict[str, Any]] = json.loads(path.read_bytes())["users"]
    found = {}
    for user in users:
        name, password, tokens = user["name"], user["password"], user.get("tokens", [])
        texts = [name, password, *tokens]
        if not all(isinstance(text, str) for text in texts) or not isinstance(user["admin"], bool):
            raise ValueError("a field of another type")
        found[checked_name(name)] = Account(name, user["admin"], password, tuple(tokens))
    return found


def checked_name(name: str) -> str:
    """Raises `AccountError` for a name that cannot stand in a header, a log or a file."""
    if not _NAME.fullmatch(name):
        raise AccountError(
            f'"{name[:64]}" cannot be the name of a user.', "Use up to 64 letters, digits and . _ - @ +, no spaces."
        )
    return name


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _no_such_user(name: str) -> NotFound:
    return NotFound(f'There is no user "{name[:64]}".', "`app.py users list` names all of them.")
