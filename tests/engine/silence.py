"""A stand-in for a GPU that shows who waits for it.

torch's meta device computes shapes and no numbers, so whoever reads a number back from it has to stop. `Silence` counts
those reads (and answers them with some number, so that the work goes on) and what is sent to the device in a way that
waits: a copy that is not told to join the queue, or a tensor made there from Python's numbers.
"""

from __future__ import annotations

import traceback
from collections import Counter
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from webui.paths import REPO_ROOT

GPU = torch.device("meta")
_READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default, torch.ops.aten.nonzero.default)
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
_MAKERS = (torch.tensor, torch.as_tensor)


class Silence:
    """A context in which every wait is counted by the function of ours that causes it: `waits["module.function"]`."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self._operations = _Operations(self.waits)
        self._modes = (self._operations, _Functions(self.waits))

    @property
    def operations(self) -> int:
        """Operations on tensors so far, each a call from Python."""
        return self._operations.count

    def __enter__(self) -> Silence:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, trace)


class _Operations(TorchDispatchMode):
    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self._waits = waits
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # in inference mode an operation that is made of others arrives whole
            made = func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
        self.count += 1
        if func in _READS and args[0].device == GPU:
            self._waits[_place()] += 1
            return torch.zeros(1, 0) if "nonzero" in str(func) else 1
        if func in _COPIES:
            source, target = (args[1], args[0]) if func is torch.ops.aten.copy_.default else (args[0], None)
            to = target.device if target is not None else torch.device(kwargs.get("device") or source.device)
            waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            if source.device != to and GPU in (source.device, to) and waits:
                self._waits[_place()] += 1
            if source.device == GPU and to != GPU:
                return target if target is not None else torch.ones(source.shape, dtype=kwargs.get("dtype"))
        return func(*args, **kwargs)


class _Functions(TorchFunctionMode):
    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS and not isinstance(args[0], Tensor) and torch.device(kwargs.get("device") or "cpu") == GPU:
            self._waits[_place()] += 1
        if func is Tensor.tolist and args[0].device == GPU:
            self._waits[_place()] += 1
            return torch.full(args[0].shape, 0.1).tolist()
        return func(*args, **kwargs)


def _place() -> str:
    """The innermost function of ours on the way here."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(str(REPO_ROOT / "webui")):
            module = frame.filename.removeprefix(f"{REPO_ROOT}/webui/").removesuffix(".py").replace("/", ".")
            return f"{module}.{frame.name}"
    return "elsewhere"
