"""How a running job is told to stop: two flags that any thread may raise. No torch."""

from __future__ import annotations

import threading


class Control:
    """Interrupt and skip of one job. A flag is never lowered from outside, so a late call harms no other job."""

    def __init__(self) -> None:
        self._interrupt = threading.Event()
        self._skip = threading.Event()

    def interrupt(self) -> None:
        """End the job: keep what is finished, and decode the pictures in the making."""
        self._interrupt.set()

    def skip(self) -> None:
        """End the batch in the making as it stands and go on with the next one."""
        self._skip.set()

    @property
    def interrupted(self) -> bool:
        return self._interrupt.is_set()

    @property
    def skipped(self) -> bool:
        """Whether a skip waits to be honoured."""
        return self._skip.is_set()

    @property
    def stopping(self) -> bool:
        """Whether the batch in the making has to end now, for either reason."""
        return self._interrupt.is_set() or self._skip.is_set()

    def batch_done(self) -> None:
        """The engine has honoured a skip; the next batch runs."""
        self._skip.clear()
