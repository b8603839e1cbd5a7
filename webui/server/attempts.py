"""How often something may be tried: wrong credentials by a peer, and changes by whoever is signed in."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator

from webui.identity import OWNER
from webui.server.asgi import SAFE_METHODS, App, Receive, Scope, Send, refuse

MAX_WRONG = 5
WRONG_SECONDS = 30.0
MAX_WAITING = 64  # credentials of one peer that wait to be looked at
MAX_KNOWN = 10_000  # peers that are remembered

CHANGES_PER_SECOND = 20.0
CHANGES_AT_ONCE = 200.0

Clock = Callable[[], float]


def peer_of(scope: Scope) -> str:
    """The address that tries are counted for; of IPv6 the network, since a host has as many addresses as it likes."""
    client = scope.get("client")
    text = str(client[0]) if client else ""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return text


class WrongTries:
    """Wrong credentials by peer: after `MAX_WRONG` within `WRONG_SECONDS` nothing of that peer's is looked at."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()
        self._waiting: Counter[str] = Counter()

    def add(self, peer: str) -> None:
        self._tries.setdefault(peer, deque(maxlen=MAX_WRONG)).append(self._clock())
        self._tries.move_to_end(peer)
        while len(self._tries) > MAX_KNOWN:
            self._tries.popitem(last=False)

    def wait(self, peer: str) -> int:
        """Seconds until the peer may try again, 0 when it may now."""
        return self.tried_too_often(peer) or int(self._waiting[peer] >= MAX_WAITING)

    @contextlib.contextmanager
    def waiting(self, peer: str) -> Iterator[None]:
        """While a credential of the peer's waits, or is looked at."""
        self._waiting[peer] += 1
        try:
            yield
        finally:
            self._waiting[peer] -= 1
            if not self._waiting[peer]:
                del self._waiting[peer]

    def tried_too_often(self, peer: str) -> int:
        """Seconds for which the peer's wrong tries keep it out, however many wait; 0 when they do not."""
        tries = self._tries.get(peer)
        if tries is None or len(tries) < MAX_WRONG:
            return 0
        return max(0, math.ceil(tries[0] + WRONG_SECONDS - self._clock()))


def limit_changes(app: App, clock: Clock = time.monotonic) -> App:
    """Answer 429 to whoever sends changes faster than a person or a patient script: 20 a second, 200 at once.

    Reading is not counted, and neither is whoever sits at this machine. The limiter stands before the work is done.
    """
    buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # who -> (how much is left, when that was)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        viewer = scope.get("viewer")
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS or viewer in (None, OWNER):
            await app(scope, receive, send)
            return
        now = clock()
        left, then = buckets.get(viewer.name, (CHANGES_AT_ONCE, now))
        left = min(CHANGES_AT_ONCE, left + (now - then) * CHANGES_PER_SECOND) - 1
        if left < 0:
            await refuse(
                scope,
                send,
                429,
                "TooManyRequests",
                "You send changes faster than they are taken.",
                "Wait a second between them.",
                [("retry-after", "1")],
            )
            return
        buckets[viewer.name] = (left, now)
        buckets.move_to_end(viewer.name)
        while len(buckets) > MAX_KNOWN:
            buckets.popitem(last=False)
        await app(scope, receive, send)

    return guarded
