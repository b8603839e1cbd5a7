"""Pictures get their files while the next ones are drawn, and nothing of it is lost or out of order."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from embedded import install_embedded
from engine_runs import QUICK
from PIL import Image as PillowImage

from webui.engine import Engine
from webui.engine.control import Control
from webui.engine.saving import keeping as module
from webui.engine.saving.keeping import MOST_PENDING, Keeping, MadePicture
from webui.events import Event, Failed, Finished, Image, Preview, Step
from webui.params import make_params
from webui.paths import Paths
from webui.provenance import Environment, SavedPicture
from webui.settings import Settings, changed

PATIENCE = 60.0  # seconds
SMALL = {"width": 64, "height": 64}


class Gate:
    """A save hook that lets no picture through until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.saved: list[tuple[int, str]] = []  # index and thread

    @contextlib.contextmanager
    def __call__(self, picture: SavedPicture) -> Iterator[None]:
        assert self.open.wait(PATIENCE)
        self.saved.append((picture.index, threading.current_thread().name))
        yield


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def engine(tmp_path: Path, gate: Gate) -> Iterator[Engine]:
    install_embedded(tmp_path)
    settings = changed(Settings(), {"preview.every_seconds": 0.05})
    engine = Engine(settings, Paths.under(tmp_path), save_hook=gate)
    yield engine
    gate.open.set()
    engine.close()


def followed(engine: Engine, until: Callable[[Event], bool], then: Callable[[], None], **fields: Any) -> list[Event]:
    """All events of a job; `then` is called at the first one that `until` is waiting for."""
    events: list[Event] = []
    waiting = True
    for event in engine.generate(make_params({**QUICK, **SMALL, **fields})):
        events.append(event)
        if waiting and until(event):
            waiting = False
            then()
    assert not waiting
    return events


def test_the_next_batch_is_drawn_while_a_file_is_written(engine: Engine, gate: Gate) -> None:
    def late(event: Event) -> bool:
        return isinstance(event, Step) and event.batch == 2 and event.step == 4

    events = followed(engine, late, gate.open.set, batch_count=3)
    told = [event for event in events if isinstance(event, Image | Finished)]
    assert [event.index for event in told if isinstance(event, Image)] == [0, 1, 2]
    assert isinstance(told[-1], Finished)
    assert told[-1].pictures == 3
    assert {thread for _, thread in gate.saved} == {"keeping_0"}
    assert [index for index, _ in gate.saved] == [0, 1, 2]
    first = next(i for i, event in enumerate(events) if isinstance(event, Image))
    assert any(late(event) for event in events[:first])


def test_no_preview_of_the_next_picture_is_shown_before_the_finished_one(engine: Engine, gate: Gate) -> None:
    def second(event: Event) -> bool:
        return isinstance(event, Step) and event.batch == 2 and event.step == 2

    events = followed(engine, second, gate.open.set, batch_count=2, steps=30)
    begins = next(i for i, event in enumerate(events) if isinstance(event, Step) and event.batch == 2)
    shown = next(i for i, event in enumerate(events) if isinstance(event, Image))
    assert begins < shown
    assert not any(isinstance(event, Preview) for event in events[begins:shown])
    assert any(isinstance(event, Preview) for event in events[shown:])


def test_an_interrupt_loses_no_picture_whose_file_is_in_the_making(engine: Engine, gate: Gate) -> None:
    control = Control()
    events: list[Event] = []
    for event in engine.generate(make_params({**QUICK, **SMALL, "batch_count": 3, "steps": 50}), control):
        events.append(event)
        if isinstance(event, Step) and event.batch == 2 and event.step == 2:
            control.interrupt()
            gate.open.set()
    images = [event for event in events if isinstance(event, Image)]
    assert [image.index for image in images] == [0, 1]
    assert all(Path(image.path).is_file() for image in images)
    assert "Stopped at step" not in images[0].infotext
    assert "Stopped at step" in images[1].infotext


def picture(mode: str = "RGB") -> MadePicture:
    return MadePicture(PillowImage.new(mode, (8, 8)), "a red apple", 7, Environment(), ())


@pytest.fixture
def told() -> list[int]:
    return []


@pytest.fixture
def keeping(engine: Engine, told: list[int]) -> Iterator[Keeping]:
    def emit(image: Image) -> None:
        assert threading.current_thread() is threading.main_thread()
        told.append(image.index)

    keeping = Keeping(engine._tools, lambda _saved: None, emit)
    yield keeping
    keeping.finish()


def test_no_more_pictures_wait_than_memory_is_meant_for(keeping: Keeping, gate: Gate, told: list[int]) -> None:
    params = make_params(QUICK)
    for index in range(MOST_PENDING):
        keeping.keep(params, index, picture())
    keeping.deliver()
    assert told == []
    threading.Timer(0.2, gate.open.set).start()
    keeping.keep(params, MOST_PENDING, picture())  # has to wait for the first one
    assert told
    keeping.finish()
    assert told == list(range(MOST_PENDING + 1))
    assert not keeping.busy
    assert not any(thread.name.startswith("keeping") for thread in threading.enumerate())


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
def test_beside_a_gpu_several_pictures_are_compressed_at_once_and_written_in_order(
    engine: Engine, gate: Gate, told: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open.set()
    both, real = threading.Barrier(2), module.pictures.encode
    monkeypatch.setattr(module.pictures, "encode", lambda *given: (both.wait(PATIENCE), real(*given))[1])
    tools = dataclasses.replace(engine._tools, device=dataclasses.replace(engine.device, device=torch.device("cuda")))
    keeping = Keeping(tools, lambda _saved: None, lambda image: told.append(image.index))
    for index in range(4):
        keeping.keep(make_params(QUICK), index, picture())
    keeping.finish()
    assert told == [index for index, _ in gate.saved] == [0, 1, 2, 3]
    assert not any(thread.name.startswith(("keeping", "encoding")) for thread in threading.enumerate())


def test_a_picture_that_cannot_be_encoded_is_an_error_and_the_others_are_kept(
    keeping: Keeping, gate: Gate, told: list[int]
) -> None:
    gate.open.set()
    params = make_params(QUICK)
    keeping.keep(params, 0, picture())
    keeping.keep(params, 1, picture("LAB"))
    keeping.keep(params, 2, picture())
    with pytest.raises(OSError, match="LAB"):
        keeping.finish()
    assert told == [0, 2]


def test_a_job_whose_picture_cannot_be_written_down_fails_with_what_came_before(
    engine: Engine, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open.set()
    real, calls = module.pictures.encode, 0

    def encode(*arguments: Any) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ValueError("no such colours")
        return real(*arguments)

    monkeypatch.setattr(module.pictures, "encode", encode)
    events = list(engine.generate(make_params({**QUICK, **SMALL, "batch_count": 2})))
    assert [event.index for event in events if isinstance(event, Image)] == [0]
    assert isinstance(events[-1], Failed)
    assert "no such colours" in events[-1].error["message"]
