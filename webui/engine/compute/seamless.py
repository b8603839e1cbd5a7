"""Seamless pictures: every convolution sees the picture continued at the opposite edge (circular padding)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Axes = tuple[bool, bool]
"""Along x (the left edge continues the right one) and along y."""
NONE: Axes = (False, False)


class Seamless:
    """Circular padding that can be put on a network and taken off again; its weights are not touched."""

    def __init__(self, network: Any, axes: Axes) -> None:
        self._network = network
        self._axes = axes
        self._changed: list[tuple[torch.nn.Conv2d, Any, Any]] = []

    def attach(self) -> None:
        """Put it on: each convolution that pads leaves the padding of these axes to us."""
        along_x, along_y = self._axes
        for layer in self._network.modules():
            if not isinstance(layer, torch.nn.Conv2d) or isinstance(layer.padding, str):
                continue
            down, across = layer.padding
            x, y = across if along_x else 0, down if along_y else 0
            if not x and not y:
                continue
            before = layer.padding
            handle = layer.register_forward_pre_hook(_padded(x, y))
            layer.padding = (0 if y else down, 0 if x else across)
            self._changed.append((layer, before, handle))

    def detach(self) -> None:
        """Take it off; the network is as it was."""
        for layer, padding, handle in self._changed:
            handle.remove()
            layer.padding = padding
        self._changed.clear()


def _padded(x: int, y: int) -> Any:
    def hook(_layer: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return functional.pad(inputs[0], (x, x, y, y), mode="circular"), *inputs[1:]

    return hook


@contextmanager
def seamless(network: Any, axes: Axes) -> Iterator[None]:
    """The network with circular padding for the length of the block; nothing where no axis is asked for."""
    if axes == NONE:
        yield
        return
    adapter = Seamless(network, axes)
    adapter.attach()
    try:
        yield
    finally:
        adapter.detach()


def wrapped(x: Tensor, cells: int, axes: Axes) -> Tensor:
    """(B, C, h, w) continued by `cells` beyond its edges along these axes; for what is computed in tiles."""
    across, down = (cells if axis else 0 for axis in axes)
    return functional.pad(x, (across, across, down, down), mode="circular") if across or down else x


def unwrapped(x: Tensor, cells: int, axes: Axes) -> Tensor:
    """`wrapped` undone."""
    across, down = (cells if axis else 0 for axis in axes)
    return x[..., down : x.shape[-2] - down, across : x.shape[-1] - across]
