"""Which networks are on the device: all of them, as many as a limit allows, one at a time (medvram), or one layer at a
time (lowvram).

Only CUDA has the frugal modes and the limit; elsewhere the device's memory is the machine's.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from webui.engine.streaming import Bus, LayerStream, bus_to
from webui.settings import MemoryMode

MODES = tuple(MemoryMode)  # each more frugal than the one before


class Residency:
    """Brings networks to the device while they are used. Without a limit they are there from the start.

    `limit` is in bytes, None for none. When a network does not fit beside the others, those that were not used for
    longest go to RAM first; medvram is a limit of nothing beside the one in use.
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
        self._here: OrderedDict[int, tuple[Any, int]] = OrderedDict()  # id -> network and its bytes, where limited
        self._stream = LayerStream(bus or bus_to(device))
        self._streamed: weakref.ref[Any] | None = None  # the network that runs layer by layer

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
    def home(self) -> torch.device:
        """Where weights are kept when nothing runs."""
        return self._device if self._roomy else torch.device("cpu")

    @property
    def here(self) -> tuple[Any, ...]:
        """The networks that were brought to the device, the one used last at the end."""
        return tuple(network for network, _ in self._here.values())

    @contextlib.contextmanager
    def at_least(self, mode: MemoryMode, networks: Iterable[Any]) -> Iterator[None]:
        """Be as frugal as `mode` until the end of the block; `networks` are all that are in memory.

        They go home when they are next used after it.
        """
        if MODES.index(mode) <= MODES.index(self._mode):
            yield
            return
        before, roomy = self._mode, self._roomy
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
        elif self._mode is MemoryMode.lowvram:
            self._bring_by_layers(network)
        elif self.offloads and not is_on(network, self._device):  # a frugal job left it in RAM
            _move(network, self._device)
        yield network

    def leave(self) -> None:
        """Take every network that was brought off the device; nothing runs now."""
        while self._here:
            self._send_oldest_away()
        self._stop_streaming()

    @property
    def _roomy(self) -> bool:
        return self._mode is MemoryMode.normal and self._limit is None

    def _bring(self, network: Any, limit: int) -> None:
        if id(network) in self._here:
            self._here.move_to_end(id(network))
            return
        size = network_bytes(network)
        while self._here and sum(held for _, held in self._here.values()) + size > limit:
            self._send_oldest_away()
        _move(network, self._device)
        self._here[id(network)] = (network, size)

    def _send_oldest_away(self) -> None:
        _, (network, _) = self._here.popitem(last=False)
        _move(network, torch.device("cpu"))

    def _bring_by_layers(self, network: Any) -> None:
        """Stream it; what the network before had on the device is given back."""
        if self._streamed is not None and self._streamed() is network:
            return
        self._stop_streaming()
        self._stream.attach(network, self._device)
        self._streamed = weakref.ref(network)

    def _stop_streaming(self) -> None:
        if self._streamed is not None:
            self._stream.detach()
            self._streamed = None


def network_bytes(network: Any) -> int:
    """Of its parameters."""
    return sum(p.numel() * p.element_size() for p in network.parameters())


def _limit_of(mode: MemoryMode, limit: int | None) -> int | None:
    return 0 if mode is MemoryMode.medvram else None if mode is MemoryMode.lowvram else limit


def is_on(network: Any, device: torch.device) -> bool:
    """A network is moved as a whole, so its first parameter tells."""
    return all(parameter.device.type == device.type for parameter in itertools.islice(network.parameters(), 1))


def _move(network: Any, device: torch.device) -> None:
    """Outside of inference mode, so that the weights stay ordinary tensors."""
    with torch.inference_mode(False), torch.no_grad():
        network.to(device)
