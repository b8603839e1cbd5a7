"""A way to a device that is not there: the processor's memory stands in for both, and everything is noted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from webui.engine.memory.bus import PlainBus

CPU = torch.device("cpu")


class RecordingBus(PlainBus):
    """A device with streams, in slow motion: what is fetched arrives when it is waited for, and everything is noted."""

    def __init__(self, size: int = 2**40) -> None:
        """`size`: bytes of the device."""
        super().__init__(CPU)
        self.log: list[str] = []
        self._size = size
        self._pinned: dict[int, Tensor] = {}
        self._rooms: list[tuple[StorageWeakRef, int]] = []
        self._due: dict[int, Any] = {}
        self._marks = 0
        self._marked: set[int] = set()

    @property
    def pins(self) -> int:
        """How many tensors were pinned."""
        return len(self._pinned)

    @property
    def fetches(self) -> int:
        return sum(entry.startswith("fetch") for entry in self.log)

    @property
    def held(self) -> int:
        """Bytes of the device that somebody has now."""
        return sum(size for place, size in self._rooms if not place.expired())

    def has(self, tensor: Tensor) -> bool:
        """Whether it is on the device."""
        return any(place == StorageWeakRef(tensor.untyped_storage()) for place, _ in self._rooms)

    def is_pinned(self, tensor: Tensor) -> bool:
        return tensor.data_ptr() in self._pinned

    def pinned(self, tensor: Tensor) -> Tensor:
        if self.is_pinned(tensor):
            return tensor
        kept = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)
        self._pinned[kept.data_ptr()] = kept
        return kept

    def room(self, size: int) -> Tensor:
        if self.held + size > self._size:
            raise torch.OutOfMemoryError("the device is full")
        room = super().room(size)
        self._rooms.append((StorageWeakRef(room.untyped_storage()), size))
        return room

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: Any) -> int:
        if after is not None:
            assert after in self._marked, "it waits for something that nobody has begun"
        for target, _ in pairs:
            target.fill_(float("nan") if target.is_floating_point() else -1)
        self._marks += 1
        self._due[self._marks] = list(pairs)
        self.log.append(f"fetch {self._marks}")
        return self._marks

    def await_(self, mark: int) -> None:
        for target, source in self._due.pop(mark, ()):
            target.copy_(source)
        self.log.append(f"await {mark}")

    def mark(self) -> int:
        self._marks += 1
        self._marked.add(self._marks)
        self.log.append(f"mark {self._marks}")
        return self._marks

    def settle(self) -> None:
        for mark in list(self._due):
            self.await_(mark)
