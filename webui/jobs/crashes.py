"""How often a worker may crash before it is given up, and how long to wait before the next try."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

MAX_RESTARTS = 3  # in WINDOW, without a success between
WINDOW = 600.0  # seconds
PAUSES = (0.2, 1.0, 3.0)  # seconds before the first, second, third restart


class Crashes:
    """Counts crashes; a success (`clear`) makes up for all of them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: deque[float] = deque()

    def add(self) -> float | None:
        """It crashed. Gives the pause in seconds before the restart, or None when it is given up."""
        now = self._clock()
        self._times.append(now)
        while now - self._times[0] > WINDOW:
            self._times.popleft()
        if len(self._times) > MAX_RESTARTS:
            return None
        return PAUSES[min(len(self._times), len(PAUSES)) - 1]

    def clear(self) -> None:
        self._times.clear()
