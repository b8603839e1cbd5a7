"""Time-boxed training: how much of the time is gone, what learning rate belongs to it, and a log."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch


class TimeBox:
    """A share of a training's time from 0 to 1, measured as wall-clock time; earlier runs count through `spent`.

    A schedule over time rather than over steps ends annealed whatever else the machine does meanwhile. A file
    `until` with a number (a Unix time) moves the end of a running training.
    """

    def __init__(self, minutes: float, spent: float = 0.0, until: Path | None = None) -> None:
        self._start = time.time() - spent
        self._end = self._start + minutes * 60
        self._until = until
        self._read = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds, earlier runs included."""
        return time.time() - self._start

    @property
    def share(self) -> float:
        """0 at the start, 1 at the end."""
        now = time.time()
        if self._until is not None and now - self._read > 5:
            self._read = now
            if self._until.exists():
                self._end = float(self._until.read_text())
        return 1.0 if now >= self._end else (now - self._start) / (self._end - self._start)


def learning_rate(share: float, step: int, warm_up: int, floor: float = 0.01) -> float:
    """A factor: linear over the first steps, then half a cosine down to `floor`."""
    return min(1.0, (step + 1) / warm_up) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share)))


def set_rate(optimisers: list[torch.optim.Optimizer], rate: float) -> None:
    """Every group's learning rate: `rate` times the group's own factor, if it has one."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)


def save(state: dict[str, Any], path: Path) -> None:
    """Atomically, so that an interrupted save leaves the last one."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
