"""The benchmark for GPUs, without one: its sections on small models and doubles, its table, and what it says here."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from embedded import install_embedded
from PIL import Image

from benchmarks import gpu
from benchmarks.cases import Case
from benchmarks.measuring import Cost
from webui.cli.bench import CaseKind
from webui.engine.compute.device import DeviceChoice, choose_device
from webui.engine.compute.graphs import Recording
from webui.settings import DeviceSettings, Precision

SIDE = 64


@pytest.fixture
def device() -> DeviceChoice:
    return choose_device(DeviceSettings(use_cpu=True, precision=Precision.fp32))


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gpu.Models:
    """The embedded checkpoint in the place of the large ones, and pictures as small."""

    monkeypatch.setattr(gpu, "MODEL_SIDES", {"sd15": SIDE, "sdxl": SIDE})
    monkeypatch.setattr(gpu, "MEMORY_STEPS", 1)
    monkeypatch.setattr(gpu, "STEPS", 2)
    monkeypatch.setattr(gpu, "IN_TURN", 2)
    monkeypatch.setattr(gpu, "RECORDED", ((0.5, 1), (1.0, 2)))
    monkeypatch.setattr(gpu, "RECORD_SECONDS", 1e6)  # how fast it is, this machine cannot know
    monkeypatch.setattr(gpu, "HEADS", {"sd15": ((2, 16, 40),)})
    monkeypatch.setattr(gpu, "LIMITS_GB", {"sd15": {"normal": 1e-6}})
    file = install_embedded(tmp_path)
    return gpu.Models(tmp_path, {family: lambda _folder: file for family in ("sd15", "sdxl")})


class Recorder:
    """Runs the work once, and keeps its answer."""

    def record(self, work: Any) -> Recording:
        return Recording(work(), lambda: None, 1000)


def test_every_section_but_the_comparison_runs_on_a_small_model(
    models: gpu.Models, device: DeviceChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "recorder_for", lambda _device, wanted: Recorder() if wanted else None)
    monkeypatch.setattr(gpu, "_unet", cache(gpu._unet))
    told: list[str] = []
    report = gpu.measure(("graphs", "waits", "job", "memory", "attention", "operations"), models, device, told.append)
    assert report.missed == {}
    by_section: dict[str, list[gpu.Line]] = {}
    for line in report.lines:
        by_section.setdefault(line.section, []).append(line)
    assert [line.kept for line in by_section["graphs"]] == [True] * 2
    assert "64x64, batch 2" in by_section["graphs"][1].what
    assert by_section["waits"][0].value == 0
    one, two, further = by_section["job"]
    assert two.value - one.value == further.value
    assert "sample" in two.note
    assert len([*models.paths.outputs.rglob("*.png")]) == 1 + gpu.ROUNDS * (1 + 2)
    assert [line.kept for line in by_section["memory"]] == [False], "no picture fits into a kilobyte"
    assert {line.what.rpartition(": ")[2] for line in by_section["attention"]} == {"sdpa", "sliced"}
    assert all(line.kept for line in by_section["attention"])
    assert by_section["operations"][0].value > 0
    table = gpu.markdown(report)
    assert device.name in table
    assert all(line.what in table for line in report.lines)
    assert any("memory: " in line for line in told)


class Peer:
    """Takes its time as told, and says so."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def ask(self, message: Any) -> Any:
        return 3 * 10**9 if message == "peak" else Cost(self._seconds, self._seconds)


def test_peers_are_held_against_the_first_and_against_the_ceiling() -> None:
    peers = {"diffusers": Peer(2.0), "ours": Peer(0.5)}
    whole = list(gpu.compared(Case(CaseKind.picture, 512, 1, 20), peers, work=10**12, ceiling=4e12))
    assert [(line.value, line.kept) for line in whole] == [(10.0, None), (40.0, True)]
    assert "4.00 times stock, 50% of the ceiling, peak 3.00 GB" in whole[1].note
    step = list(gpu.compared(Case(CaseKind.unet, 512, 8), peers, work=10**12, ceiling=10e12))
    assert [(line.value, line.kept) for line in step] == [(0.5, None), (2.0, False)], "20 % are below 45 %"


class Painter(Peer):
    """A peer that has a picture to show."""

    def __init__(self, seconds: float, grey: int) -> None:
        super().__init__(seconds)
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(buffer, "PNG")
        self._picture = buffer.getvalue()

    def ask(self, message: Any) -> Any:
        return self._picture if message == "picture" else super().ask(message)


def test_weights_of_eight_bits_are_told_with_what_they_change(
    models: gpu.Models, device: DeviceChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    painters = {"ours": Painter(0.5, 100), "int8": Painter(0.25, 101), "float8": Painter(1.0, 110)}
    asked: list[str] = []

    def peer(kind: str, *_: Any) -> Any:
        asked.append(kind)
        return SimpleNamespace(ask=painters[kind].ask, close=lambda: None)

    monkeypatch.setattr(gpu, "PeerProcess", peer)
    step, picture = list(gpu.weights(models, device))[1::3]
    assert asked == ["ours", "int8", "float8"]
    assert (step.what, step.value, step.note) == ("UNet step 64x64, batch 1: int8", 4.0, "0.250 s, peak 3.00 GB")
    assert picture.what == "whole run 64x64, 2 steps: int8"
    assert picture.note.endswith("48.1 dB from exact")


def test_a_section_that_fails_is_told_and_the_others_still_run(
    models: gpu.Models, device: DeviceChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_models: gpu.Models, _device: DeviceChoice) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu, "memory", broken)
    report = gpu.measure(("memory", "attention"), models, device, lambda _line: None)
    assert report.missed == {"memory": "OutOfMemoryError: CUDA out of memory"}
    assert {line.section for line in report.lines} == {"attention"}
    assert "CUDA out of memory" in gpu.markdown(report)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 1
    assert "no CUDA GPU" in capsys.readouterr().err
