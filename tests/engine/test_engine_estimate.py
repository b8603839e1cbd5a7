"""What a job is thought to need is near what it takes, and what follows from it where there is less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_runs import make_engine, pixels_of, run
from family_models import _VAE, RECIPES

from webui.engine import Engine
from webui.engine.checkpoints.loader import meta_unet, meta_vae
from webui.engine.checkpoints.models import ModelStore
from webui.engine.estimate import USABLE, Choice, Need, choose, unet_activations, vae_activations
from webui.engine.files.dims import UnetDims
from webui.engine.fitting import needed
from webui.engine.memory.residency import MEDVRAM_RESIDENT, Residency
from webui.engine.memory.streaming import SLOTS
from webui.engine.memory.weights import weigh
from webui.settings import MemoryMode

GB = 10**9
WIDE = UnetDims(4, 4, (64, 128, 256, 256), (1, 1, 1, 0), (4, 4, 4, 4), 2, 1, 64, False, 32, True)  # SD1's proportions
UNETS = {"SD1": WIDE, **{name: RECIPES[name].unet for name in ("sd2", "sdxl", "sdxl-refiner", "sd1-inpainting")}}


def taken(call: Callable[[], Any]) -> int:
    """The most bytes that torch's allocator had given out at once during the call, by its own account."""
    from torch.profiler import ProfilerActivity, profile

    with torch.inference_mode():
        call()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as account:
            call()
    events = account.profiler.kineto_results.events()  # type: ignore[union-attr]
    held = highest = 0
    for _, size in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        held += size
        highest = max(highest, held)
    return highest


def filled(module: Any, dtype: torch.dtype) -> Any:
    module = module.to_empty(device="cpu").to(dtype).to(memory_format=torch.channels_last).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter.data, std=0.02)
    return module


@pytest.mark.parametrize("name", UNETS)
def test_a_unet_call_takes_about_what_is_estimated(name: str) -> None:
    dims, side, pictures = UNETS[name], 24, 2
    unet = filled(meta_unet(dims), torch.float32)
    x = torch.randn(pictures, dims.in_channels, side, side).contiguous(memory_format=torch.channels_last)
    added = {}
    if dims.vector_dim:
        sizes = 5 if name.endswith("refiner") else 6
        pooled = torch.zeros(pictures, dims.vector_dim - sizes * dims.size_dim)
        added = {"text_embeds": pooled, "time_ids": torch.zeros(pictures, sizes)}
    prompt = torch.zeros(pictures, 77, dims.context_dim)
    measured = taken(lambda: unet(x, torch.tensor(5.0), encoder_hidden_states=prompt, added_cond_kwargs=added))
    assert 0.6 < unet_activations(dims, side, side, pictures, 4) / measured < 1.7


def test_a_decode_and_an_encode_take_about_what_is_estimated() -> None:
    vae = filled(meta_vae(_VAE), torch.float32)
    estimate = vae_activations(_VAE, 16, 16, 4)
    latents, pixels = torch.randn(1, 4, 16, 16), torch.randn(1, 3, 128, 128)
    assert 0.6 < estimate / taken(lambda: vae.decode(latents)) < 2.5
    assert 0.6 < estimate / taken(lambda: vae.encode(pixels)) < 2.5


def test_an_estimate_grows_with_the_picture_the_batch_and_the_numbers() -> None:
    one = unet_activations(WIDE, 64, 64, 1, 2)
    assert unet_activations(WIDE, 128, 64, 1, 2) == pytest.approx(2 * one, rel=0.01)
    assert unet_activations(WIDE, 64, 64, 4, 2) == pytest.approx(4 * one, rel=0.01)
    assert unet_activations(WIDE, 64, 64, 1, 4) == pytest.approx(2 * one, rel=0.01)
    assert unet_activations(WIDE, 64, 64, 1, 2, "sliced") > one


def test_SD15_at_512_is_where_it_is_known_to_be() -> None:
    """Of a guided step in fp16: about 0.2 GB beside 1.7 GB of weights, on any GPU."""
    sd15 = UnetDims(4, 4, (320, 640, 1280, 1280), (1, 1, 1, 0), (8, 8, 8, 8), 2, 1, 768, False, 32, True)
    assert 0.06 * GB < unet_activations(sd15, 64, 64, 2, 2) < 0.4 * GB


