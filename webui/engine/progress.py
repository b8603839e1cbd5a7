"""How far a job is, how fast, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable

from webui.events import Step

_SMOOTHING = 0.3  # weight of the newest step in the rate


class Progress:
    """Counts the steps of a job; batches and steps are numbered from 1 in what it reports."""

    def __init__(
        self, steps: int, batches: int, batch_size: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._steps = steps
        self._batches = batches
        self._batch_size = batch_size
        self._clock = clock
        self._last = clock()
        self._per_step = 0.0  # seconds
        self._per_decode = 0.0

    def start_batch(self) -> None:
        self._last = self._clock()

    def step(self, batch: int, done: int) -> Step:
        """`done` steps of batch number `batch` (from 0) are done."""
        now = self._clock()
        taken, self._last = now - self._last, now
        self._per_step = taken if not self._per_step else self._per_step + _SMOOTHING * (taken - self._per_step)
        step = min(done, self._steps)
        rest = self._batches - batch - 1
        left = (self._steps - step + rest * self._steps) * self._per_step
        left += (rest + 1) * self._batch_size * self._per_decode
        rate = 1 / self._per_step if self._per_step else 0.0
        return Step(step, self._steps, batch + 1, self._batches, rate, left)

    def decoded(self, seconds: float) -> None:
        """A picture was decoded."""
        self._per_decode = seconds
