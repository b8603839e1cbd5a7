"""What the engine keeps from job to job can be seen and cleared, and the next job is as before."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_runs import make_engine, run
from face_models import STAND_INS
from network_files import write_lora
from picture_inputs import keep, scene
from safetensors.torch import save_file

from webui.caches import CACHES, CacheState
from webui.engine import Engine
from webui.errors import NotFound

SMALL = {"width": 64, "height": 64, "steps": 2}


def states(engine: Engine) -> dict[str, CacheState]:
    return {cache.name: cache for cache in engine.caches()}


def test_every_cache_tells_its_size_and_its_bound_and_can_be_cleared(data_dir: Path) -> None:
    engine = make_engine(data_dir)
    assert all((cache.entries, cache.bytes) == (0, 0) for cache in engine.caches())
    write_lora(engine, "warm")
    wanted: dict[str, Any] = {**SMALL, "prompt": "a red apple <lora:warm:0.8>"}
    made = run(engine, **wanted)
    assert made.warnings == []
    before = states(engine)
    assert list(before) == list(CACHES)
    assert before["checkpoints"].held == engine.loaded
    assert before["networks"].held == ("warm.safetensors",)
    for name in ("checkpoints", "loras", "networks", "prompts"):
        assert before[name].entries >= 1
        assert before[name].bytes > 0
    assert all(cache.most or cache.limit for cache in before.values())
    for name in ("prompts", "loras", "networks"):
        engine.clear([name])
        now = states(engine)
        assert (now[name].entries, now[name].bytes) == (0, 0)
        assert now["checkpoints"] == before["checkpoints"], "the others stay"
        assert run(engine, **wanted).digests == made.digests
    unet = weakref.ref(engine._tools.store.checkpoints[0].unet)
    engine.clear()
    assert all((cache.entries, cache.bytes) == (0, 0) for cache in engine.caches())
    gc.collect()
    assert unet() is None
    assert run(engine, **wanted).digests == made.digests
    engine.close()


def test_an_upscaler_of_another_package_is_told_too(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STAND_INS))
    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    folder = data_dir / "models" / "ESRGAN"
    folder.mkdir(parents=True)
    save_file({"layers.weight": torch.ones(1)}, folder / "swin.safetensors")
    engine = make_engine(data_dir)
    source = keep(data_dir / "outputs", scene(24, 16))
    made = run(engine, extras={"upscaler": "swin", "scale": 2.0, "image": source})
    assert (made.images[0].width, made.images[0].height) == (48, 32)
    held = states(engine)["upscalers"]
    assert (held.held, held.bytes) == (("swin.safetensors",), 4)
    engine.close()


def test_a_cache_that_is_none_is_refused_with_those_that_are(engine: Engine) -> None:
    with pytest.raises(NotFound, match="prompts"):
        engine.clear(["prompt"])
