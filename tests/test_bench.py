"""`app.py bench`: every peer runs on the same weights and has its row. Nothing here looks at how fast."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from embedded import EMBEDDED_CHECKPOINT, link_or_copy
from PIL import Image

from benchmarks.bench import Row, compared
from webui.paths import REPO_ROOT


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


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "webui", "bench", *words]
    return subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.timeout(900)  # three processes that import torch and diffusers
def test_a_quick_run_measures_ours_beside_diffusers(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    peers = ("--peer", "diffusers", "--peer", "ours")
    cases = ("--case", "unet", "--case", "picture")
    done = bench("--quick", "--use-cpu", "--data-dir", str(models), "--json", str(file), *peers, *cases)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    rows = {(row["case"], row["peer"].rpartition(", ")[0]): row for row in report["rows"]}
    assert {peer for _, peer in rows} == {"diffusers", "ours"}
    assert len(rows) == 4
    for (case, peer), row in rows.items():
        assert not row["error"], row
        assert row["seconds"] > 0, row
        assert row["peak_bytes"] > 2**20, row
        assert case in done.stdout
        assert peer in done.stdout
    firsts = [row["ratio"] for (_, peer), row in rows.items() if peer == "diffusers"]
    assert firsts == [1.0, 1.0]
    assert report["machine"]["device"] == "cpu"
    assert all(flops > 1e6 for flops in report["ceilings"].values())


def test_a_name_that_is_no_checkpoint_is_told_on_one_line(models: Path) -> None:
    done = bench("--quick", "--use-cpu", "--data-dir", str(models), "--checkpoint", "nothing-like-it")
    assert done.returncode == 1
    assert "nothing-like-it" in done.stderr
    assert "Traceback" not in done.stderr


class Shown:
    """A peer that has a picture to show."""

    def __init__(self, grey: int) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(buffer, "PNG")
        self.ask = {"picture": buffer.getvalue()}.__getitem__


def test_a_picture_that_is_not_exact_is_told_by_its_distance_from_the_exact_one() -> None:
    peers: dict[str, Any] = {"ours": Shown(100), "fast": Shown(110)}
    rows = {kind: Row("whole run", kind) for kind in peers}
    compared(rows, peers)
    assert rows["fast"].difference == pytest.approx(28.13, abs=0.01)  # 20 log10(255 / 10)
    assert rows["ours"].difference == 0
