"""Data parallel on CPU cores: one thread a core, each with a share of the batch and gradients of its own.

Threads that meet once a step lose less to whatever else runs on a machine than operations that are split over all cores
and meet hundreds of times a step. Set OMP_NUM_THREADS=1 (the commands do so), so that an operation keeps to its core.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


class Replicas:
    """Copies of one module that share its weights but not its gradients."""

    def __init__(self, module: torch.nn.Module, count: int) -> None:
        self.modules = [module]
        for _ in range(count - 1):
            twin = copy.deepcopy(module)
            for ours, theirs in zip(twin.parameters(), module.parameters(), strict=True):
                ours.data = theirs.data
            self.modules.append(twin)
        self._pool = ThreadPoolExecutor(count)

    def __len__(self) -> int:
        return len(self.modules)

    def backward(self, loss: Callable[[Any, Any], tuple[Tensor, Any]], shares: Sequence[Any]) -> list[Any]:
        """`loss(module, share)` gives a loss to differentiate and whatever is to be returned.

        Afterwards the first module's parameters hold the mean gradient of all shares.
        """

        def one(module: torch.nn.Module, share: Any) -> Any:
            value, result = loss(module, share)
            value.backward()
            return result

        results = list(self._pool.map(one, self.modules, shares))
        with torch.no_grad():
            for weights in zip(*(module.parameters() for module in self.modules), strict=True):
                gradients = [weight.grad for weight in weights if weight.grad is not None]
                if gradients:
                    weights[0].grad = torch.stack(gradients).mean(0) if len(gradients) > 1 else gradients[0]
                    for other in weights[1:]:
                        other.grad = None
        return results
