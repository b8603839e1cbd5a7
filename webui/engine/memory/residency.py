"""Which networks are on the device: all but the text encoders, as many as a limit allows, one at a time (medvram), or
one layer at a time (lowvram).

Only CUDA has the frugal modes, the limit and guests; elsewhere the device's memory is the machine's.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch

from webui.engine.memory.borrowing import Borrowing
from webui.engine.memory.bus import Bus, bus_to
from webui.engine.memory.streaming import SLOTS, LayerStream
from webui.engine.memory.weights import parameters_of, tensors_of, weigh
from webui.settings import MemoryMode

MODES = tuple(MemoryMode)  # each more frugal than the one before

MEDVRAM_RESIDENT = 3_500_000_000
"""Bytes of the largest network that medvram has on the device as a whole, and how much of a larger one stays there.

SDXL's UNet in half precision has 5.1 GB, and a picture of 1024x1024 is to be made in 4.5 GB with what a step takes.
"""

LOWVRAM_RESIDENT = 0.05
"""Share of a network that lowvram leaves on the device while it runs: its smallest layers. Of SD1.5's UNet these are
three of five, 86 MB together, and to bring one takes the processor as long as to bring a large one.
"""


_End = Callable[[], None]
"""Takes a network off the device that was brought there."""


class _Stay(NamedTuple):
    """A network that was brought to the device, and its bytes."""

    network: Any
    size: int
    end: _End


class Residency:
    """Brings networks to the device while they are used. Without a limit they are there from the start, but for those
    that come as guests (`visits`).

    `limit` is in bytes, None for none. When a network does not fit beside the others, those that were not used for
    longest leave first; medvram and lowvram are a limit of nothing beside the one in use.
    """

    def __init__(
        self,
        device: torch.device,
        mode: MemoryMode,
        limit: int | None = None,
        bus: Bus | None = None,
    ) -> None:
        self._device = device
        self._mode, self._own_limit = mode, limit
        self._limit = _limit_of(mode, limit)
        self._here: OrderedDict[int, _Stay] = OrderedDict()  # by id of the network, where limited
        self._guests: dict[int, _End] | None = None  # by id, while there is a visit
        self._bus = bus or bus_to(device)
        self._stream = LayerStream(self._bus)

    @property
    def mode(self) -> MemoryMode:
        """How frugal it is now."""
        return self._mode

    @property
    def limited(self) -> bool:
        """Whether the settings say how much of the networks may be on the device."""
        return self._own_limit is not None

    @property
    def offloads(self) -> bool:
        """Whether there is another memory than the device's, to which networks can go."""
        return self._device.type == "cuda"

    @property
    def device(self) -> torch.device:
        """Where networks run."""
        return self._device

    @property
    def home(self) -> torch.device:
        """Where weights are kept when nothing runs."""
        return self._device if self._limit is None else torch.device("cpu")

    @property
    def guest_home(self) -> torch.device:
        """The same of networks that are used in `visits` alone."""
        return torch.device("cpu") if self.offloads else self.home

    @property
    def here(self) -> tuple[Any, ...]:
        """The networks that were brought to the device, the one used last at the end."""
        return tuple(stay.network for stay in self._here.values())

    @contextlib.contextmanager
    def at_least(self, mode: MemoryMode, networks: Iterable[Any]) -> Iterator[None]:
        """Be as frugal as `mode` until the end of the block; `networks` are all that are in memory.

        They go home when they are next used after it.
        """
        if MODES.index(mode) <= MODES.index(self._mode):
            yield
            return
        before, roomy = self._mode, self._limit is None
        self.leave()
        if roomy:
            for network in networks:
                _move(network, torch.device("cpu"))
        self._mode, self._limit = mode, _limit_of(mode, self._own_limit)
        try:
            yield
        finally:
            self.leave()
            self._mode, self._limit = before, _limit_of(before, self._own_limit)

    @contextlib.contextmanager
    def using(self, network: Any) -> Iterator[Any]:
        """The network, ready to run on the device until the end of the block."""
        if self._limit is not None:
            self._bring(network, self._limit)
        elif self._guests is not None:
            if id(network) not in self._guests:
                self._guests[id(network)] = self._borrowed(network)
        elif self.offloads and not is_on(network, self._device):  # a frugal job left it in RAM
            _move(network, self._device)
        yield network

    @contextlib.contextmanager
    def visits(self) -> Iterator[None]:
        """Networks that are used in the block come for it alone: at their first use, and to its end.

        Where memory is short they are brought as all others, and where the device's is the machine's they stay.
        """
        if self._limit is not None or not self.offloads or self._guests is not None:
            yield
            return
        self._guests = {}
        try:
            yield
        finally:
            guests, self._guests = self._guests, None
            for end in guests.values():
                end()

    def leave(self) -> None:
        """Take every network that was brought off the device; nothing runs now."""
        while self._here:
            self._send_oldest_away()

    def _bring(self, network: Any, limit: int) -> None:
        if id(network) in self._here:
            self._here.move_to_end(id(network))
            return
        size, _, layer = weigh(network, self._device)
        while self._here and sum(stay.size for stay in self._here.values()) + size > limit:
            self._send_oldest_away()
        resident = resident_bytes(self._mode, size, layer)
        end = self._borrowed(network) if resident == size else self._streamed(network, resident)
        self._here[id(network)] = _Stay(network, size, end)

    def _borrowed(self, network: Any) -> _End:
        borrowing = Borrowing(self._bus)
        borrowing.take(tensors_of(network))
        return lambda: borrowing.give_back(network)

    def _streamed(self, network: Any, resident: int) -> _End:
        self._stream.attach(network, resident)
        return self._stream.detach

    def _send_oldest_away(self) -> None:
        _, stay = self._here.popitem(last=False)
        stay.end()


def resident_bytes(mode: MemoryMode, size: int, layer: int) -> int:
    """How much of a network of `size` bytes is on the device all the time that it is in use; the rest is streamed.

    `layer`: bytes of its largest one. A network comes as a whole where places for three of those would take no less.
    """
    if mode is MemoryMode.normal:
        return size
    resident = MEDVRAM_RESIDENT if mode is MemoryMode.medvram else int(LOWVRAM_RESIDENT * size)
    return resident if resident + SLOTS * layer < size else size


def _limit_of(mode: MemoryMode, limit: int | None) -> int | None:
    return limit if mode is MemoryMode.normal else 0


def is_on(network: Any, device: torch.device) -> bool:
    """A network is moved as a whole, so its first parameter tells."""
    return all(parameter.device.type == device.type for parameter in itertools.islice(parameters_of(network), 1))


def _move(network: Any, device: torch.device) -> None:
    """Outside of inference mode, so that the weights stay ordinary tensors. What fails leaves it in RAM as a whole."""
    with torch.inference_mode(False), torch.no_grad():
        try:
            network.to(device)
        except BaseException:
            network.to("cpu")
            raise
