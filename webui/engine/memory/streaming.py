"""A network that stays in RAM and comes to the device layer by layer: while one layer runs, the next one is on its way.

Weights wait in pinned memory, from which a GPU fetches them by itself. On the device they have a few slots, each as
large as the largest layer: one for the layer that runs, one for the next, and one whose layer may still be computed
while the processor is ahead already. So the cost is the bus and no more, and the footprint is that of three layers.

Which layer comes next is learnt: the one that came next the last time. Where that is wrong (a call of the network that
leaves some layers out), the layer is fetched when it is needed, and nothing but time is lost.

Where there is room for more than that, part of the layers stay on the device all the time: the smallest of them, which
come and go as laboriously as large ones, and more where room is left. The others are spread evenly between those, so
that each has the time of the ones before it to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from webui.engine.memory.borrowing import Borrowing
from webui.engine.memory.bus import Bus, Mark, aligned, extent, laid_out
from webui.engine.memory.weights import own_parameters

SLOTS = 3
_SMALL = 0.1  # of the largest layer: while a smaller one runs, hardly anything comes, and so it is better there itself


@dataclass(eq=False)
class _Slot:
    """Room for one layer on the device, and what is in it."""

    room: Tensor | None = None
    layer: Any = None
    sources: tuple[Tensor, ...] = ()  # what its parameters were when it was fetched
    copies: tuple[Tensor, ...] = ()
    places: dict[int, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = field(default_factory=dict)
    """By id of a layer that was in it: the sources, and where in the room they went. To find that out takes long."""
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
    _network: Any = None
    _compiled: Any = None  # what the network runs as otherwise

    def __post_init__(self) -> None:
        self._resident = Borrowing(self.bus)

    def attach(self, network: Any, resident: int = 0) -> None:
        """From now on the network runs on the device, of which its layers may take `resident` bytes for good.

        What is no parameter (a few numbers) comes on top of that.
        """
        layers = [layer for layer in network.modules() if own_parameters(layer)]
        stay = staying([sum(p.nbytes for p in own_parameters(layer)) for layer in layers], resident)
        here = [layer for layer, stays in zip(layers, stay, strict=True) if stays]
        self._resident.take([*(p for layer in here for p in own_parameters(layer)), *network.buffers()])
        self._network = network
        # Compiled code would run without the layers' hooks, or fail in them.
        self._compiled, network._compiled_call_impl = network._compiled_call_impl, None
        for layer, stays in zip(layers, stay, strict=True):
            if not stays:
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
        self._resident.give_back(self._network)
        self._network._compiled_call_impl = self._compiled
        self._network = self._compiled = None

    @property
    def held(self) -> int:
        """Bytes of the slots on the device."""
        return sum(slot.room.numel() for slot in self._slots if slot.room is not None)

    def _before(self, layer: Any) -> None:
        slot = self._found(layer) or self._fetch(layer)
        self.bus.await_(slot.arrived)
        for parameter, copy in zip(own_parameters(layer), slot.copies, strict=True):
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
        for parameter, source in zip(own_parameters(layer), slot.sources, strict=True):
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
        sources, copies = slot.places.get(id(layer), ((), ()))
        slot.layer = None  # as long as its room is not sure
        if not sources or not _same(sources, layer):
            with torch.inference_mode(False), torch.no_grad():  # ordinary tensors, which stay the network's own
                for parameter in own_parameters(layer):
                    parameter.data = self.bus.pinned(parameter.data)
                sources = tuple(p.data for p in own_parameters(layer))
                copies = tuple(laid_out(self._room(slot, sources), sources))
            slot.places[id(layer)] = sources, copies
        slot.layer, slot.sources, slot.copies = layer, sources, copies
        slot.arrived = self.bus.fetch(list(zip(slot.copies, slot.sources, strict=True)), slot.free)
        return slot

    def _room(self, slot: _Slot, sources: Sequence[Tensor]) -> Tensor:
        """The slot's bytes, as many as these tensors need at least."""
        needed = sum(aligned(extent(source)) for source in sources)
        if slot.room is None or slot.room.numel() < needed:
            if slot.room is not None:
                self.bus.settle()
            slot.room, slot.copies = None, ()  # before its successor comes
            slot.places.clear()
            slot.room = self.bus.room(needed)
            slot.free = self.bus.mark()  # of whoever had this memory before
        return slot.room


def staying(sizes: Sequence[int], room: int) -> list[bool]:
    """Which layers of these sizes, in their order, stay on the device, in `room` bytes altogether.

    Small ones do, the smallest first. Of the others, as many bytes do of every part of the order, give or take a layer.
    """
    bound, small, left = _SMALL * max(sizes, default=0), set[int](), room
    for i in sorted(range(len(sizes)), key=lambda i: sizes[i]):
        if sizes[i] > left or sizes[i] >= bound:
            break
        small.add(i)
        left -= sizes[i]
    share = min(1.0, left / max(1, sum(sizes) - (room - left)))
    stay, passed, held = [], 0, 0
    for i, size in enumerate(sizes):
        passed += 0 if i in small else size
        stays = i in small or held + size <= passed * share
        held += size if stays and i not in small else 0
        stay.append(stays)
    return stay


def _same(sources: Sequence[Tensor], layer: Any) -> bool:
    """Whether the layer's parameters are those; kept alive by the slot, an address is never another tensor's."""
    now = own_parameters(layer)
    return len(now) == len(sources) and all(
        parameter.data_ptr() == source.data_ptr() for parameter, source in zip(now, sources, strict=True)
    )
