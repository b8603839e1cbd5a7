"""Where a training runs: on a GPU, or data parallel on CPU cores, one thread a core with a share of the batch each.

Threads that meet once a step lose less to whatever else runs on a machine than operations that are split over all cores
and meet hundreds of times a step. Set OMP_NUM_THREADS=1 (the commands do so), so that an operation keeps to its core.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor


def device_of(name: str) -> torch.device:
    """The device for `--device NAME`; "auto" is a GPU where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def here(array: np.ndarray, device: torch.device) -> Tensor:
    """An array of a file as a tensor. On a CPU it stays in the file and is read as it is needed."""
    return torch.from_numpy(array).to(device)


class Replicas:
    """Copies of one module that share its weights but not its gradients. On a GPU there is one, and no thread."""

    def __init__(self, module: torch.nn.Module, count: int) -> None:
        count = 1 if next(module.parameters()).is_cuda else count
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
            value.backward()  # type: ignore[no-untyped-call]
            return result

        if len(self.modules) == 1:
            return [one(self.modules[0], shares[0])]
        results = list(self._pool.map(one, self.modules, shares))
        with torch.no_grad():
            for weights in zip(*(module.parameters() for module in self.modules), strict=True):
                gradients = [weight.grad for weight in weights if weight.grad is not None]
                if gradients:
                    weights[0].grad = torch.stack(gradients).mean(0) if len(gradients) > 1 else gradients[0]
                    for other in weights[1:]:
                        other.grad = None
        return results
