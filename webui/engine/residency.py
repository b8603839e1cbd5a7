"""Which networks are on the device: all of them, one at a time (medvram), or one layer at a time (lowvram).

Only CUDA has the two frugal modes; elsewhere the device's memory is the machine's.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import torch

from webui.settings import MemoryMode


class Residency:
    """Brings networks to the device while they are used. In the normal mode they are there from the start."""

    def __init__(self, device: torch.device, mode: MemoryMode) -> None:
        self._device = device
        self._mode = mode
        self._here: Any = None  # the network on the device, in medvram
        self._streamed: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def home(self) -> torch.device:
        """Where weights are kept when nothing runs."""
        return self._device if self._mode is MemoryMode.normal else torch.device("cpu")

    @contextlib.contextmanager
    def using(self, network: Any) -> Iterator[Any]:
        """The network, ready to run on the device until the end of the block."""
        if self._mode is MemoryMode.medvram and self._here is not network:
            self.leave()
            _move(network, self._device)
            self._here = network
        elif self._mode is MemoryMode.lowvram and network not in self._streamed:
            for layer in network.modules():
                for name, buffer in layer.named_buffers(recurse=False):
                    setattr(layer, name, buffer.to(self._device))  # a few numbers; they stay there
                if any(True for _ in layer.parameters(recurse=False)):
                    _stream(layer, self._device)
            self._streamed.add(network)
        yield network

    def leave(self) -> None:
        """Take the network off the device (medvram); nothing runs now."""
        if self._here is not None:
            _move(self._here, torch.device("cpu"))
            self._here = None


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
