"""Which networks are on the device, and when: they come from pinned memory and leave it as they were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_runs import make_engine, run
from family_runs import Models
from recording_bus import CPU, RecordingBus
from torch import Tensor

from webui.engine.conditioning.text import ChunkCache, Conditioning, PromptEncoder
from webui.engine.memory.residency import Residency
from webui.engine.memory.streaming import SLOTS
from webui.engine.networks.attachment import AttachmentSwitch, ChangedWeights
from webui.prompt import chunk_text, clip_tokenizer, parse_prompt
from webui.settings import MemoryMode

SIDE = 6


class OnGpu(Residency):
    """The processor stands in for a GPU: nothing is saved, but everything is done."""

    @property
    def offloads(self) -> bool:
        return True


def network(seed: int = 0) -> torch.nn.Sequential:
    """With buffers, of whole numbers too, and a weight whose channels lie last."""
    torch.manual_seed(seed)
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(128, 4)]
    net = torch.nn.Sequential(*layers).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    net[1].running_mean = torch.randn(8)
    return net


def deep(seed: int) -> torch.nn.Sequential:
    """The same with more layers behind it, so that three of them are the smaller part."""
    return torch.nn.Sequential(*network(seed), *(torch.nn.Linear(4, 4) for _ in range(60))).requires_grad_(False)


def picture() -> Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def tensors(net: torch.nn.Module) -> dict[str, Tensor]:
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


def places(net: torch.nn.Module) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in tensors(net).items()}


def content(net: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors(net).items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_network_is_borrowed_from_pinned_memory_and_given_back_without_a_copy() -> None:
    net, bus = network(), RecordingBus()
    expected, before, number = net(picture()), content(net), len(tensors(net))
    residency = Residency(CPU, MemoryMode.medvram, bus=bus)
    waiting: list[dict[str, int]] = []
    for _ in range(3):
        with torch.inference_mode():  # as the engine's thread is
            with residency.using(net):
                assert all(map(bus.has, tensors(net).values()))
                assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
                assert torch.equal(net(picture()), expected)
            residency.leave()
        assert not any(map(bus.has, tensors(net).values()))
        assert all(map(bus.is_pinned, tensors(net).values()))
        waiting.append(places(net))
    assert waiting[0] == waiting[1] == waiting[2]
    assert (bus.pins, bus.fetches, bus.held) == (number, 3, 0)
    assert same(content(net), before)
    assert torch.equal(net(picture()), expected)
    assert not any(tensor.is_inference() or tensor.data.is_inference() for tensor in tensors(net).values())


def test_what_adapters_put_in_place_meanwhile_stays_and_what_it_replaced_is_free_at_once() -> None:
    net, bus = network(), RecordingBus()
    net[3].bias = None
    residency = Residency(CPU, MemoryMode.medvram, bus=bus)
    with residency.using(net):
        before = bus.held
        other = torch.randn(4, 128)
        net[3].weight.data = other
        net[3].bias = torch.nn.Parameter(torch.ones(4))
        assert bus.held == before - other.nbytes
        changed = net(picture())
    residency.leave()
    assert net[3].weight.data_ptr() == other.data_ptr()
    assert torch.equal(net(picture()), changed)
    assert bus.held == 0
    with residency.using(net):
        assert bus.has(net[3].weight)
        assert bus.has(net[3].bias)
        assert torch.equal(net(picture()), changed)
    residency.leave()


@pytest.mark.parametrize("on_there", [False, True])
@pytest.mark.parametrize("off_there", [False, True])
def test_adapters_come_and_go_on_a_network_that_is_on_the_device_or_is_not(on_there: bool, off_there: bool) -> None:
    net, plain, bus = network(), network(), RecordingBus()
    changed = torch.randn(4, 128)
    switch = AttachmentSwitch(net, CPU)
    residency = Residency(CPU, MemoryMode.medvram, bus=bus)
    expected = net(picture())
    plain[3].weight.data = changed
    for key, there, right in (((1,), on_there, plain(picture())), ((), off_there, expected)):
        if there:
            with residency.using(net):
                switch.use(key, lambda: ChangedWeights({"3.weight": changed}))
        else:
            residency.leave()
            switch.use(key, lambda: ChangedWeights({"3.weight": changed}))
        with residency.using(net):
            assert torch.equal(net(picture()), right)
    residency.leave()
    assert torch.equal(net(picture()), expected)


def test_a_network_that_does_not_fit_stays_where_it_was() -> None:
    net, bus = network(), RecordingBus(size=1000)
    before = content(net)
    residency = Residency(CPU, MemoryMode.medvram, bus=bus)
    with pytest.raises(torch.OutOfMemoryError), residency.using(net):
        pass
    assert residency.here == ()
    assert same(content(net), before)
    assert (bus.fetches, bus.held) == (0, 0)


def test_a_network_that_comes_half_way_goes_back_as_a_whole() -> None:
    gpu = torch.device("cuda")

    class Network:
        """Two parameters, of which the second finds no room the first time."""

        places, full = [CPU, CPU], True

        def parameters(self) -> list[Any]:
            return [SimpleNamespace(device=place) for place in self.places]

        def to(self, device: torch.device | str) -> None:
            self.places[0] = torch.device(device)
            if self.places[0] == gpu and self.full:
                raise torch.OutOfMemoryError("the device is full")
            self.places[1] = self.places[0]

    net, residency = Network(), Residency(gpu, MemoryMode.normal, bus=RecordingBus())
    with pytest.raises(torch.OutOfMemoryError), residency.using(net):
        pass
    assert net.places == [CPU, CPU]
    net.full = False
    with residency.using(net):
        assert net.places == [gpu, gpu]


def test_medvram_has_one_network_on_the_device_at_a_time() -> None:
    unet, vae, bus = network(), network(1), RecordingBus()
    residency = Residency(CPU, MemoryMode.medvram, bus=bus)
    size = sum(tensor.nbytes for tensor in tensors(unet).values())
    for net in (unet, unet, vae, unet):
        with residency.using(net):
            assert bus.held == size
            assert residency.here == (net,)
    assert bus.fetches == 3
    residency.leave()
    assert bus.held == 0


def test_medvram_streams_what_is_too_much_of_a_large_network(monkeypatch: pytest.MonkeyPatch) -> None:
    width, depth = 16, 20
    torch.manual_seed(0)
    large = torch.nn.Sequential(*(torch.nn.Linear(width, width, bias=False) for _ in range(depth)))
    small, bus, x = network(), RecordingBus(), torch.randn(2, width)
    layer = width * width * 4
    monkeypatch.setattr("webui.engine.memory.residency.MEDVRAM_RESIDENT", 12 * layer)
    expected = large(x)
    residency = Residency(CPU, MemoryMode.medvram, bus=bus)
    seen: list[int] = []
    large[10].register_forward_hook(lambda *_: seen.append(bus.held))
    for _ in range(2):
        for _ in range(3):
            with residency.using(large), torch.inference_mode():
                assert torch.equal(large(x), expected)
        assert residency.here == (large,)
        assert sum(bool(one._forward_pre_hooks) for one in large) == depth - 12
        with residency.using(small):
            assert not small[0]._forward_pre_hooks
            assert not any(one._forward_pre_hooks for one in large)
            assert bus.held == sum(tensor.nbytes for tensor in tensors(small).values())
        assert all(bus.is_pinned(one.weight) for one in large)
    assert len(seen) == 6
    assert max(seen) <= (12 + SLOTS) * layer
    residency.leave()
    assert bus.held == 0
    assert bus.pins == depth + len(tensors(small))


def test_lowvram_streams_the_network_in_use_and_gives_the_room_of_the_one_before_back() -> None:
    first, second, bus = deep(0), deep(3), RecordingBus()
    expected = first(picture()), second(picture())
    residency = Residency(CPU, MemoryMode.lowvram, bus=bus)
    for _ in range(2):
        for net, right in zip((first, second), expected, strict=True):
            with residency.using(net), torch.inference_mode():
                assert torch.equal(net(picture()), right)
            for one in (first, second):
                hooked = [bool(one[i]._forward_hooks) for i in (0, 1, 3)]
                assert hooked == [one is net, False, one is net], "the norm is small and stays while the network runs"
    residency.leave()
    assert not second[0]._forward_hooks
    assert bus.held == 0
    assert not any(tensor.is_inference() for tensor in tensors(second).values())


def test_a_network_of_few_layers_comes_as_a_whole_with_lowvram() -> None:
    """Places for three of its largest would take no less."""
    net, bus = network(), RecordingBus()
    residency = Residency(CPU, MemoryMode.lowvram, bus=bus)
    for _ in range(2):
        with residency.using(net):
            assert not net[0]._forward_hooks
            assert bus.held == sum(tensor.nbytes for tensor in tensors(net).values())
    assert bus.fetches == 1
    residency.leave()
    assert bus.held == 0


def test_a_job_may_be_more_frugal_than_the_settings_and_the_next_one_is_not() -> None:
    first, second = deep(0), deep(3)
    residency = Residency(CPU, MemoryMode.normal, bus=RecordingBus())
    with residency.at_least(MemoryMode.medvram, [first, second]):
        assert residency.mode is MemoryMode.medvram
        with residency.using(first), residency.using(second):
            assert residency.here == (second,)
        with residency.at_least(MemoryMode.lowvram, [first, second]), residency.using(first):
            assert first[0]._forward_hooks
            first(picture())
        assert residency.mode is MemoryMode.medvram
        assert not first[0]._forward_hooks
    assert (residency.mode, residency.here) == (MemoryMode.normal, ())
    with residency.at_least(MemoryMode.normal, [first]):
        assert residency.mode is MemoryMode.normal


def test_guests_come_at_their_first_use_and_leave_at_the_end_of_the_visit() -> None:
    first, second, third, bus = network(), network(1), network(2), RecordingBus()
    expected = [net(picture()) for net in (first, second)]
    residency = OnGpu(CPU, MemoryMode.normal, bus=bus)
    waiting = []
    for _ in range(2):
        with residency.visits(), torch.inference_mode():
            assert bus.held == 0
            for _ in range(2):
                for net, right in zip((first, second), expected, strict=True):
                    with residency.using(net):
                        assert bus.has(net[0].weight)
                        assert torch.equal(net(picture()), right)
            assert bus.has(first[0].weight)
        assert bus.held == 0
        waiting.append([places(net) for net in (first, second)])
    assert waiting[0] == waiting[1]
    assert bus.fetches == 4
    assert bus.pins == 2 * len(tensors(first))
    assert not any(map(bus.is_pinned, tensors(third).values()))
    with pytest.raises(ValueError), residency.visits(), residency.using(third):
        raise ValueError
    assert bus.held == 0
    with residency.using(first):  # who lives on the device is used without a visit
        assert not bus.has(first[0].weight)


def test_where_memory_is_short_a_visit_changes_nothing() -> None:
    first, second, bus = network(), network(1), RecordingBus()
    for mode, limit in ((MemoryMode.medvram, None), (MemoryMode.lowvram, None), (MemoryMode.normal, 10**9)):
        residency = OnGpu(CPU, mode, limit, bus=bus)
        with residency.visits():
            for net in (first, second):
                with residency.using(net):
                    pass
        assert residency.here == ((first, second) if limit else (second,))
        assert bus.held > 0
        residency.leave()
        assert bus.held == 0


def test_where_the_devices_memory_is_the_machines_a_visit_is_not_even_a_copy() -> None:
    net, bus = network(), RecordingBus()
    before = places(net)
    residency = Residency(CPU, MemoryMode.normal, bus=bus)
    with residency.visits(), residency.using(net):
        assert places(net) == before
    assert (bus.log, bus.pins, places(net)) == ([], 0, before)


def test_guests_live_in_ram_where_it_is_another_memory() -> None:
    gpu, mps = torch.device("cuda"), torch.device("mps")
    for device, mode, home, guests in (
        (gpu, MemoryMode.normal, gpu, CPU),
        (gpu, MemoryMode.medvram, CPU, CPU),
        (mps, MemoryMode.normal, mps, mps),
        (CPU, MemoryMode.normal, CPU, CPU),
    ):
        residency = Residency(device, mode)
        assert (residency.device, residency.home, residency.guest_home) == (device, home, guests)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    models = Models(tmp_path_factory.mktemp("guests"), ["sdxl"])
    yield models
    models.engine.close()


def test_both_text_encoders_of_sdxl_come_once_for_all_that_is_encoded(models: Models) -> None:
    checkpoint, bus = models.checkpoint("sdxl"), RecordingBus()
    before = [content(encoder.module) for encoder in checkpoint.text_encoders]

    def condition(residency: Residency, cache: ChunkCache, prompt: str) -> Conditioning:
        encoder = PromptEncoder(checkpoint.text_encoders, "model", cache, CPU, residency)
        plan = parse_prompt(prompt, "grey BREAK blurry", steps=4, tokenizer=clip_tokenizer())
        tokenizer = clip_tokenizer()
        options: Any = {"clip_skip": 1, "emphasis": "Original", "pad_conds": True}
        with torch.inference_mode():
            return encoder.condition(plan, lambda text: chunk_text(text, tokenizer), **options)

    there, guests, cache = Residency(CPU, MemoryMode.normal), OnGpu(CPU, MemoryMode.normal, bus=bus), ChunkCache()
    for prompt, fetches in (("a cat BREAK [red:blue:2] AND a dog", 2), ("a cat BREAK [red:blue:2]", 2), ("a fox", 4)):
        found, right = condition(guests, cache, prompt), condition(there, ChunkCache(), prompt)
        for call in range(4):
            for ours, theirs in zip(found.at(call, True), right.at(call, True), strict=True):
                assert torch.equal(ours, theirs)  # type: ignore[arg-type]
            assert torch.equal(found.pooled_at(call)[0], right.pooled_at(call)[0])  # type: ignore[index]
        assert (bus.fetches, bus.held) == (fetches, 0)
    assert [same(content(e.module), b) for e, b in zip(checkpoint.text_encoders, before, strict=True)] == [True, True]


def test_text_encoders_are_loaded_to_where_guests_live(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Residency, "guest_home", torch.device("meta"))  # a place that is no other's
    own = make_engine(models.root)
    list(own.load("sdxl"))
    [loaded] = own._tools.store.checkpoints
    homes = [{p.device.type for p in net.parameters()} for net in own._tools.store.networks]
    assert [{p.device.type for p in encoder.module.parameters()} for encoder in loaded.text_encoders] == [{"meta"}] * 2
    assert homes == [{"cpu"}, {"meta"}, {"meta"}, {"cpu"}]  # UNet, text encoders, VAE
    own.close()


def test_a_picture_is_the_same_whoever_is_a_guest(data_dir: Path, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"width": 64, "height": 64, "steps": 2}
    expected = run(engine, **small).digests
    bus = RecordingBus()
    monkeypatch.setattr("webui.engine.memory.residency.bus_to", lambda _device: bus)
    own = make_engine(data_dir)
    monkeypatch.setattr(Residency, "offloads", True)
    monkeypatch.setattr("webui.engine.fitting.free_memory", lambda _device: 0)
    assert run(own, **small).digests == expected
    assert (bus.fetches, bus.held) == (1, 0)
    assert run(own, **small, seed=7).digests == expected
    assert bus.fetches == 1  # its prompts are known
    own.close()
