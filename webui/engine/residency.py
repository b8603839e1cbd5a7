"""Which networks are on the device: all of them, as many as a limit allows, one at a time (medvram), or one layer at a
time (lowvram).

Only CUDA has the frugal modes and the limit; elsewhere the device's memory is the machine's.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch

from webui.settings import MemoryMode


class Residency:
    """Brings networks to the device while they are used. Without a limit they are there from the start.

    `limit` is in bytes, None for none. When a network does not fit beside the others, those that were not used for
    longest go to RAM first; medvram is a limit of nothing beside the one in use.
    """

    def __init__(self, device: torch.device, mode: MemoryMode, limit: int | None = None) -> None:
        self._device = device
        self._mode = mode
        self._limit = 0 if mode is MemoryMode.medvram else None if mode is MemoryMode.lowvram else limit
        self._here: OrderedDict[int, tuple[Any, int]] = OrderedDict()  # id -> network and its bytes, where limited
        self._streamed: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def home(self) -> torch.device:
        """Where weights are kept when nothing runs."""
        roomy = self._mode is MemoryMode.normal and self._limit is None
        return self._device if roomy else torch.device("cpu")

    @property
    def here(self) -> tuple[Any, ...]:
        """The networks that were brought to the device, the one used last at the end."""
        return tuple(network for network, _ in self._here.values())

    @contextlib.contextmanager
    def using(self, network: Any) -> Iterator[Any]:
        """The network, ready to run on the device until the end of the block."""
        if self._limit is not None:
            self._bring(network, self._limit)
        elif self._mode is MemoryMode.lowvram and network not in self._streamed:
            for layer in network.modules():
                for name, buffer in layer.named_buffers(recurse=False):
                    setattr(layer, name, buffer.to(self._device))  # a few numbers; they stay there
                if any(True for _ in layer.parameters(recurse=False)):
                    _stream(layer, self._device)
            self._streamed.add(network)
        yield network

    def leave(self) -> None:
        """Take every network that was brought off the device; nothing runs now."""
        while self._here:
            self._send_oldest_away()

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


def network_bytes(network: Any) -> int:
    """Of its parameters."""
    return sum(p.numel() * p.element_size() for p in network.parameters())


def _move(network: Any, device: torch.device) -> None:
    """Outside of inference mode, so that the weights stay ordinary tensors."""
    with torch.inference_mode(False), torch.no_grad():
        network.to(device)


def _stream(layer: Any, device: torch.device) -> None:
    """Copy a layer's own weights to the device for each call, and drop the copies after it."""
    kept: dict[str, torch.Tensor] = {}

    def before(module: Any, _inputs: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            kept[name] = parameter.data
            parameter.data = parameter.data.to(device, non_blocking=True)

    def after(module: Any, _inputs: Any, _output: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            parameter.data = kept.pop(name)

    layer.register_forward_pre_hook(before)
    layer.register_forward_hook(after, always_call=True)
