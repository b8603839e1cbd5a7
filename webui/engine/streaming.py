"""A network that stays in RAM and comes to the device layer by layer: while one layer runs, the next one is on its way.

Weights wait in pinned memory, from which a GPU fetches them by itself. On the device they have a few slots, each as
large as the largest layer: one for the layer that runs, one for the next, and one whose layer may still be computed
while the processor is ahead already. So the cost is the bus and no more, and the footprint is that of three layers.

Which layer comes next is learnt: the one that came next the last time. Where that is wrong (a call of the network that
leaves some layers out), the layer is fetched when it is needed, and nothing but time is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

SLOTS = 3
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
    """To a GPU, with a stream of its own for the copies."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None  # from the first copy on

    @property
    def _copies(self) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return self._stream

    def pinned(self, tensor: Tensor) -> Tensor:
        if tensor.is_pinned():
            return tensor
        try:
            kept = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, pin_memory=True)
        except RuntimeError:  # the system pins no more: a copy from there only takes longer
            return tensor
        return kept.copy_(tensor)

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


def bus_to(device: torch.device) -> Bus:
    return CudaBus(device) if device.type == "cuda" else PlainBus(device)


@dataclass(eq=False)
class _Slot:
    """Room for one layer on the device, and what is in it."""

    room: Tensor | None = None
    layer: Any = None
    sources: tuple[Tensor, ...] = ()  # what its parameters were when it was fetched
    copies: tuple[Tensor, ...] = ()
    arrived: Mark = None
    free: Mark = None  # when its last layer was done
    running: bool = False


@dataclass
class LayerStream:
    """Streams one network at a time, from `attach` to `detach`. Not for several threads.

    A layer whose parameters were changed in the meantime (a LoRA that came or went) is fetched anew.
    """

    bus: Bus
    _slots: list[_Slot] = field(default_factory=lambda: [_Slot() for _ in range(SLOTS)])
    _next: dict[int, Any] = field(default_factory=dict)  # id of a layer -> the layer that came after it
    _last: Any = None
    _handles: list[Any] = field(default_factory=list)

    def attach(self, network: Any, device: torch.device) -> None:
        """From now on the network runs on the device; what is no parameter (a few numbers) goes there for good."""
        for layer in network.modules():
            for name, buffer in layer.named_buffers(recurse=False):
                setattr(layer, name, buffer.to(device))
            if any(True for _ in layer.parameters(recurse=False)):
                self._handles.append(layer.register_forward_pre_hook(lambda module, _: self._before(module)))
                self._handles.append(
                    layer.register_forward_hook(lambda module, *_: self._after(module), always_call=True)
                )

    def detach(self) -> None:
        """The network is an ordinary one again, in RAM."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.bus.settle()
        self._slots = [_Slot() for _ in range(SLOTS)]
        self._next.clear()
        self._last = None

    @property
    def held(self) -> int:
        """Bytes of the slots on the device."""
        return sum(slot.room.numel() for slot in self._slots if slot.room is not None)

    def _before(self, layer: Any) -> None:
        slot = self._found(layer) or self._fetch(layer)
        self.bus.await_(slot.arrived)
        for parameter, copy in zip(layer.parameters(recurse=False), slot.copies, strict=True):
            parameter.data = copy
        slot.running = True
        if self._last is not None:
            self._next[id(self._last)] = layer
        self._last = layer
        following = self._next.get(id(layer))
        if following is not None and self._found(following) is None:
            self._fetch(following)

    def _after(self, layer: Any) -> None:
        slot = next((slot for slot in self._slots if slot.layer is layer and slot.running), None)
        if slot is None:  # it never began: its input was refused before
            return
        for parameter, source in zip(layer.parameters(recurse=False), slot.sources, strict=True):
            parameter.data = source
        slot.running = False
        slot.free = self.bus.mark()

    def _found(self, layer: Any) -> _Slot | None:
        """The slot that has the layer as it is now."""
        for slot in self._slots:
            if slot.layer is layer and not slot.running and _same(slot.sources, layer):
                return slot
        return None

    def _fetch(self, layer: Any) -> _Slot:
        """Begin to bring a layer. It takes the slot that has been free for longest."""
        slot = next((slot for slot in self._slots if not slot.running), None)
        if slot is None:  # layers inside of layers
            slot = _Slot()
        else:
            self._slots.remove(slot)
        self._slots.append(slot)
        with torch.inference_mode(False), torch.no_grad():  # ordinary tensors, which stay the network's own
            for parameter in layer.parameters(recurse=False):
                parameter.data = self.bus.pinned(parameter.data)
            slot.layer, slot.sources = layer, tuple(p.data for p in layer.parameters(recurse=False))
            slot.copies = tuple(_views(self._room(slot), slot.sources))
        slot.arrived = self.bus.fetch(list(zip(slot.copies, slot.sources, strict=True)), slot.free)
        return slot

    def _room(self, slot: _Slot) -> Tensor:
        """The slot's bytes, as many as its layer needs at least."""
        needed = sum(_aligned(_extent(source)) for source in slot.sources)
        if slot.room is None or slot.room.numel() < needed:
            if slot.room is not None:
                self.bus.settle()
            slot.room, slot.copies = None, ()  # before its successor comes
            slot.room = self.bus.room(needed)
            slot.free = self.bus.mark()  # of whoever had this memory before
        return slot.room


def _same(sources: Sequence[Tensor], layer: Any) -> bool:
    """Whether the layer's parameters are those; kept alive by the slot, an address is never another tensor's."""
    now = list(layer.parameters(recurse=False))
    return len(now) == len(sources) and all(
        parameter.data_ptr() == source.data_ptr() for parameter, source in zip(now, sources, strict=True)
    )


def _extent(tensor: Tensor) -> int:
    """Bytes from its first number to its last, strides included."""
    if not tensor.numel():
        return 0
    reach = sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return int(reach + 1) * tensor.itemsize


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _views(room: Tensor, sources: Sequence[Tensor]) -> Iterator[Tensor]:
    """A place for each tensor in the room, one after the other, shaped and laid out like it."""
    start = 0
    for source in sources:
        extent = _extent(source)
        flat = room[start : start + extent].view(source.dtype)
        yield flat.as_strided(source.shape, source.stride(), flat.storage_offset())
        start += _aligned(extent)
