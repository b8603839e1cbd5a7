"""Brownian motion for the SDE samplers: the same path whatever the steps, so more steps refine one picture.

A virtual Brownian tree (Li et al. 2020, "Scalable Gradients for Stochastic Differential Equations", section 4): the
interval is halved again and again, and each midpoint is drawn from the Brownian bridge between its neighbours with a
seed that belongs to the midpoint alone. The numbers are those of `torchsde.BrownianTree`, which k-diffusion uses. This
one can draw from any source of noise, draws a node once, and keeps only the way down to the last point asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from webui.sampling.transfer import to_device

DIGITS = 6  # times are resolved to 1e-6, as in torchsde's tree
_POOL_SIZE = 24

Draw = Callable[[int], Tensor]
"""`draw(seed) -> standard normal numbers of one picture (C, H, W)`."""


@dataclass(frozen=True, slots=True)
class _Node:
    """An interval of the tree, with W at both ends; `key` and `depth` name it to the seed sequence."""

    start: float
    end: float
    w_start: Tensor
    w_end: Tensor
    key: int
    depth: int

    def children(self, draw: Draw, entropy: int) -> tuple[_Node, _Node]:
        """Both halves: Lévy's construction of the midpoint."""
        middle = round(0.5 * (self.start + self.end), DIGITS)
        left, right, whole = middle - self.start, self.end - middle, self.end - self.start
        seeds = np.random.SeedSequence(entropy, spawn_key=(self.key, self.depth), pool_size=_POOL_SIZE)
        noise = draw(int(seeds.generate_state(1)[0]))
        w_middle = torch.lerp(self.w_start, self.w_end, left / whole).add_(noise, alpha=math.sqrt(left * right / whole))
        key, depth = 2 * self.key, self.depth + 1
        return (
            _Node(self.start, middle, self.w_start, w_middle, key, depth),
            _Node(middle, self.end, w_middle, self.w_end, key + 1, depth),
        )


class BrownianTree:
    """One picture's Brownian path on [t0, t1]; `w(t)` is its value, 0 at t0. `entropy` is the picture's seed."""

    def __init__(self, t0: float, t1: float, draw: Draw, entropy: int) -> None:
        self._draw = draw
        self._entropy = entropy
        seeds = np.random.SeedSequence(entropy, pool_size=_POOL_SIZE)
        # Double precision for the sums: an increment is a small difference of two values of the path.
        w_end = _precise(draw(int(seeds.generate_state(1)[0]))) * math.sqrt(t1 - t0)
        self._path = [_Node(round(t0, DIGITS), round(t1, DIGITS), torch.zeros_like(w_end), w_end, 0, 0)]

    def w(self, t: float) -> Tensor:
        """The path at time t, (C, H, W); times outside the interval are taken as its nearest end."""
        root = self._path[0]
        t = min(max(round(t, DIGITS), root.start), root.end)
        while not self._path[-1].start <= t <= self._path[-1].end:
            self._path.pop()
        while True:
            node = self._path[-1]
            if t == node.start:
                return node.w_start
            if t == node.end:
                return node.w_end
            left, right = node.children(self._draw, self._entropy)
            self._path.append(left if t <= left.end else right)


class BrownianNoise:
    """A noise source for the SDE samplers: increments of W over their standard deviation, a tree a picture."""

    def __init__(self, trees: Sequence[BrownianTree], dtype: torch.dtype, device: torch.device) -> None:
        self._trees = tuple(trees)
        self._dtype = dtype
        self._device = device
        self._last: dict[float, list[Tensor]] = {}

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        """Standard normal numbers (B, C, H, W) for the interval; adjoining intervals are independent."""
        if sigma == sigma_next:
            raise ValueError("Brownian noise belongs to an interval, and this one has no length")
        start, end = min(sigma, sigma_next), max(sigma, sigma_next)
        self._last = {t: self._last.get(t) or [tree.w(t) for tree in self._trees] for t in (start, end)}
        scale = (1 if sigma_next > sigma else -1) / math.sqrt(end - start)
        increments = [w1 - w0 for w0, w1 in zip(self._last[start], self._last[end], strict=True)]
        return to_device(torch.stack(increments).mul_(scale).to(self._dtype), self._device)


def _precise(w: Tensor) -> Tensor:
    return w.double() if w.device.type != "mps" else w
