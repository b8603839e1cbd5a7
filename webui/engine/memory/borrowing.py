"""Tensors of a network that are on the device for a while: fetched from pinned memory, and given back without a copy.

Nobody writes into weights that are used, so the copy on the device is dropped at the end, and what waited in RAM comes
into its place again. Only where somebody put another tensor there meanwhile, as adapters do, that one goes to RAM.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from webui.engine.memory.bus import Bus, extent, laid_out
from webui.engine.memory.weights import tensors_of


class _Loan(NamedTuple):
    """A parameter or buffer, its tensor in RAM, and the memory that it has on the device.

    That memory is not kept alive: where another tensor takes its place, it is free at once.
    """

    tensor: Tensor
    source: Tensor
    place: StorageWeakRef


@dataclass
class Borrowing:
    """What of one network is on the device, from `take` to `give_back`. Not for several threads."""

    bus: Bus
    _loans: dict[int, _Loan] = field(default_factory=dict)  # id of a parameter or buffer -> what became of it

    def take(self, tensors: Iterable[Tensor]) -> None:
        """Bring parameters and buffers to the device. If it has no room for all of them, none goes there."""
        taken = list(tensors)
        with torch.inference_mode(False), torch.no_grad():  # ordinary tensors, which stay the network's own
            for tensor in taken:
                tensor.data = self.bus.pinned(tensor.data)
            sources = [tensor.data for tensor in taken]
            copies = [self._copy_of(source) for source in sources]
            self.bus.await_(self.bus.fetch(list(zip(copies, sources, strict=True)), self.bus.mark()))
            for tensor, source, copy in zip(taken, sources, copies, strict=True):
                tensor.data = copy
                self._loans[id(tensor)] = _Loan(tensor, source, _place_of(copy))

    def give_back(self, network: Any) -> None:
        """The network is in RAM again, with whatever was attached to it meanwhile."""
        with torch.inference_mode(False), torch.no_grad():
            for tensor in tensors_of(network):
                loan = self._loans.get(id(tensor))
                own = loan is not None and loan.place == _place_of(tensor)
                tensor.data = loan.source if loan is not None and own else tensor.data.to("cpu")
        self._loans.clear()

    def _copy_of(self, source: Tensor) -> Tensor:
        """A place for it on the device, laid out as it is. One for each, so that they can be given up one by one."""
        [copy] = laid_out(self.bus.room(extent(source)), (source,))
        return copy


def _place_of(tensor: Tensor) -> StorageWeakRef:
    """Equal for tensors in the same memory, and never for one that came there later."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
