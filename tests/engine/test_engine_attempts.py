"""A job in which memory runs out is made once more in a leaner way, and the picture is the same."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_runs import QUICK, Run, make_engine, run, run_until

from webui.engine import Engine, denoise
from webui.engine.checkpoints import models
from webui.engine.conditioning.text import PromptEncoder
from webui.engine.latents.vae import Vae
from webui.engine.memory.residency import Residency
from webui.events import Started, Step
from webui.params import make_params
from webui.settings import MemoryMode

SMALL = {"width": 64, "height": 64, "steps": 3}


def full_at(owner: Any, name: str, calls: set[int], seen: Callable[[], None] = lambda: None) -> tuple[Any, str, Any]:
    """What to patch so that memory runs out in these calls of a method, counted from 1; `seen` is told each call."""
    real, count = getattr(owner, name), 0

    def method(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        seen()
        if count in calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(*arguments, **named)

    return owner, name, method


@pytest.fixture(scope="module")
def plain(engine: Engine) -> Run:
    return run(engine, **SMALL)


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (denoise.UnetEvaluator, "__call__", {2}),
        (PromptEncoder, "_run", {1}),
        (Vae, "decode_raw", {1, 2}),  # in one piece, and in what is the smallest tile
    ],
)
def test_memory_that_runs_out_once_costs_time_and_a_word(
    engine: Engine,
    plain: Run,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: Any,
    name: str,
    calls: set[int],
) -> None:
    engine._tools.chunks.clear()
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(*full_at(owner, name, calls))
        made = run(engine, **SMALL)
    assert made.digests == plain.digests
    assert [w.code for w in made.warnings] == ["memory"]
    assert "ran out of memory" in made.warnings[0].text
    assert "Tried to allocate 2.00 GiB" in caplog.text
    assert len(made.of(Started)) == 1
    after = run(engine, **SMALL)
    assert (after.digests, after.warnings) == (plain.digests, [])


def test_F03_memory_that_runs_out_while_a_checkpoint_is_read_is_tried_again(
    data_dir: Path, plain: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(data_dir)
    with monkeypatch.context() as patch:
        patch.setattr(*full_at(models, "fill", {1}))
        assert run(engine, **SMALL).digests == plain.digests
    engine.close()


def test_what_is_finished_is_not_made_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two batches of two pictures the third picture fails."""
    wanted = {**SMALL, "batch_size": 2, "batch_count": 2}
    plain = run(engine, **wanted)
    with monkeypatch.context() as patch:
        patch.setattr(*full_at(Vae, "decode_raw", {4, 5}))
        made = run(engine, **wanted)
    assert made.digests == plain.digests
    assert [image.index for image in made.images] == [0, 1, 2, 3]
    assert len({image.path for image in made.images}) == 4
    assert made.finished.pictures == 4
    steps = [(step.batch, step.step) for step in made.of(Step)]
    assert steps == [(batch, step) for batch in (1, 2, 2) for step in (1, 2, 3)]


def test_F06_a_job_that_runs_once_more_goes_on_behind_what_was_saved(engine: Engine) -> None:
    wanted = make_params({**QUICK, **SMALL, "batch_count": 3})
    plain = Run(list(engine.generate(wanted)))
    first, gone, _ = plain.images
    Path(gone.path).unlink()
    again = Run(list(engine.generate(wanted, made=(first, gone))))
    assert again.digests == plain.digests
    assert again.images[0] == first
    assert [step.batch for step in again.of(Step)] == [2] * 3 + [3] * 3
    assert again.finished.pictures == 3


def test_a_job_that_is_interrupted_as_memory_runs_out_ends(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(*full_at(denoise.UnetEvaluator, "__call__", {2}, lambda: calls.append(1)))
    ended = run_until(engine, lambda event, control: control.interrupt() if isinstance(event, Step) else None, **SMALL)
    assert len(calls) <= 2
    assert ended.images == [] or ended.finished.interrupted


def test_on_a_gpu_the_second_try_has_one_network_there_at_a_time_and_the_next_job_all_of_them(
    data_dir: Path, engine: Engine, plain: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU stands in for the GPU: nothing is saved, but everything is done."""
    from engine_runs import pixels_of

    own = make_engine(data_dir)
    residency = own._tools.residency
    modes: list[tuple[MemoryMode, int]] = []
    real = denoise.UnetEvaluator._predict

    def predict(self: Any, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        modes.append((residency.mode, x.shape[0]))
        return real(self, x, t)

    monkeypatch.setattr(Residency, "offloads", True)
    monkeypatch.setattr("webui.engine.fitting.free_memory", lambda _device: 0)
    monkeypatch.setattr(denoise.UnetEvaluator, "_predict", predict)
    with monkeypatch.context() as patch:
        patch.setattr(*full_at(denoise.UnetEvaluator, "__call__", {2}))
        made = run(own, **SMALL)
    assert modes == [(MemoryMode.normal, 2)] + [(MemoryMode.medvram, 1)] * 6  # prompt and negative prompt apart
    assert "one network on the GPU at a time" in made.warnings[0].text
    assert abs(pixels_of(made.images[0]).astype(int) - pixels_of(plain.images[0])).max() <= 2
    modes.clear()
    assert run(own, **SMALL).digests == plain.digests
    assert modes == [(MemoryMode.normal, 2)] * 3
    own.close()
