"""Links that sign a browser in once: printed at the start, shown as a QR code, made on the page for one's own phone."""

from __future__ import annotations

import hashlib
import io
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import segno

MAX_OPEN = 200  # links that wait to be used; the oldest ends first
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class _Link:
    name: str
    fingerprint: str | None
    ends: float | None  # on the clock


class OneTimeLinks:
    """Tokens that work once. Only their hashes are kept, and only in memory: a restart ends them all.

    A link ends with what its maker signed in by: `fingerprint_of` a name must be what it was when the link was made.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Link] = OrderedDict()  # by digest
        self.fingerprint_of: Callable[[str], str | None] = lambda _: None
        self.on_used: Callable[[str], None] = lambda _: None  # hears the name that a link signed in

    def make(self, name: str, seconds: float | None = None) -> str:
        """A token that signs in as `name`, within `seconds` if that is given."""
        token = secrets.token_urlsafe(18)
        with self._lock:
            ends = None if seconds is None else self._clock() + seconds
            self._open[_digest(token)] = _Link(name, self.fingerprint_of(name), ends)
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        return token

    def works(self, token: str) -> bool:
        """Whether the token can still be used; it stays so."""
        with self._lock:
            found = self._open.get(_digest(token))
            return found is not None and self._in_force(found)

    def use(self, token: str) -> str | None:
        """The name it signs in as, once; None for every other time."""
        with self._lock:
            found = self._open.pop(_digest(token), None)
            if found is None or not self._in_force(found):
                return None
        self.on_used(found.name)
        return found.name

    def end(self, name: str) -> None:
        """End what this name made on the page. Links without a time stay: the terminal shows them."""
        with self._lock:
            for digest in [key for key, one in self._open.items() if one.name == name and one.ends is not None]:
                del self._open[digest]

    def _in_force(self, link: _Link) -> bool:
        in_time = link.ends is None or link.ends > self._clock()
        return in_time and link.fingerprint == self.fingerprint_of(link.name)


def is_token(text: str) -> bool:
    """Whether the text can be a token at all; nothing else is ever written into a page."""
    return _TOKEN.fullmatch(text) is not None


def qr_svg(text: str) -> str:
    """The text as a QR code: an SVG of one path, dark on light, with the quiet zone that scanners want."""
    buffer = io.BytesIO()
    segno.make(text, error="m", micro=False).save(
        buffer, kind="svg", border=4, dark="#000", light="#fff", xmldecl=False, svgns=True, omitsize=True
    )
    return buffer.getvalue().decode()


def qr_lines(text: str) -> list[str]:
    """The same for a terminal, in half blocks: two rows of modules a line, light ones drawn, about 20 lines."""
    rows = [list(row) for row in segno.make(text, error="l", micro=False).matrix_iter(border=2)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    blocks = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
    return [
        "".join(blocks[int(upper), int(lower)] for upper, lower in zip(*pair, strict=True))
        for pair in zip(rows[::2], rows[1::2], strict=True)
    ]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
