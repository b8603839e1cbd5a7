"""Which device, which precision, which memory mode; and meters that tell the truth."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from engine_runs import make_engine, run

from webui.engine.compute import device as module
from webui.engine.compute.device import choose_device
from webui.engine.memory.residency import Residency
from webui.engine.memory.usage import PeakMeter, give_back, is_out_of_memory, read_memory
from webui.settings import DeviceSettings, MemoryMode, Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("fpu avx2 avx512f avx512_bf16", torch.bfloat16),
        ("fpu avx2 avx512f amx_bf16 amx_tile", torch.bfloat16),
        ("fp asimd bf16 i8mm", torch.bfloat16),
        ("fpu avx2 avx512f avx512_vnni", torch.float32),
        ("fpu avx2", torch.float32),
    ],
)
def test_a_cpu_computes_in_bf16_where_it_has_the_units(
    monkeypatch: pytest.MonkeyPatch, flags: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(module, "_cpuinfo", lambda key: flags if key == "flags" else "")
    chosen = choose_device(DeviceSettings(use_cpu=True))
    assert (chosen.kind, chosen.dtype, chosen.vae_dtype) == ("cpu", dtype, dtype)
    assert "the CPU was asked for" in chosen.reason.replace("The", "the")


def test_a_precision_that_was_asked_for_is_taken_with_a_word_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cpuinfo", lambda key: "fpu avx2" if key == "flags" else "")
    chosen = choose_device(DeviceSettings(use_cpu=True, precision=Precision.bf16, vae_precision=Precision.fp32))
    assert (chosen.dtype, chosen.vae_dtype) == (torch.bfloat16, torch.float32)
    assert "emulates" in chosen.reason


def test_memory_modes_are_for_cuda_alone() -> None:
    assert choose_device(DeviceSettings(use_cpu=True, memory=MemoryMode.lowvram)).memory is MemoryMode.normal


@pytest.mark.parametrize(("capability", "precision"), [((8, 0), "fp16"), ((5, 0), "fp32")])
def test_cuda_computes_in_fp16_where_it_can(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    class Properties:
        name = "A GPU"
        major, minor = capability

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    chosen = choose_device(DeviceSettings(memory=MemoryMode.medvram))
    assert (chosen.kind, chosen.name, chosen.precision) == ("cuda", "A GPU", precision)
    assert chosen.memory is MemoryMode.medvram
    assert choose_device(DeviceSettings(precision=Precision.bf16)).precision == "bf16"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions_make_nearly_the_same_picture(data_dir: Any, engine: Any, precision: str) -> None:
    import numpy as np
    from engine_runs import pixels_of

    own = make_engine(data_dir, device__precision=precision)
    half = pixels_of(run(own, steps=6).images[0]).astype(int)
    whole = pixels_of(run(engine, steps=6).images[0]).astype(int)
    assert np.abs(half - whole).mean() < 6
    own.close()


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def test_within_a_limit_networks_stay_and_the_least_recently_used_go_first() -> None:
    first, second, third = network(), network(), network()  # 58 numbers each
    residency = Residency(CPU, MemoryMode.normal, limit=2 * 58 * 4)

    def use(*nets: Any) -> tuple[Any, ...]:
        for net in nets:
            with residency.using(net):
                pass
        return residency.here

    assert use(first, second) == (first, second)
    assert use(first, third) == (first, third)
    assert use(second) == (third, second)
    residency.leave()
    assert residency.here == ()
    alone = Residency(CPU, MemoryMode.medvram)
    with alone.using(first), alone.using(second):
        assert alone.here == (second,)
    assert Residency(CPU, MemoryMode.normal).home == CPU


@pytest.mark.parametrize("mode", [MemoryMode.medvram, MemoryMode.lowvram])
def test_frugal_modes_make_the_same_picture(
    data_dir: Any, engine: Any, monkeypatch: pytest.MonkeyPatch, mode: MemoryMode
) -> None:
    """On the CPU nothing is saved by them, but everything they do is done."""
    chosen = dataclasses.replace(choose_device(DeviceSettings(precision=Precision.fp32)), memory=mode)
    monkeypatch.setattr("webui.engine.engine.choose_device", lambda _: chosen)
    own = make_engine(data_dir)
    for _ in range(2):
        assert run(own, width=64, height=64).digests == run(engine, width=64, height=64).digests
    own.close()


def test_the_peak_is_that_of_its_own_time() -> None:
    meter = PeakMeter(CPU)
    start = read_memory(CPU).used
    block = torch.ones(100 * 2**18)  # 100 MiB
    meter.sample()
    del block
    give_back(CPU)  # an engine in this process keeps freed memory for its next step
    assert meter.peak >= start + 90 * 2**20
    assert PeakMeter(CPU).peak < meter.peak - 50 * 2**20  # begins anew
    assert read_memory(CPU, meter.peak).peak == meter.peak


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_missing_memory_is_recognised_in_all_its_forms(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_a_lost_gpu_is_told_apart_from_a_defect() -> None:
    from webui.engine.engine import _fault
    from webui.errors import DeviceLost, EngineFault

    lost = RuntimeError("CUDA error: an illegal memory access was encountered")
    assert isinstance(_fault(lost, "cuda"), DeviceLost)
    assert isinstance(_fault(RuntimeError("shapes do not match"), "cuda"), EngineFault)
    assert isinstance(_fault(lost, "cpu"), EngineFault)
