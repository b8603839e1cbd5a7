"""A network that comes to the device layer by layer: in order, ahead of its turn, in a bounded room, and unchanged."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from recording_bus import RecordingBus
from torch import Tensor

from webui.engine.memory.bus import CudaBus
from webui.engine.memory.streaming import SLOTS, LayerStream, staying

WIDTH, DEPTH = 8, 6


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
    stream.attach(net)
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
    assert bus.pins == 2 * DEPTH


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


def test_a_layer_for_which_there_was_no_room_is_fetched_the_next_time() -> None:
    net, bus, x = network(2), RecordingBus(), torch.randn(2, WIDTH)
    expected, room = net(x), bus.room
    stream = LayerStream(bus)
    stream.attach(net)

    def full(_size: int) -> Tensor:
        bus.room = room  # type: ignore[method-assign]
        raise torch.OutOfMemoryError("the device is full")

    bus.room = full  # type: ignore[method-assign]
    with pytest.raises(torch.OutOfMemoryError):
        net(x)
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
    LayerStream(RecordingBus()).attach(net)
    for layer in net:
        layer.register_forward_hook(
            lambda module, *_: seen.append(module.weight.is_contiguous(memory_format=torch.channels_last))
        )
    assert torch.equal(net(x), expected)
    assert seen == [True, True]


def in_part(depth: int = 30, share: float = 0.6) -> tuple[torch.nn.Sequential, int, LayerStream, RecordingBus]:
    """A network, of which about `share` may stay on the device, how many bytes that is, and what streams it."""
    net, bus = network(depth), RecordingBus()
    room = int(share * sum(p.nbytes for p in net.parameters()))
    stream = LayerStream(bus)
    stream.attach(net, room)
    return net, room, stream, bus


def test_where_there_is_room_some_layers_stay_and_the_result_is_the_same() -> None:
    net, room, stream, bus = in_part()
    x = torch.randn(2, WIDTH)
    expected = network(30)(x)
    layer = sum(p.nbytes for p in linears(net)[0].parameters())
    seen: list[int] = []
    for one in linears(net):
        one.register_forward_hook(lambda *_: seen.append(bus.held))
    assert room - layer < bus.held <= room
    for fetches in (12, 13, 12):  # one for each layer that does not stay; from the second call on for the next one, too
        bus.log.clear()
        with torch.inference_mode():
            assert torch.equal(net(x), expected)
        assert bus.fetches == fetches
    assert max(seen) <= room + SLOTS * (layer + 2 * 256)
    stream.detach()
    assert (bus.held, stream.held) == (0, 0)
    assert all(bus.is_pinned(p) for p in net.parameters())
    assert bus.pins == 60
    assert torch.equal(net(x), expected)


def test_the_layers_that_do_not_stay_are_spread_evenly_and_each_comes_while_those_before_it_run() -> None:
    net, _, _, bus = in_part(share=0.8)
    away = [number for number, layer in enumerate(linears(net)) if layer._forward_pre_hooks]
    assert len(away) == 6
    assert {after - before for before, after in itertools.pairwise(away)} == {5}
    begun: list[tuple[int, int]] = []  # which layer ran, and how much had been fetched until then
    x = torch.randn(2, WIDTH)
    net(x)
    for number, one in enumerate(linears(net)):
        one.register_forward_hook(lambda *_, number=number: begun.append((number, bus.fetches)))
    bus.log.clear()
    net(x)
    for ahead, number in itertools.pairwise(away):
        assert dict(begun)[ahead] == dict(begun)[number - 1], "it was under way before the layers ahead of it ran"


def test_a_lora_may_change_layers_that_stay_and_others_while_the_network_is_on_the_device() -> None:
    net, _, stream, bus = in_part()
    x = torch.randn(2, WIDTH)
    net(x)
    plain = network(30)
    comes, stays = 0, 1
    assert [bool(linears(net)[i]._forward_hooks) for i in (comes, stays)] == [True, False]
    changed = [linears(net)[i].weight.data * 2 for i in (stays, comes)]
    for i, weight in zip((stays, comes), changed, strict=True):
        linears(plain)[i].weight.data *= 2
        linears(net)[i].weight.data = weight
    assert torch.equal(net(x), plain(x))
    stream.detach()
    assert linears(net)[stays].weight.data_ptr() == changed[0].data_ptr()
    assert torch.equal(net(x), plain(x))
    assert bus.held == 0


def test_small_layers_stay_and_of_the_others_as_many_bytes_of_every_part_give_or_take_a_layer() -> None:
    generator = random.Random(0)
    sizes = [generator.choice((1, 3, 900, 6400, 12_000, 30_000)) for _ in range(800)]
    large = [number for number, size in enumerate(sizes) if size >= 3000]
    total, rest = (sum(sizes[i] for i in numbers) for numbers in (large, set(range(800)) - set(large)))
    for share in (0.05, 0.5, 0.68, 0.95):
        stay = staying(sizes, rest + int(total * share))
        assert [number for number in range(800) if not stay[number]] == [n for n in large if not stay[n]]
        passed = held = 0
        for number in large:
            passed += sizes[number]
            held += sizes[number] if stay[number] else 0
            assert share * passed - 30_000 - 1 < held <= share * passed
    assert staying(sizes, sum(sizes)) == [True] * len(sizes)
    assert staying(sizes, 0) == [False] * len(sizes)
    assert staying([], 5) == []


def test_where_not_all_small_layers_find_room_the_smallest_do() -> None:
    sizes = [30, 10, 1000, 20] * 20
    there = sorted(size for size, stays in zip(sizes, staying(sizes, 300), strict=True) if stays)
    assert there == [10] * 20 + [20] * 5


def test_a_network_that_was_compiled_runs_as_it_is_while_it_is_streamed() -> None:
    net, bus, x = network(), RecordingBus(), torch.randn(2, WIDTH)
    expected, calls = net(x), list[int]()
    net._compiled_call_impl = lambda *given: calls.append(1) or net.forward(*given)
    stream = LayerStream(bus)
    stream.attach(net)
    assert torch.equal(net(x), expected)
    assert (calls, bus.fetches) == ([], DEPTH + 1)  # the first call fetches one layer twice
    stream.detach()
    net(x)
    assert calls == [1]


@pytest.mark.gpu
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
    stream.attach(net)
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
