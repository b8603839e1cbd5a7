"""Interrupt and skip, at every step and between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from engine_runs import pixels_of, run, run_until

from webui.engine import Engine, denoise, job
from webui.engine.control import Control
from webui.events import Event, Finished, Image, Step

SMALL = {"width": 64, "height": 64}


def after_call(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> list[int]:
    """`act` when the denoiser has answered that many times, in the job's own thread; returns the calls as they come."""
    real, calls = denoise.UnetEvaluator.__call__, list[int]()

    def counting(self: Any, *arguments: Any) -> Any:
        result = real(self, *arguments)
        calls.append(len(calls) + 1)
        if len(calls) == number:
            act()
        return result

    monkeypatch.setattr(denoise.UnetEvaluator, "__call__", counting)
    return calls


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_F38_an_interrupt_at_any_step_keeps_the_picture_in_the_making(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    control = Control()
    after_call(monkeypatch, at, control.interrupt)
    done = run(engine, control, batch_count=3, **SMALL)
    assert len(done.steps) == at
    assert len(done.images) == 1
    assert done.finished.interrupted
    assert pixels_of(done.images[0]).std() > 0
    assert ("Stopped at step" in done.images[0].infotext) == (at < 4)
    assert run(engine, **SMALL).finished.interrupted is False


def test_an_interrupted_single_picture_counts_as_interrupted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control()
    after_call(monkeypatch, 2, control.interrupt)
    done = run(engine, control, **SMALL)
    assert (done.finished.pictures, done.finished.interrupted) == (1, True)


def test_F38_an_interrupt_before_the_start_makes_nothing_and_is_no_failure(engine: Engine) -> None:
    control = Control()
    control.interrupt()
    done = run(engine, control, **SMALL)
    assert done.images == []
    assert done.finished.interrupted
    assert run(engine, **SMALL).finished.pictures == 1


def test_F38_an_interrupt_between_the_two_calls_of_a_second_order_step_is_heard(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = Control()
    calls = after_call(monkeypatch, 3, control.interrupt)  # Heun's second step has begun
    done = run(engine, control, sampler="Heun", **SMALL)
    assert len(calls) == 3
    assert len(done.steps) == 1
    assert len(done.images) == 1
    assert "Stopped at step: 1" in done.images[0].infotext


def test_an_interrupt_during_the_decode_still_saves_the_batch(engine: Engine) -> None:
    def act(event: Event, control: Control) -> None:
        if isinstance(event, Image):
            control.interrupt()

    done = run_until(engine, act, batch_size=2, batch_count=2, **SMALL)
    assert len(done.images) in (2, 4)  # whole batches
    assert done.finished.pictures == len(done.images)


def test_an_interrupt_of_a_finished_job_does_nothing(engine: Engine) -> None:
    def act(event: Event, control: Control) -> None:
        if isinstance(event, Finished):
            control.interrupt()

    assert run_until(engine, act, **SMALL).finished.interrupted is False
    assert len(run(engine, **SMALL).images) == 1


def test_a_skip_ends_this_batch_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(engine, batch_count=3, **SMALL)
    control = Control()
    after_call(monkeypatch, 4 + 1, control.skip)
    done = run(engine, control, batch_count=3, **SMALL)
    assert len(done.images) == 3
    assert done.finished.interrupted is False
    assert [done.digests[i] == whole.digests[i] for i in range(3)] == [True, False, True]
    assert [step.batch for step in done.steps] == [1, 1, 1, 1, 2, 3, 3, 3, 3]


def test_a_skip_while_the_picture_of_an_sd_upscale_is_enlarged_is_honoured_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = Control()

    def stopped(*_: Any) -> None:
        control.skip()
        raise denoise.Stopped

    with monkeypatch.context() as patch:
        patch.setattr(job, "enlarged_picture", stopped)
        done = run(engine, control, **SMALL)
    assert (done.finished.pictures, done.finished.interrupted) == (0, False)
    assert not control.skipped


def test_leaving_the_iteration_ends_the_job_and_the_next_one_works(engine: Engine) -> None:
    from webui.params import make_params

    events = engine.generate(make_params({"prompt": "a", "steps": 500, "seed": 1, **SMALL}))
    for event in events:
        if isinstance(event, Step):
            break
    events.close()  # type: ignore[attr-defined]
    assert run(engine, **SMALL).finished.pictures == 1


def test_the_end_of_a_job_leaves_its_control_as_it_was_for_the_next_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._pages, "job_over", lambda: time.sleep(0.2))  # a slow machine tidies up
    control = Control()
    for seed in (1, 2):
        assert run(engine, control, seed=seed, **SMALL).finished.pictures == 1
        assert not control.interrupted


def test_flags_can_be_raised_from_any_thread() -> None:
    control = Control()
    thread = threading.Thread(target=control.skip)
    thread.start()
    thread.join()
    assert control.skipped
    assert control.stopping
    control.batch_done()
    assert not control.stopping
    control.interrupt()
    control.batch_done()
    assert control.interrupted
