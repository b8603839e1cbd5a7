"""What a job says while it runs: events, each warning once, how long each stage took, and memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import torch

from webui.engine.control import Control
from webui.engine.denoise import Stopped
from webui.engine.memory.usage import PeakMeter, read_memory
from webui.events import Event, Finished, Warning

MEMORY_EVERY_SECONDS = 0.5
STAGES = ("load", "encode", "sample", "decode", "save")


class Reporting:
    """One job's voice, and its ear for the wish to stop."""

    def __init__(self, device: torch.device, control: Control, emit: Callable[[Event], None]) -> None:
        self.emit = emit
        self.notes: list[Warning] = []  # to be told once the sampling has begun
        self._control = control
        self._device = device
        self._meter = PeakMeter(device)
        self._memory_due = 0.0
        self._warned: set[Warning] = set()
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._inner: list[float] = []  # seconds of the blocks inside of each block that is open
        self._started = time.perf_counter()

    def warn(self, warning: Warning) -> None:
        """Each thing is said once a job."""
        if warning not in self._warned:
            self._warned.add(warning)
            self.emit(warning)

    def tell_notes(self) -> None:
        for note in self.notes:
            self.warn(note)
        self.notes.clear()

    def check(self) -> None:
        """Raises `Stopped` when the picture in the making is not wanted any more."""
        if self._control.stopping:
            raise Stopped

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[Callable[[], float]]:
        """Add the time of the block to its stage, less that of blocks inside of it, which have stages of their own.

        Yields a function that tells the time so far.
        """
        started = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield lambda: time.perf_counter() - started
        finally:
            taken = time.perf_counter() - started
            self._seconds[stage] = self._seconds.get(stage, 0.0) + taken - self._inner.pop()
            if self._inner:
                self._inner[-1] += taken

    def show_memory(self, every_seconds: float = MEMORY_EVERY_SECONDS) -> None:
        """Tell the memory in use, unless it was told less than `every_seconds` ago."""
        now = time.perf_counter()
        if now >= self._memory_due or not every_seconds:
            self._meter.sample()
            self.emit(read_memory(self._device, self._meter.peak))
            self._memory_due = now + every_seconds

    def finish(self, saved: int, *, interrupted: bool) -> None:
        """The job's last words."""
        self.show_memory(0.0)
        total = time.perf_counter() - self._started
        self.emit(Finished(saved, {**self._seconds, "total": total}, self._meter.peak, interrupted))
