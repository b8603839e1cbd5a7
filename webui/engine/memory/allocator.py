"""How a CPU's memory is asked for: once, in large pages, and kept for the next step.

A step of a full-size UNet makes and drops some gigabytes of intermediate results, up to 80 MB each. By default glibc
fetches every large block from the system and gives it back at once, and the system clears each of its pages (4 KB)
anew when it is touched: measured on SD1.5, a linear layer with 42 MB of results takes 45 ms with that and 19 ms
without. What is kept goes back when a model goes (`webui.engine.memory.usage.give_back`), and at the end of a job that
took much more than stays in use (`KeptPages`).
"""

from __future__ import annotations

import os
from typing import Any

from webui.engine.memory.usage import glibc, resident_set, trim

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8  # malloc.h
_NEVER = 2**31 - 1
KEPT_BYTES = 256 * 2**20  # that a job may leave behind for the next one
LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # torch reads it when it makes its first tensor


def keep_pages() -> bool:
    """Have this process keep what it frees, and ask for large pages. Whether its C library can do that.

    To be called before the first tensor is made: torch asks for large pages from then on, or never.
    """
    os.environ.setdefault(LARGE_PAGES, "1")
    libc = glibc()
    if libc is None or not hasattr(libc, "mallopt"):
        return False
    done = _set(libc, _M_TRIM_THRESHOLD, _NEVER)
    done &= _set(libc, _M_ARENA_MAX, 1)  # the others cannot hold a large block
    return done and (_set(libc, _M_MMAP_THRESHOLD, _NEVER) or _set(libc, _M_MMAP_MAX, 0))  # older ones: not above 32 MB


class KeptPages:
    """Gives back at the end of a job what it freed, where that is much.

    Within a job a block comes again a thousand times, and so it is kept. To give a gigabyte back and to fetch it anew
    once takes 0.3 to 0.5 s (measured; 0.02 of it is the giving): nothing beside a job that needs so much, but a
    fiftieth of one that makes a small picture in a second. So little is kept all the same.
    """

    def __init__(self) -> None:
        self._settled = resident_set()  # the lowest since memory was given back

    def job_over(self) -> None:
        """To be called when no frame of the job holds a tensor any more."""
        resident = resident_set()
        self._settled = min(self._settled, resident)
        if resident - self._settled > KEPT_BYTES:
            trim()
            self._settled = resident_set()


def _set(libc: Any, option: int, value: int) -> bool:
    return bool(libc.mallopt(option, value))
