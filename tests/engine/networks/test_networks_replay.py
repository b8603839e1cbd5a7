"""A picture made with networks is made again bit for bit, wherever their files now lie and whatever they are called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from embedded import install_embedded
from history_studio import ids
from network_files import write, write_embedding, write_lora

from webui import events
from webui.catalog import Catalog
from webui.engine import Engine
from webui.history import History, Recorder
from webui.params import GenerationParams, make_params
from webui.paths import Paths
from webui.settings import Settings


class Workshop:
    """Everything that a worker holds, in this process."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths.under(root)
        self.paths.make_folders()
        self.catalog, self.recorder = Catalog(self.paths), Recorder(self.paths)
        self.engine = Engine(Settings(), self.paths, self.catalog, save_hook=self.recorder.saving)
        self.history = History(self.paths)

    def make(self, params: GenerationParams) -> events.Image:
        self.catalog.refresh()  # a file that was written less than two seconds after the last look is found like this
        told = list(self.recorder.following(self.engine.generate(params), job="", user=""))
        assert isinstance(told[-1], events.Finished), told[-1]
        assert [event.text for event in told if isinstance(event, events.Warning)] == []
        (image,) = (event for event in told if isinstance(event, events.Image))
        return image

    def replay(self, picture_id: int) -> tuple[events.Image, GenerationParams]:
        self.catalog.refresh()
        params = self.history.plan_replay("", picture_id, self.catalog, {}).require_complete()
        return self.make(params), params

    def close(self) -> None:
        self.history.stop()
        self.engine.close()
        self.catalog.close()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    root = tmp_path_factory.mktemp("replay")
    install_embedded(root)
    workshop = Workshop(root)
    yield workshop
    workshop.close()


def params(**fields: Any) -> GenerationParams:
    return make_params({"prompt": "a red apple", "steps": 2, "seed": 11, "width": 64, "height": 64, **fields})


def test_with_a_lora_that_was_renamed_and_moved(workshop: Workshop) -> None:
    path = write_lora(workshop.engine, "film", {"ss_output_name": "other"})
    first = workshop.make(params(prompt="a red apple <lora:film:0.7:stop=0.5>"))
    (picture, *_) = ids(workshop.history, "lora:film")
    assert workshop.replay(picture)[0].pixels_sha256 == first.pixels_sha256
    moved = path.parent / "styles" / "old film.safetensors"
    moved.parent.mkdir()
    path.rename(moved)
    write_lora(workshop.engine, "film", seed=99)  # another file has the name now
    again, used = workshop.replay(picture)
    assert again.pixels_sha256 == first.pixels_sha256
    assert used.prompt == "a red apple <lora:old film:0.7:stop=0.5>"


def test_with_an_embedding_that_was_renamed(workshop: Workshop) -> None:
    path = write_embedding(workshop.engine, "badhands")
    first = workshop.make(params(prompt="a red apple", negative_prompt="(badhands:1.2), blurry"))
    picture = ids(workshop.history)[0]
    record = workshop.history.get("", picture).record
    assert [(m.kind, m.name, len(m.sha256)) for m in record.networks] == [("embedding", "badhands.safetensors", 64)]
    path.rename(path.with_name("uglyfingers.safetensors"))
    again, used = workshop.replay(picture)
    assert again.pixels_sha256 == first.pixels_sha256
    assert used.negative_prompt == "(uglyfingers:1.2), blurry"


def test_with_an_embedding_that_came_later_and_is_called_like_a_word_of_the_prompt(workshop: Workshop) -> None:
    write_embedding(workshop.engine, "known", seed=5)
    first = workshop.make(params(prompt="a red known apple", negative_prompt="[blue:grey:0.5] sky"))
    (picture, *_) = ids(workshop.history)
    write_embedding(workshop.engine, "red known", seed=6)  # longer, so it would be found first
    write_embedding(workshop.engine, "grey", seed=7)
    write_embedding(workshop.engine, "green", seed=8)
    workshop.catalog.refresh()
    other = workshop.make(params(prompt="a red known apple", negative_prompt="[blue:grey:0.5] sky"))
    assert other.pixels_sha256 != first.pixels_sha256
    plan = workshop.history.plan_replay("", picture, workshop.catalog, {})
    assert plan.notes == ("Read as words, as then: grey, red known (an embedding has that name now).",)
    again, used = workshop.replay(picture)
    assert (again.pixels_sha256, used.read_as_words) == (first.pixels_sha256, "grey, red known")
    assert 'Read as words: "grey, red known"' in again.infotext
    assert "TI hashes: known" in again.infotext.replace('"', "")
    (child, *_) = ids(workshop.history)
    assert workshop.replay(child)[0].pixels_sha256 == first.pixels_sha256
    latest = workshop.history.plan_replay("", picture, workshop.catalog, {"prompt": "grey"}).params
    assert latest.read_as_words == ""  # a new prompt means what is here now


def test_a_missing_network_is_named(workshop: Workshop) -> None:
    path = write_lora(workshop.engine, "gone", seed=31)
    workshop.make(params(prompt="a red apple <lora:gone:1>"))
    picture = ids(workshop.history)[0]
    path.unlink()
    workshop.catalog.refresh()
    plan = workshop.history.plan_replay("", picture, workshop.catalog, {})
    assert [(missing.kind, missing.name) for missing in plan.missing] == [("lora", "gone.safetensors")]
    write(path, {"lora_unet_x.lora_down.weight": torch.zeros(1, 1)})
    workshop.catalog.refresh()
    assert "other content" in workshop.history.plan_replay("", picture, workshop.catalog, {}).missing[0].reason
