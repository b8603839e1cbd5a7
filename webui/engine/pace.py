"""The processor keeps to its GPU's pace.

A GPU is given its work in advance: while it computes a step, the processor has long asked for the next ones. Without a
bound it would have asked for the whole picture, tell steps as done that have not begun, and hear an interrupt too late.
So it never goes more than two steps ahead; the GPU has always work, and never knows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch

AHEAD = 2  # steps

Wait = Callable[[], None]


class Pace:
    """Told of each step. `mark` sets a mark behind the work so far; what it returns waits until the GPU is there."""

    def __init__(self, mark: Callable[[], Wait] | None, ahead: int = AHEAD) -> None:
        self._mark = mark
        self._ahead = ahead
        self._waits: deque[Wait] = deque()

    def step(self) -> None:
        """Returns once the GPU has done all but the last few steps."""
        if self._mark is None:
            return
        self._waits.append(self._mark())
        if len(self._waits) > self._ahead:
            self._waits.popleft()()


def pace_of(device: torch.device) -> Pace:
    """For a GPU of CUDA; other devices are their own pace."""
    if device.type != "cuda":
        return Pace(None)

    def mark() -> Wait:
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # sleeps while it waits
        event.record(torch.cuda.current_stream(device))
        return event.synchronize

    return Pace(mark)
