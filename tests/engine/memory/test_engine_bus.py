"""Memory from which a GPU fetches by itself: shared in slabs, refused with grace, and given back to the system."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from webui.engine.memory import bus as module
from webui.engine.memory.bus import SLAB, CudaBus
from webui.engine.memory.usage import give_back

GPU = torch.device("cuda")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of pinned memory that are asked for; ordinary memory stands in for it."""
    sizes: list[int] = []

    def pinned_bytes(size: int) -> Tensor:
        sizes.append(size)
        return torch.empty(size, dtype=torch.uint8)

    monkeypatch.setattr(module, "_pinned_bytes", pinned_bytes)
    return sizes


def test_small_tensors_share_a_slab_and_large_ones_have_their_own_place(asked: list[int]) -> None:
    bus = CudaBus(GPU)
    large = torch.randn(SLAB // 8 + 1, 4, dtype=torch.float16)
    tensors = [
        torch.randn(3, 5, 3, 3).contiguous(memory_format=torch.channels_last),
        torch.arange(77),
        large,
        torch.randn(1),
        torch.randn(64, 32).half().t(),
    ]
    kept = [bus.pinned(tensor) for tensor in tensors]
    assert asked == [SLAB, large.nbytes]
    for tensor, there in zip(tensors, kept, strict=True):
        assert torch.equal(there, tensor)
        assert (there.stride(), there.dtype) == (tensor.stride(), tensor.dtype)
    slab = kept[0].untyped_storage().data_ptr()
    places = [one.data_ptr() - slab for one in kept if one is not kept[2]]
    assert places == [0, 768, 1536, 1792], "one after the other, each at a multiple of 256"
    for there in kept:
        there.zero_()
    assert all(float(tensor.abs().sum()) > 0 for tensor in tensors), "they are copies"


def test_a_slab_that_is_full_is_followed_by_another(asked: list[int]) -> None:
    bus, third = CudaBus(GPU), torch.ones(SLAB // 3, dtype=torch.uint8)
    kept = [bus.pinned(third * number) for number in range(4)]
    assert asked == [SLAB, SLAB]
    assert [int(one[0]) for one in kept] == [int(one[-1]) for one in kept] == [0, 1, 2, 3]


def test_where_the_system_pins_no_more_the_tensor_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_size: int) -> Tensor:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(module, "_pinned_bytes", refuse)
    tensor = torch.randn(4)
    assert CudaBus(GPU).pinned(tensor) is tensor


@pytest.mark.skipif(not hasattr(torch.accelerator, "empty_host_cache"), reason="came with a later torch")
def test_pinned_memory_that_nobody_has_goes_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: emptied.append(f"waited for {device}"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append("GPU"))
    monkeypatch.setattr(torch.accelerator, "empty_host_cache", lambda: emptied.append("pinned"))
    give_back(torch.device("cpu"))
    assert emptied == []
    give_back(GPU)
    assert emptied == [f"waited for {GPU}", "GPU", "pinned"]
