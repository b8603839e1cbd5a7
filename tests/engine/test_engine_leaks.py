"""Nothing stays behind when checkpoints, LoRAs and VAEs take turns. benchmarks/leaks.py does the same for long."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_runs import make_engine
from family_models import RECIPES, write_checkpoint

from benchmarks.leaks import ROUND, add_lora, sampled, soak, switching, write_models
from webui.engine import Engine
from webui.engine.checkpoints.models import ModelStore
from webui.paths import REPO_ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture(scope="module")
def worn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that has seen every set once."""
    root = tmp_path_factory.mktemp("leaks")
    write_models(root, write_checkpoint(root / "small.safetensors", RECIPES["sd2"]))
    engine = make_engine(root)
    add_lora(engine, root)
    list(soak(engine, itertools.islice(switching(64), ROUND), ROUND))
    yield engine
    engine.close()


def test_F11_switches_of_checkpoint_lora_and_vae_leave_nothing_behind(worn: Engine) -> None:
    before, after = soak(worn, itertools.islice(switching(64), ROUND), ROUND)
    assert after.leaks(before) == []


def test_F12_many_pictures_leave_nothing_behind(worn: Engine) -> None:
    same = next(switching(64))
    list(soak(worn, itertools.repeat(same, 2), 2))
    before, after = soak(worn, itertools.repeat(same, 12), 12)
    assert after.leaks(before) == []


FIRST_JOB = """
import gc, sys
from pathlib import Path
from embedded import install_embedded
from engine_runs import make_engine, run
root = Path(sys.argv[1])
install_embedded(root)
engine = make_engine(root)
assert "diffusers" not in sys.modules, "the job has to be the first thing"
run(engine, steps=1, save=False)
engine.close()
gc.collect()
gc.unfreeze()
print([type(one).__name__ for one in gc.get_objects() if type(one).__name__ == "UNet2DConditionModel"])
"""


def test_the_networks_of_the_very_first_job_do_not_stay_for_good(tmp_path: Path) -> None:
    """Python's collector is told to leave the libraries alone when they are imported: not the job as well."""
    paths = [str(REPO_ROOT), str(REPO_ROOT / "tests"), str(REPO_ROOT / "tests" / "engine")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", FIRST_JOB, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_a_network_that_stays_is_found(worn: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this file measures with can fail: a stray reference, as to a hook or in a traceback."""
    kept: list[Any] = []
    real = ModelStore._load

    def load(self: ModelStore, *arguments: Any) -> Any:
        kept.append(real(self, *arguments).unet)
        return self.checkpoints[-1]

    before = sampled(0)
    monkeypatch.setattr(ModelStore, "_load", load)
    _, after = soak(worn, itertools.islice(switching(64), 3), 3)
    monkeypatch.undo()
    found = after.leaks(before)
    assert any("networks" in leak for leak in found)
    assert any("tensors" in leak for leak in found)


def test_files_and_memory_that_stay_are_found(tmp_path: Path) -> None:
    before = sampled(0)
    with (tmp_path / "left-open").open("w"):
        block = torch.ones(32 * 2**20)
        after = sampled(1)
        assert set(after.leaks(before, growth=1.0)) >= {"1 more open files", "1 more tensors"}
        assert any("more memory" in leak for leak in after.leaks(replace(before, resident=before.resident // 2)))
    del block
