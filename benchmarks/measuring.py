"""Seconds, memory and floating-point operations of a piece of work.

On a CPU the seconds that count are those of the processor, user and system, of all threads: other programs change them
little, and the clock on the wall much. On a GPU they are those on the wall, once it is idle again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

CEILING_SIDES = {"cpu": 2048, "cuda": 8192}
CEILING_TRIES = 5

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took. `seconds` is the figure to compare by."""

    seconds: float
    wall: float


def cost(work: Work, device: torch.device) -> Cost:
    """Run it once."""
    _wait(device)
    wall, processor = time.perf_counter(), time.process_time()
    work()
    _wait(device)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return Cost(processor if device.type == "cpu" else wall, wall)


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large square matrix product: what no network can exceed."""
    side = CEILING_SIDES.get(device.type, 4096)
    # random numbers: a GPU takes less power for others, and is a tenth faster
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    with torch.inference_mode():
        best = min(cost(lambda: torch.mm(a, b), device).seconds for _ in range(CEILING_TRIES))
    return 2 * side**3 / best


def operations(work: Work) -> int:
    """Floating-point operations of convolutions, matrix products and attention; for work on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        work()
    return int(counter.get_total_flops())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
