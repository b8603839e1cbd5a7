"""A picture is decoded while the next one is drawn: it is the same, comes in order, and none is lost on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from embedded import install_embedded
from engine_runs import QUICK, make_engine, pixels_of
from torch import Tensor

from webui.engine import Engine
from webui.engine.control import Control
from webui.engine.drawing import Drawing
from webui.engine.latents import codec
from webui.engine.latents.codec import Codec
from webui.engine.latents.vae import Vae
from webui.engine.memory.residency import Residency
from webui.events import Event, Failed, Finished, Image, Preview, Step
from webui.params import make_params
from webui.provenance import SavedPicture
from webui.settings import MemoryMode

SMALL = {"width": 64, "height": 64, "steps": 8}


class Slow:
    """Fetches as a GPU does: what was asked for comes later, after so many looks."""

    begun, looks, sound = 0, 3, True

    def __init__(self, tensors: tuple[Tensor, ...]) -> None:
        Slow.begun += 1
        pixels, sound = (tensor.clone() for tensor in tensors)
        assert bool(sound)
        self._kept = (pixels, sound) if Slow.sound else (torch.zeros_like(pixels), ~sound)
        self._left = Slow.looks

    @property
    def ready(self) -> bool:
        self._left -= 1
        return self._left < 0

    def get(self) -> tuple[Tensor, ...]:
        return self._kept


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    install_embedded(tmp_path)
    engine = make_engine(tmp_path, preview__every_seconds=0.05)
    yield engine
    engine.close()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> type[Slow]:
    monkeypatch.setattr(codec, "fetch_from", lambda _device: Slow)
    monkeypatch.setattr(Slow, "begun", 0)
    return Slow


def events_of(engine: Engine, control: Control | None = None, **fields: Any) -> list[Event]:
    return list(engine.generate(make_params({**QUICK, **SMALL, "seed": 5, **fields}), control))


def images(events: list[Event]) -> list[Image]:
    return [event for event in events if isinstance(event, Image)]


def test_the_pictures_are_the_same_and_come_in_order_while_the_next_batch_is_drawn(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, slow: type[Slow]
) -> None:
    asked = {"prompt": "a {red|green|blue} apple", "batch_count": 3, "batch_size": 2}
    with monkeypatch.context() as usual:
        usual.setattr(codec, "fetch_from", lambda _device: None)
        expected = images(events_of(engine, **asked))
    assert slow.begun == 0
    events = events_of(engine, **asked)
    made = images(events)
    assert slow.begun == 6
    assert [image.index for image in made] == list(range(6))
    assert [image.infotext for image in made] == [image.infotext for image in expected]
    assert len({image.infotext.splitlines()[0] for image in made}) > 1, "each picture has its own words"
    assert all((pixels_of(a) == pixels_of(b)).all() for a, b in zip(made, expected, strict=True))
    second = next(i for i, event in enumerate(events) if isinstance(event, Step) and event.batch == 2)
    assert (
        second
        < events.index(made[0])
        < next(i for i, event in enumerate(events) if isinstance(event, Step) and event.batch == 3)
    )
    previews = [i for i, event in enumerate(events) if isinstance(event, Preview)]
    assert previews
    assert not any(second < i < events.index(made[1]) for i in previews), "the finished picture comes first"
    done = events[-1]
    assert isinstance(done, Finished)
    assert sum(taken for stage, taken in done.seconds.items() if stage != "total") <= done.seconds["total"]


def test_an_interrupt_loses_no_picture_on_its_way(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, slow: type[Slow]
) -> None:
    monkeypatch.setattr(slow, "looks", 1000)
    control, made = Control(), []
    for event in engine.generate(make_params({**QUICK, **SMALL, "steps": 50, "batch_count": 3}), control):
        if isinstance(event, Step) and event.batch == 2 and event.step == 2:
            control.interrupt()
        if isinstance(event, Image):
            made.append(event)
    assert [image.index for image in made] == [0, 1]
    assert all(Path(image.path).is_file() for image in made)
    assert "Stopped at step" not in made[0].infotext
    assert "Stopped at step" in made[1].infotext


def test_what_comes_out_unsound_is_decoded_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, slow: type[Slow]
) -> None:
    [good] = images(events_of(engine))
    monkeypatch.setattr(slow, "sound", False)
    [rescued] = images(events_of(engine))
    assert slow.begun == 2
    assert (pixels_of(good) == pixels_of(rescued)).all()


def test_where_memory_does_not_suffice_it_is_decoded_in_the_usual_way(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, slow: type[Slow]
) -> None:
    [good] = images(events_of(engine))
    real, calls = Vae.decode_raw, []

    def short(vae: Vae, latents: Tensor) -> Tensor:
        calls.append(latents.shape)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(vae, latents)

    monkeypatch.setattr(Vae, "decode_raw", short)
    [made] = images(events_of(engine))
    assert (slow.begun, len(calls)) == (1, 2)
    assert (pixels_of(good) == pixels_of(made)).all()


def test_a_fault_in_the_next_batch_loses_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, slow: type[Slow]
) -> None:
    real, calls = Drawing.run, []

    def run(drawing: Drawing, draw: Any) -> Any:
        calls.append(draw.index)
        if len(calls) == 2:
            raise ValueError("a cable was pulled")
        return real(drawing, draw)

    monkeypatch.setattr(Drawing, "run", run)
    events = events_of(engine, batch_count=2)
    assert [image.index for image in images(events)] == [0]
    assert isinstance(events[-1], Failed)
    assert "a cable was pulled" in events[-1].error["message"]


def test_a_fault_is_told_and_not_the_one_that_its_end_brings(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, slow: type[Slow], caplog: pytest.LogCaptureFixture
) -> None:
    """Out of memory, say, which has a second try, while a picture on its way turns out to be none."""
    monkeypatch.setattr(slow, "looks", 1000)
    real, calls = Drawing.run, []

    def run(drawing: Drawing, draw: Any) -> Any:
        calls.append(draw.index)
        if len(calls) == 2:
            monkeypatch.setattr(slow, "sound", False)
            monkeypatch.setattr(Vae, "decode_raw", lambda _vae, latents: torch.full_like(latents, float("nan")))
            raise ValueError("a cable was pulled")
        return real(drawing, draw)

    monkeypatch.setattr(Drawing, "run", run)
    monkeypatch.setattr(Slow, "get", lambda fetched: (fetched._kept[0], torch.tensor(Slow.sound)))
    events = events_of(engine, batch_count=2)
    assert images(events) == []
    assert isinstance(events[-1], Failed)
    assert "a cable was pulled" in events[-1].error["message"]
    assert "A picture could not be finished: The VAE" in caplog.text


def test_each_picture_is_noted_in_the_precision_in_which_it_was_decoded(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, slow: type[Slow]
) -> None:
    """The first of two needs another one; the second came out sound in the one with which it was begun."""
    monkeypatch.setattr(slow, "looks", 0)
    answers = iter((False, True))
    monkeypatch.setattr(Slow, "get", lambda fetched: (fetched._kept[0], torch.tensor(next(answers))))
    noted = list[str]()

    @contextlib.contextmanager
    def note(saved: SavedPicture) -> Iterator[None]:
        noted.append(saved.environment.vae_dtype)
        yield

    engine._tools.save_hook = note
    real = Codec.decode

    def rescued(codec: Codec, vae: Vae, latents: Tensor) -> Any:
        vae.change_dtype(torch.float64)
        return real(codec, vae, latents)

    usual = str(engine.device.vae_dtype).removeprefix("torch.")
    monkeypatch.setattr(Codec, "decode", rescued)
    assert len(images(events_of(engine, batch_size=2, save=True))) == 2
    assert noted == ["float64", usual]


def test_a_picture_in_tiles_is_not_begun_ahead(engine: Engine, slow: type[Slow]) -> None:
    assert len(images(events_of(engine, vae_tiling="On"))) == 1
    assert slow.begun == 0


def test_where_networks_come_and_go_a_picture_is_decoded_when_it_is_asked_for(
    engine: Engine, slow: type[Slow], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda")
    tools = replace(
        engine._tools,
        device=replace(engine.device, device=gpu),
        residency=Residency(gpu, MemoryMode.medvram),
    )
    frugal = codec.Codec(tools, (False, False), "Automatic", lambda _warning: None)
    asked: list[str] = []
    monkeypatch.setattr(frugal, "decode", lambda *_: asked.append("now"))
    list(engine.load())
    vae = next(iter(engine._tools.store._checkpoints.values())).baked
    assert vae is not None
    decoding = frugal.begin(vae, torch.zeros(1, 4, 8, 8))
    assert decoding.ready
    assert (slow.begun, asked) == (0, [])
    decoding.picture()
    assert asked == ["now"]
