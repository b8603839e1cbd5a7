"""On the real engine and the embedded model: whatever it drew, any picture of it, is drawn again bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from embedded import EMBEDDED_CHECKPOINT
from history_studio import ids
from workshop import Workshop, params

from webui import events
from webui.errors import ModelNotFound
from webui.history import commands
from webui.history.records import State


@pytest.mark.parametrize(
    "fields",
    [
        {"batch_size": 2, "batch_count": 2},
        {"sampler": "Euler a", "batch_size": 2, "ensd": 31337},
        {"sampler": "DPM++ 2M SDE", "schedule": "Karras", "batch_size": 2},
        {"sampler": "DDIM", "negative_prompt": "green", "clip_skip": 2, "cfg_rescale": 0.5},
        {"variation_strength": 0.3, "variation_seed": 5, "batch_size": 2},
        {"prompt": "a [red:green:0.5] apple AND a (blue:1.3) bird", "rng": "NV", "seed_resize_width": 32,
         "seed_resize_height": 32},
        {"image_format": "jpeg", "width": 128},
    ],
)  # fmt: skip
def test_every_picture_of_a_job_is_replayed_alone_and_identical(fields: dict[str, Any], workshop: Workshop) -> None:
    history = workshop.history
    job, told = workshop.make(params(**fields))
    cards = history.of_job("", job)
    assert len(cards) == params(**fields).pictures
    assert [card.picture_index for card in cards] == list(range(len(cards)))
    hashes = {event.index: event.pixels_sha256 for event in told if isinstance(event, events.Image)}
    for card in cards:
        record = history.get("", card.id).record
        assert record.pixels_sha256 == hashes[card.picture_index]
        assert record.environment["dtype"]
        assert record.environment["torch"]
        assert record.checkpoint is not None
        assert len(record.checkpoint.sha256) == 64
        assert record.seconds["total"] > 0
    for card in (cards[0], cards[-1]):
        child = workshop.replay(card.id)
        assert history.difference("", card.id, child).verdict == "identical"
        assert history.compare("", [card.id, child]) == []
        assert history.get("", child).record.parent == card.id


def test_a_replay_with_another_seed_is_another_picture_in_the_same_family(workshop: Workshop) -> None:
    history = workshop.history
    job, _ = workshop.make(params())
    [card] = history.of_job("", job)
    child = workshop.replay(card.id, seed=12)
    difference = history.difference("", card.id, child)
    assert difference.verdict == "different"
    assert (difference.max_difference or 0) > 0
    assert [row.name for row in history.compare("", [card.id, child])] == ["seed"]
    [root, variation] = history.family("", child).members
    assert (root.card.id, variation.relation, variation.changes) == (card.id, "variation", {"seed": 12})


def test_a_replay_finds_the_checkpoint_under_another_name_and_is_identical(workshop: Workshop) -> None:
    history = workshop.history
    job, _ = workshop.make(params(seed=21))
    [card] = history.of_job("", job)
    folder = workshop.paths.checkpoints[0]
    for suffix in (".safetensors", ".yaml"):
        old = folder / EMBEDDED_CHECKPOINT.with_suffix(suffix).name
        old.rename(folder / f"renamed{suffix}")
    workshop.catalog.refresh()
    try:
        child = workshop.replay(card.id)
        assert history.difference("", card.id, child).verdict == "identical"
        [row] = history.compare("", [card.id, child])
        assert (row.group, row.name) == ("model", "checkpoint")
    finally:
        for suffix in (".safetensors", ".yaml"):
            (folder / f"renamed{suffix}").rename(folder / EMBEDDED_CHECKPOINT.with_suffix(suffix).name)
        workshop.catalog.refresh()


def test_a_picture_that_the_start_up_found_is_replayed_from_its_own_text(workshop: Workshop) -> None:
    """The history was lost; the parameters text in the file is enough."""
    history = workshop.history
    job, _ = workshop.make(params(seed=31, sampler="Euler a", negative_prompt="green"))
    [card] = history.of_job("", job)
    before = history.get("", card.id).record
    with history._database.write() as db:
        db.execute("DELETE FROM pictures WHERE id=?", (card.id,))
    assert history.reconcile().indexed == 1
    [found] = ids(history, "seed:31")
    record = history.get("", found).record
    assert (record.environment, record.pixels_sha256, record.state) == ({}, "", State.present)
    child = workshop.replay(found)
    assert history.get("", child).record.pixels_sha256 == before.pixels_sha256
    assert history.difference("", found, child).verdict == "identical"


def test_F13_the_engine_goes_on_when_a_picture_cannot_be_saved(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("webui.engine.saving.save.write_new", full)
        job, told = workshop.make(params(seed=41))
    [image] = [event for event in told if isinstance(event, events.Image)]
    assert image.path == ""
    assert image.png  # it is still shown
    [card] = workshop.history.of_job("", job)
    assert card.state is State.unsaved
    child = workshop.replay(card.id)
    assert workshop.history.difference("", card.id, child).verdict == "identical"


def test_the_command_line_replays_and_says_identical(workshop: Workshop) -> None:
    job, _ = workshop.make(params(seed=51))
    [card] = workshop.history.of_job("", job)
    lines: list[str] = []
    result = commands.replay(
        workshop.paths, card.id, workshop.catalog, workshop.engine.generate, workshop.recorder, say=lines.append
    )
    assert result is not None
    assert result.verdict == "identical"
    assert lines[0] == "identical"
    assert Path(lines[-1]).is_file()
    changed = commands.replay(
        workshop.paths,
        card.id,
        workshop.catalog,
        workshop.engine.generate,
        workshop.recorder,
        changes={"seed": 52},
        say=lines.append,
    )
    assert changed is None
    with workshop.history._database.write() as db:
        db.execute("UPDATE names SET sha256=? WHERE kind='checkpoint'", ("00" * 32,))
    with pytest.raises(ModelNotFound):
        commands.replay(
            workshop.paths, card.id, workshop.catalog, workshop.engine.generate, workshop.recorder, say=lines.append
        )
