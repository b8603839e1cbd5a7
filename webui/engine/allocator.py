"""How a CPU's memory is asked for: once, in large pages, and kept for the next step.

A step of a full-size UNet makes and drops some gigabytes of intermediate results, up to 80 MB each. By default glibc
fetches every large block from the system and gives it back at once, and the system clears each of its pages (4 KB)
anew when it is touched: measured on SD1.5, a linear layer with 42 MB of results takes 45 ms with that and 19 ms
without. What is kept goes back with `webui.engine.memory.give_back`, when a model goes.
"""

from __future__ import annotations

import os
from typing import Any

from webui.engine.memory import glibc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8  # malloc.h
_NEVER = 2**31 - 1
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


def _set(libc: Any, option: int, value: int) -> bool:
    return bool(libc.mallopt(option, value))