NEED = Need(unet=5 * GB, texts=2 * GB, vae=GB // 5, others=0, layer=GB // 20, step=4 * GB, least_step=GB, codec=GB)


@pytest.mark.parametrize(
    ("free", "mode", "apart"),
    [
        (0, MemoryMode.normal, False),  # nobody knows
        (11 * GB, MemoryMode.normal, False),  # 9.2 in all, and 0.9 of it counts
        (9 * GB, MemoryMode.normal, True),
        (6 * GB, MemoryMode.medvram, True),
        (4 * GB, MemoryMode.lowvram, True),
        (GB, MemoryMode.lowvram, True),  # it is tried
    ],
)
def test_the_least_frugal_way_that_fits_is_taken(free: int, mode: MemoryMode, apart: bool) -> None:
    chosen = choose(NEED, free, MemoryMode.normal)
    assert (chosen.mode, chosen.apart) == (mode, apart)


def test_a_job_is_never_less_frugal_than_the_settings_and_each_way_takes_less_than_the_one_before() -> None:
    assert choose(NEED, 99 * GB, MemoryMode.medvram).mode is MemoryMode.medvram
    assert choose(replace(NEED, step=GB), 8 * GB + 1, MemoryMode.normal).apart is False
    assert choose(replace(NEED, others=4 * GB), 12 * GB, MemoryMode.normal).mode is MemoryMode.medvram
    for apart in (False, True):
        peaks = [NEED.peak(mode, apart=apart) for mode in MemoryMode]
        assert peaks == sorted(peaks, reverse=True)


def test_text_encoders_count_while_nothing_else_runs() -> None:
    peak = NEED.peak(MemoryMode.normal, apart=False)
    assert replace(NEED, texts=NEED.step).peak(MemoryMode.normal, apart=False) == peak
    assert replace(NEED, texts=NEED.step + 5).peak(MemoryMode.normal, apart=False) == peak + 5
    assert replace(NEED, others=7).peak(MemoryMode.normal, apart=False) == peak + 7


def test_a_network_of_any_size_takes_no_more_than_its_bound_and_three_layers_with_medvram() -> None:
    def peak(unet: int) -> int:
        return replace(NEED, unet=unet).peak(MemoryMode.medvram, apart=False) - NEED.step

    bound = MEDVRAM_RESIDENT + SLOTS * NEED.layer
    assert peak(MEDVRAM_RESIDENT + 1) == MEDVRAM_RESIDENT + 1, "as a whole it takes less than layer by layer"
    assert peak(bound) == peak(bound + 1) == peak(9 * GB) == bound


def test_a_network_that_is_one_layer_for_the_most_part_comes_as_a_whole_with_lowvram() -> None:
    def peak(texts: int) -> int:
        alone = replace(NEED, unet=0, vae=0, step=0, codec=0, texts=texts)
        return alone.peak(MemoryMode.lowvram, apart=False)

    assert peak(3 * NEED.layer) == 3 * NEED.layer
    assert peak(40 * NEED.layer) == (SLOTS + 2) * NEED.layer


def test_SDXL_at_1024_in_fp16_is_within_what_is_promised() -> None:
    """Its networks, and what of a guided step and of a decode was measured."""
    sizes = {"unet": 5_140_000_000, "texts": 1_630_000_000, "vae": 170_000_000, "layer": 126_500_000}
    sdxl = Need(**sizes, others=0, step=600_000_000, least_step=300_000_000, codec=1_600_000_000)
    assert sdxl.peak(MemoryMode.normal, apart=False) < 7.5 * GB
    assert sdxl.peak(MemoryMode.medvram, apart=False) < 4.5 * GB


def test_what_was_decided_is_said_under_the_picture_and_in_the_log(
    data_dir: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The CPU stands in for a GPU of 50 MB, which the embedded model alone fills."""
    small = {"width": 64, "height": 64, "steps": 2}
    own = make_engine(data_dir)
    monkeypatch.setattr(Residency, "offloads", True)
    monkeypatch.setattr("webui.engine.fitting.free_memory", lambda _device: -50_000_000)  # beside the weights
    with caplog.at_level("INFO", logger="webui"):
        made = run(own, **small)
    assert [w.code for w in made.warnings] == ["memory"]
    assert "This job would take about 0.1 GB of GPU memory" in made.warnings[0].text
    assert made.warnings[0].text in caplog.text
    assert own._tools.residency.mode is MemoryMode.normal
    assert abs(pixels_of(made.images[0]).astype(int) - pixels_of(run(engine, **small).images[0])).max() <= 2
    monkeypatch.setattr("webui.engine.fitting.free_memory", lambda _device: GB)
    assert run(own, **small).warnings == []
    own.close()


def test_a_network_that_the_store_has_dropped_is_weighed_with_the_others(
    own_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, tools = {"width": 64, "height": 64, "steps": 2}, own_engine._tools
    expected, needs = run(own_engine, **small).digests, list[Need]()

    def choice_of(need: Need, *about: Any) -> Choice:
        needs.append(need)
        return choose(need, *about)

    monkeypatch.setattr(Residency, "offloads", True)
    monkeypatch.setattr("webui.engine.fitting.free_memory", lambda _device: GB)
    monkeypatch.setattr("webui.engine.fitting.choose", choice_of)
    for kept in (tools.store.networks, []):
        monkeypatch.setattr(ModelStore, "networks", kept)
        assert run(own_engine, **small).digests == expected
    assert needs[0] == needs[1]


def test_recorded_unets_make_room_for_a_job_that_does_not_fit_beside_them(
    own_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, tools = {"width": 64, "height": 64, "steps": 2}, own_engine._tools
    expected, asked, needs = run(own_engine, **small).digests, list[int](), list[Need]()

    def need_of(*about: Any) -> Need:
        needs.append(needed(*about))
        return needs[-1]

    def make_room(size: int) -> bool:
        asked.append(size)
        return True

    monkeypatch.setattr(Residency, "offloads", True)
    monkeypatch.setattr("webui.engine.fitting.free_memory", lambda _device: GB)
    monkeypatch.setattr("webui.engine.fitting.needed", need_of)
    monkeypatch.setattr(tools.graphs, "make_room", make_room)
    assert run(own_engine, **small).digests == expected
    there = sum(weigh(network, tools.device.device).there for network in tools.store.networks)
    assert there > 0
    assert asked[0] == int(needs[0].peak(MemoryMode.normal, apart=False) / USABLE) - there
