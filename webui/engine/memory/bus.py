"""The way to a device: memory from which it can fetch, room on it, and copies that are made while it computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

SLAB = 2**26  # bytes of pinned memory that are asked for at a time
_ALIGNMENT = 256  # bytes; what the fastest copies and kernels want

Mark = Any  # a point in a stream's work; None: long over


class Bus(Protocol):
    """The way to a device."""

    def pinned(self, tensor: Tensor) -> Tensor:
        """The tensor in memory from which the device can fetch; itself where it is there, or where that fails."""

    def room(self, size: int) -> Tensor:
        """So many bytes (size,) on the device."""

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: Mark) -> Mark:
        """Begin to copy each second tensor into the first, once `after` is reached; gives a mark of the end."""

    def await_(self, mark: Mark) -> None:
        """What is computed from now on waits for that mark."""

    def mark(self) -> Mark:
        """Of all that was given to compute so far."""

    def settle(self) -> None:
        """Wait until nothing is under way."""


class PlainBus:
    """To a device without streams: everything is done at once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def pinned(self, tensor: Tensor) -> Tensor:
        return tensor

    def room(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, device=self._device)

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: Mark) -> Mark:  # noqa: ARG002 (it is over)
        for target, source in pairs:
            target.copy_(source)
        return None

    def await_(self, mark: Mark) -> None:
        pass

    def mark(self) -> Mark:
        return None

    def settle(self) -> None:
        pass


class CudaBus:
    """To a GPU, with a stream of its own for the copies.

    Tensors share slabs of pinned memory: torch rounds each request for it up to a power of two, which for the weights
    of SDXL, one by one, comes to a quarter more than they need.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None  # from the first copy on
        self._slab: Tensor | None = None  # the last one, of which
        self._taken = 0  # bytes are in use

    @property
    def _copies(self) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return self._stream

    def pinned(self, tensor: Tensor) -> Tensor:
        if tensor.is_pinned():
            return tensor
        try:
            room = self._pinned_room(extent(tensor))
        except RuntimeError:  # the system pins no more: a copy from there only takes longer
            return tensor
        [kept] = laid_out(room, (tensor,))
        return kept.copy_(tensor)

    def _pinned_room(self, size: int) -> Tensor:
        if size > SLAB // 2:
            return _pinned_bytes(size)
        if self._slab is None or self._taken + size > SLAB:
            self._slab, self._taken = _pinned_bytes(SLAB), 0
        start = self._taken
        self._taken += aligned(size)
        return self._slab[start : start + size]

    def room(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, device=self._device)

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: Mark) -> Mark:
        with torch.cuda.stream(self._copies):
            if after is not None:
                self._copies.wait_event(after)
            for target, source in pairs:
                target.copy_(source, non_blocking=True)
            return self._copies.record_event()

    def await_(self, mark: Mark) -> None:
        torch.cuda.current_stream(self._device).wait_event(mark)

    def mark(self) -> Mark:
        return torch.cuda.current_stream(self._device).record_event()

    def settle(self) -> None:
        torch.cuda.synchronize(self._device)


def _pinned_bytes(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def bus_to(device: torch.device) -> Bus:
    return CudaBus(device) if device.type == "cuda" else PlainBus(device)


def extent(tensor: Tensor) -> int:
    """Bytes from its first number to its last, strides included."""
    if not tensor.numel():
        return 0
    reach = sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return int(reach + 1) * tensor.itemsize


def aligned(size: int) -> int:
    """That many bytes and those up to where the next tensor may begin."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def laid_out(room: Tensor, sources: Sequence[Tensor]) -> Iterator[Tensor]:
    """A place for each tensor in the room, one after the other, shaped and laid out like it."""
    start = 0
    for source in sources:
        size = extent(source)
        flat = room[start : start + size].view(source.dtype)
        yield flat.as_strided(source.shape, source.stride(), flat.storage_offset())
        start += aligned(size)
