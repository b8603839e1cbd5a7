"""A network that comes to the device layer by layer: in order, ahead of its turn, in a bounded room, and unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from webui.engine.residency import Residency
from webui.engine.streaming import SLOTS, CudaBus, LayerStream, PlainBus
from webui.settings import MemoryMode

CPU = torch.device("cpu")
WIDTH, DEPTH = 8, 6


class RecordingBus(PlainBus):
    """A device with streams, in slow motion: what is fetched arrives when it is waited for, and everything is noted."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.log: list[str] = []
        self._pinned: dict[int, Tensor] = {}
        self._due: dict[int, Any] = {}
        self._marks = 0
        self._marked: set[int] = set()

    def pinned(self, tensor: Tensor) -> Tensor:
        if tensor.data_ptr() in self._pinned:
            return tensor
        kept = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)
        self._pinned[kept.data_ptr()] = kept
        return kept

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: Any) -> int:
        if after is not None:
            assert after in self._marked, "it waits for something that nobody has begun"
        for target, _ in pairs:
            target.fill_(float("nan"))
        self._marks += 1
        self._due[self._marks] = list(pairs)
        self.log.append(f"fetch {self._marks}")
        return self._marks

    def await_(self, mark: int) -> None:
        for target, source in self._due.pop(mark, ()):
            target.copy_(source)
        self.log.append(f"await {mark}")

    def mark(self) -> int:
        self._marks += 1
        self._marked.add(self._marks)
        self.log.append(f"mark {self._marks}")
        return self._marks


def network(depth: int = DEPTH) -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for _ in range(depth):
        layers += [torch.nn.Linear(WIDTH, WIDTH), torch.nn.GELU()]
    return torch.nn.Sequential(*layers)


def linears(net: torch.nn.Sequential) -> list[torch.nn.Linear]:
    return [layer for layer in net if isinstance(layer, torch.nn.Linear)]


@pytest.fixture
def streamed() -> tuple[torch.nn.Sequential, LayerStream, RecordingBus, Tensor, Tensor]:
    net, bus = network(), RecordingBus()
    x = torch.randn(2, WIDTH)
    with torch.inference_mode():
        expected = net(x)
    stream = LayerStream(bus)
    stream.attach(net, CPU)
    return net, stream, bus, x, expected


def test_the_result_is_the_same_at_every_call(streamed: Any) -> None:
    net, _, _, x, expected = streamed
    for _ in range(3):
        with torch.inference_mode():
            assert torch.equal(net(x), expected)
    assert torch.equal(net(x), expected)  # and outside of inference mode


def test_from_the_second_call_on_each_layer_is_under_way_before_the_one_ahead_of_it_is_done(streamed: Any) -> None:
    net, _, bus, x, _ = streamed
    net(x)
    net(x)
    bus.log.clear()
    net(x)
    waits = [entry for entry in bus.log if entry.startswith("await")]
    assert len(waits) == DEPTH
    for wait in waits[1:]:
        fetch = f"fetch {wait.split()[1]}"
        begun, needed = bus.log.index(fetch) if fetch in bus.log else -1, bus.log.index(wait)
        done = max(i for i, entry in enumerate(bus.log[:needed]) if entry.startswith("mark"))
        assert begun < done < needed, "its copy began before the layer ahead of it was through"
    fetched = [entry for entry in bus.log if entry.startswith("fetch")]
    assert len(fetched) == DEPTH  # one a layer, the last of them for the next call's first


def test_the_device_never_holds_more_than_three_layers(streamed: Any) -> None:
    net, stream, _, x, _ = streamed
    layer = sum(p.nbytes for p in linears(net)[0].parameters())
    seen: list[int] = []
    for one in linears(net):
        one.register_forward_hook(lambda *_: seen.append(stream.held))
    for _ in range(2):
        net(x)
    assert max(seen) <= SLOTS * (layer + 2 * 256)  # each parameter begins at a multiple of 256
    assert len({p.data_ptr() for one in linears(net) for p in one.parameters()}) == 2 * DEPTH  # all are back in RAM


def test_weights_are_pinned_once(streamed: Any) -> None:
    net, _, bus, x, _ = streamed
    for _ in range(3):
        net(x)
    assert len(bus._pinned) == 2 * DEPTH


