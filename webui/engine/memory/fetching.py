"""From a GPU to the machine's memory without waiting: what is fetched comes when the GPU is through with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Fetched(Protocol):
    """Tensors on their way."""

    @property
    def ready(self) -> bool:
        """Whether they are there."""

    def get(self) -> tuple[Tensor, ...]:
        """The tensors, in the machine's memory. Waits until they are there."""


Fetch = Callable[[tuple[Tensor, ...]], Fetched]


class CudaFetched:
    """Into pinned memory, behind all that the GPU was given to do so far."""

    def __init__(self, tensors: tuple[Tensor, ...]) -> None:
        self._kept = tuple(torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors)
        for kept, tensor in zip(self._kept, tensors, strict=True):
            kept.copy_(tensor, non_blocking=True)
        self._mark = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # sleeps while it waits
        self._mark.record(torch.cuda.current_stream(tensors[0].device))

    @property
    def ready(self) -> bool:
        return bool(self._mark.query())  # type: ignore[no-untyped-call]

    def get(self) -> tuple[Tensor, ...]:
        self._mark.synchronize()
        return self._kept


def fetch_from(device: torch.device) -> Fetch | None:
    """How to fetch from a device; None where its memory is the machine's, or everything is done at once."""
    return CudaFetched if device.type == "cuda" else None
