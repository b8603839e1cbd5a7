"""`app.py bench`: every peer runs on the same weights and has its row. Nothing here looks at how fast."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from embedded import EMBEDDED_CHECKPOINT, link_or_copy
from PIL import Image

from benchmarks import bench as module
from benchmarks.bench import PeerProcess, Row, tell_differences
from benchmarks.peers import serve
from webui.cli.bench import CaseKind, Options, PeerKind
from webui.paths import REPO_ROOT, Paths


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    there = folder / "models" / "Stable-diffusion"
    there.mkdir(parents=True)
    for suffix in (".safetensors", ".yaml"):
        source = EMBEDDED_CHECKPOINT.with_suffix(suffix)
        if source.exists():
            link_or_copy(source, there / source.name)
    return folder


class ThreadPeer(PeerProcess):
    """A peer at the other end of the same pipe, in this process: it has all the imports already."""

    def __init__(self, kind: str, paths: Paths, checkpoint: str, use_cpu: bool, threads: int) -> None:
        self._connection, theirs = Pipe()
        self._thread = Thread(target=serve, args=(theirs, kind, paths, checkpoint, use_cpu, threads))
        self._thread.start()

    def close(self) -> None:
        self._connection.send("stop")
        self._thread.join()
        self._connection.close()


def options(models: Path, **fields: Any) -> Options:
    usual: dict[str, Any] = {field.name: "" for field in dataclasses.fields(Options)}
    usual |= {"quick": True, "use_cpu": True, "data_dir": str(models), "case": ("unet", "picture"), "batch": (1,)}
    usual |= {"peer": ("diffusers", "ours"), "side": (), "steps": 2, "rounds": 1, "threads": 0}
    return Options(**(usual | fields))


def test_a_quick_run_measures_ours_beside_diffusers(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "PeerProcess", ThreadPeer)
    report = module.bench(options(models), Paths.under(models), EMBEDDED_CHECKPOINT.name)
    rows = {(row.case, row.peer.rpartition(", ")[0]): row for row in report.rows}
    assert {peer for _, peer in rows} == {"diffusers", "ours"}
    assert len(rows) == 4
    told = capsys.readouterr().out
    for (case, peer), row in rows.items():
        assert not row.error, row
        assert row.seconds > 0, row
        assert row.peak_bytes > 2**20, row
        assert case in told
        assert peer in told
    firsts = [row.ratio for (_, peer), row in rows.items() if peer == "diffusers"]
    assert firsts == [1.0, 1.0]
    assert report.machine["device"] == "cpu"
    assert all(flops > 1e6 for flops in report.ceilings.values())


@pytest.mark.timeout(600)  # three processes that import torch
def test_the_command_starts_its_peers_and_writes_its_figures(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    words = ("--quick", "--use-cpu", "--data-dir", str(models), "--json", str(file), "--peer", "ours", "--case", "text")
    command = [sys.executable, "-m", "webui", "bench", *words]
    done = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    (row,) = report["rows"]
    assert row["peer"].startswith("ours")
    assert row["seconds"] > 0
    assert row["case"] in done.stdout


def test_a_name_that_is_no_checkpoint_is_told_on_one_line(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "quiet_environment", lambda: None)
    assert module.main(options(models, checkpoint="nothing-like-it")) == 1
    told = capsys.readouterr().err
    assert "nothing-like-it" in told
    assert len(told.strip().splitlines()) == 1


def test_a_peer_is_asked_only_what_it_can_do() -> None:
    able = {kind: {case.value for case in CaseKind if module.is_able(kind, case)} for kind in PeerKind}
    assert able["ours"] == able["diffusers"] == {case.value for case in CaseKind}
    assert able["fast"] == {"picture"}
    assert able["openvino"] == {"unet", "decode"}
    assert able["sdcpp"] == {"picture"}


class Shown:
    """A peer that has a picture to show."""

    def __init__(self, grey: int) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(buffer, "PNG")
        self.ask = {"picture": buffer.getvalue()}.__getitem__


def test_a_picture_that_is_not_exact_is_told_by_its_distance_from_the_exact_one() -> None:
    peers: dict[str, Any] = {"diffusers": Shown(0), "ours": Shown(100), "fast": Shown(110), "int8": Shown(101)}
    rows = {kind: Row("whole run", kind) for kind in peers}
    tell_differences(rows, peers)
    assert rows["fast"].difference == pytest.approx(28.13, abs=0.01)  # 20 log10(255 / 10)
    assert rows["int8"].difference == pytest.approx(48.13, abs=0.01)
    assert rows["ours"].difference == rows["diffusers"].difference == 0
