"""How much memory is in use, and how to give it back. Bytes everywhere.

On CUDA the numbers are the device's; elsewhere they are the process's resident set against the machine's RAM.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from webui.errors import OutOfMemory
from webui.events import Memory

_SYSTEM = platform.system()
_OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate")


class PeakMeter:
    """The highest memory use since it was made, on one device.

    On CUDA and Linux the system keeps the peak itself; elsewhere it is the highest of the samples taken with `sample`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._highest = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._exact = True
        else:
            self._exact = _reset_peak_rss()
        self.sample()

    def sample(self) -> None:
        if self._device.type == "cuda":
            self._highest = max(self._highest, torch.cuda.max_memory_allocated(self._device))
        else:
            self._highest = max(self._highest, _status_line("VmHWM") if self._exact else resident_set())

    @property
    def peak(self) -> int:
        self.sample()
        return self._highest


def read_memory(device: torch.device, peak: int = 0) -> Memory:
    """The memory of `device` now; `peak` of the job, where one runs."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        allocated = torch.cuda.memory_allocated(device)
        reserved = max(torch.cuda.memory_reserved(device), total - free)
        return Memory("cuda", allocated, reserved, total, max(peak, allocated))
    used = resident_set()
    return Memory(device.type, used, used, total_memory(device), max(peak, used))


def total_memory(device: torch.device) -> int:
    """The device's memory, or the machine's RAM; 0 where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return _windows_memory()[1]


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken; 0 where the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if _SYSTEM == "Linux":
        with contextlib.suppress(OSError):
            for line in Path("/proc/meminfo").read_text().splitlines():
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    return 0


def resident_set() -> int:
    """The process's memory in RAM now; 0 where the system does not tell."""
    if _SYSTEM == "Linux":
        return _status_line("VmRSS")
    if _SYSTEM == "Windows":
        return _windows_memory()[0]
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes, and the peak


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device or the machine ran out of memory, in any of its many forms."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in _OUT_OF_MEMORY_TEXTS)


def out_of_memory(kind: str, *, again: bool = False) -> OutOfMemory:
    """The error in words, for a device of that kind ("cuda", "cpu", ...). `again`: a leaner way was tried, too."""
    what = "The GPU" if kind == "cuda" else "The machine"
    if again:
        advice = f"Use a smaller size, or close other programs{' on the GPU' if kind == 'cuda' else ''}."
        return OutOfMemory(f"{what} ran out of memory, and again when everything else was freed.", advice)
    frugal = ', or start with "--medvram"' if kind == "cuda" else ""
    return OutOfMemory(f"{what} ran out of memory.", f"Use a smaller size or batch, or close other programs{frugal}.")


def give_back(device: torch.device) -> None:
    """Return freed memory to the device and to the system; call it when no frame holds a tensor any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # with expandable segments memory goes at once, though a graph may still use it
        torch.cuda.empty_cache()
        if hasattr(torch.accelerator, "empty_host_cache"):  # of pinned memory; torch before 2.12 keeps that for good
            torch.accelerator.empty_host_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    trim()


def trim() -> None:
    """Return what the process freed to the system: glibc keeps it otherwise (1.8 GB after one switch of SD1.5)."""
    libc = glibc()
    if libc is not None:
        libc.malloc_trim(0)


@lru_cache(maxsize=1)
def glibc() -> Any:
    """The C library, where it is glibc; None elsewhere."""
    if _SYSTEM != "Linux":
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if hasattr(libc, "malloc_trim") else None
    except OSError:  # musl
        return None


def _status_line(key: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0


def _reset_peak_rss() -> bool:
    """Start Linux's peak counter anew. False where that cannot be done."""
    if _SYSTEM != "Linux":
        return False
    try:
        handle = os.open("/proc/self/clear_refs", os.O_WRONLY)
    except OSError:
        return False
    try:
        os.write(handle, b"5")
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def _windows_memory() -> tuple[int, int]:
    """(resident set, RAM) on Windows; zeros elsewhere."""
    if _SYSTEM != "Windows":
        return 0, 0

    class Counters(ctypes.Structure):
        _fields_ = (
            ("cb", ctypes.c_ulong),
            ("faults", ctypes.c_ulong),
            ("peak", ctypes.c_size_t),
            ("resident", ctypes.c_size_t),
            *((f"unused{i}", ctypes.c_size_t) for i in range(6)),
        )

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            ("total", ctypes.c_ulonglong),
            *((f"unused{i}", ctypes.c_ulonglong) for i in range(6)),
        )

    counters, status = Counters(), Status()
    counters.cb, status.length = ctypes.sizeof(counters), ctypes.sizeof(status)
    kernel = ctypes.CDLL("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo(ctypes.c_void_p(kernel.GetCurrentProcess()), ctypes.byref(counters), counters.cb)
    kernel.GlobalMemoryStatusEx(ctypes.byref(status))
    return int(counters.resident), int(status.total)
