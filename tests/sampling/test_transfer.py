"""Numbers on their way to a device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from webui.sampling import to_device


def pin(tensor: Tensor) -> Tensor:
    """What torch does for `Tensor.pin_memory`, in ordinary memory: the very strides, and a copy into them."""
    pinned = torch.empty(0, dtype=tensor.dtype)
    pinned.set_(torch.empty(tensor.numel()).untyped_storage(), 0, tensor.size(), tensor.stride())
    return pinned.copy_(tensor)


@pytest.mark.parametrize("expanded", [False, True], ids=["plain", "expanded"])
def test_numbers_go_to_a_gpu_from_pinned_memory(expanded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes that SDXL is told lie in memory once for all parts of a prompt."""
    row = torch.arange(6.0)
    numbers = row.expand(3, -1) if expanded else row.repeat(3, 1)
    asked: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "pin_memory", pin)
        patch.setattr(Tensor, "to", lambda tensor, *how, **more: asked.append((how, more)) or tensor)
        sent = to_device(numbers, "cuda", torch.float16)
    assert asked == [((torch.device("cuda"), torch.float16), {"non_blocking": True})]
    assert torch.equal(sent, numbers)
    assert sent.data_ptr() != numbers.data_ptr()


def test_what_is_there_already_stays() -> None:
    numbers = torch.randn(2, 3)
    assert to_device(numbers, "cpu") is numbers


@pytest.mark.gpu
def test_on_a_gpu_expanded_numbers_arrive() -> None:
    numbers = torch.arange(6.0).expand(3, -1)
    assert torch.equal(to_device(numbers, "cuda").cpu(), numbers)
