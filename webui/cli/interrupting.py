"""Ctrl+C while a command makes pictures."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from webui.engine.control import Control


@contextmanager
def interrupting(control: Control, say: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl+C ends the job and keeps what there is of it; the second ends the program."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if control.interrupted:
            raise KeyboardInterrupt
        control.interrupt()
        say("Interrupting: the picture in the making is finished as it stands.")

    before: Callable[[int, FrameType | None], Any] | int | None = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
