"""CUDA's normal random numbers on any machine: Philox 4x32-10 (Salmon et al. 2011) and the Box-Muller transform.

Each call of `randn` equals `torch.randn` on an NVIDIA GPU with the same seed and the same calls before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_INCREMENTS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_LOW_WORD = 0xFFFFFFFF
_UNIT = 2.3283064e-10  # 2^-32, as CUDA's single-precision constant
_TURN = _UNIT * 6.2831855


class PhiloxGenerator:
    """A stream of normal numbers. `seed` is taken modulo 2^64."""

    def __init__(self, seed: int) -> None:
        self._key = seed & _LOW_WORD, (seed >> 32) & _LOW_WORD
        self._calls = 0

    def randn(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers of that shape, float32, on the CPU."""
        count = math.prod(shape)
        zero = torch.zeros(count, dtype=torch.int64)
        counter = (zero + self._calls, zero, torch.arange(count), zero)
        self._calls += 1
        first, second = philox4x32(counter, self._key)[:2]
        return _box_muller(first, second).reshape(tuple(shape))


def philox4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten rounds of Philox 4x32. The words are 32-bit numbers, kept in int64 tensors.

    A product of two of them wraps around in 64 bits, and its bits are right all the same.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product2 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = ((product2 >> 32) & _LOW_WORD) ^ c1 ^ k0
        c1 = product2 & _LOW_WORD
        c2 = ((product0 >> 32) & _LOW_WORD) ^ c3 ^ k1
        c3 = product0 & _LOW_WORD
        k0, k1 = (k0 + _KEY_INCREMENTS[0]) & _LOW_WORD, (k1 + _KEY_INCREMENTS[1]) & _LOW_WORD
    return c0, c1, c2, c3


def _box_muller(first: Tensor, second: Tensor) -> Tensor:
    u = first.float() * _UNIT + _UNIT / 2
    v = second.float() * _TURN + _TURN / 2
    return (-2.0 * u.log()).sqrt() * v.sin()