def test_a_layer_that_is_left_out_costs_a_copy_and_nothing_else(streamed: Any) -> None:
    net, _, _, x, _ = streamed
    net(x)
    short = torch.nn.Sequential(net[0], net[1], net[8], net[9])
    with torch.inference_mode():
        got = [short(x), net(x), short(x), net(x)]
    net, expected = network(), []
    with torch.inference_mode():
        short = torch.nn.Sequential(net[0], net[1], net[8], net[9])
        expected = [short(x), net(x)] * 2
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_weights_that_a_lora_changes_between_two_layers_are_fetched_anew(streamed: Any) -> None:
    net, _, _, x, expected = streamed
    net(x)
    second = linears(net)[1]
    own = second.weight.data

    def change(*_: Any) -> None:  # its copy is under way already
        second.weight.data = own * 2

    handle = net[1].register_forward_hook(change)
    changed = net(x)
    handle.remove()
    plain = network()
    linears(plain)[1].weight.data *= 2
    assert torch.equal(changed, plain(x))
    second.weight.data = own
    assert torch.equal(net(x), expected)


def test_a_layer_that_fails_is_put_back(streamed: Any) -> None:
    net, stream, _, x, expected = streamed
    with pytest.raises(RuntimeError):
        net(torch.ones(1, WIDTH + 1))
    assert torch.equal(net(x), expected)
    stream.detach()
    assert stream.held == 0
    assert torch.equal(net(x), expected)
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in net)


def test_weights_keep_their_layout_on_the_device() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.Conv2d(8, 4, 3))
    net.to(memory_format=torch.channels_last)
    seen: list[bool] = []
    x = torch.randn(1, 4, 8, 8)
    expected = net(x)
    LayerStream(RecordingBus()).attach(net, CPU)
    for layer in net:
        layer.register_forward_hook(
            lambda module, *_: seen.append(module.weight.is_contiguous(memory_format=torch.channels_last))
        )
    assert torch.equal(net(x), expected)
    assert seen == [True, True]


def test_lowvram_streams_the_network_in_use_and_gives_the_room_of_the_one_before_back() -> None:
    first, second, x = network(), network(3), torch.randn(1, WIDTH)
    expected = first(x), second(x)
    residency = Residency(CPU, MemoryMode.lowvram, bus=RecordingBus())
    for _ in range(2):
        for net, right in zip((first, second), expected, strict=True):
            with residency.using(net), torch.inference_mode():
                assert torch.equal(net(x), right)
            assert sum(bool(layer._forward_hooks) for layer in linears(first)) in (0, DEPTH)
            assert bool(first[0]._forward_hooks) is (net is first)
    residency.leave()
    assert not second[0]._forward_hooks


def test_a_job_may_be_more_frugal_than_the_settings_and_the_next_one_is_not() -> None:
    first, second, x = network(), network(3), torch.randn(1, WIDTH)
    residency = Residency(CPU, MemoryMode.normal, bus=RecordingBus())
    with residency.at_least(MemoryMode.medvram, [first, second]):
        assert residency.mode is MemoryMode.medvram
        with residency.using(first), residency.using(second):
            assert residency.here == (second,)
        with residency.at_least(MemoryMode.lowvram, [first, second]), residency.using(first):
            assert first[0]._forward_hooks
            first(x)
        assert residency.mode is MemoryMode.medvram
        assert not first[0]._forward_hooks
    assert (residency.mode, residency.here) == (MemoryMode.normal, ())
    with residency.at_least(MemoryMode.normal, [first]):
        assert residency.mode is MemoryMode.normal


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_streaming_is_right_bounded_and_costs_little_more_than_the_bus() -> None:
    device, width, depth = torch.device("cuda"), 4096, 24
    layers = [torch.nn.Linear(width, width, bias=False, dtype=torch.float16) for _ in range(depth)]
    net = torch.nn.Sequential(*layers)
    x = torch.randn(256, width, device=device, dtype=torch.float16)
    there = torch.nn.Sequential(*layers).to(device)
    with torch.inference_mode():
        expected = there(x)
    net.to("cpu")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    stream = LayerStream(CudaBus(device))
    stream.attach(net, device)
    layer = width * width * 2
    with torch.inference_mode():
        net(x)
        torch.cuda.reset_peak_memory_stats()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        got = net(x)
        end.record()
        torch.cuda.synchronize()
        assert torch.equal(got, expected)
        assert torch.cuda.max_memory_allocated() - before < (SLOTS + 0.5) * layer
        room, source = torch.empty_like(x[:1].expand(width, -1)), torch.empty(width, width, dtype=x.dtype).pin_memory()
        alone, over = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        alone.record()
        for _ in range(depth):
            room.copy_(source, non_blocking=True)
        over.record()
        torch.cuda.synchronize()
    assert begin.elapsed_time(end) < 1.5 * alone.elapsed_time(over)
