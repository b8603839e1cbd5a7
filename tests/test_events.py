"""Events: frozen, able to cross a process border, and readable as JSON without their pictures."""

from __future__ import annotations

import dataclasses
import json
import pickle
from typing import Any

import pytest

from webui import events

EXAMPLES = [
    events.Loading("checkpoint", "a.safetensors", "Loading weights [0123456789] from a.safetensors"),
    events.Loaded("vae", "b", None, "found near the checkpoint", {"read": 0.5}),
    events.Started(2, 512, 768, 20),
    events.Step(3, 20, 1, 2, 8.5, 4.0),
    events.Preview(b"\xff\xd8", 3),
    events.Image(0, "/out/00001-7.png", 7, 512, 768, "a red apple", "ab" * 32, png=b"\x89PNG"),
    events.Warning("vae-nan", "The VAE gave NaN in fp16 and was run in fp32."),
    events.Memory("cpu", 1, 2, 3, 4),
    events.Extensions({"uses": {"detail": {"step": {"calls": 1, "seconds": 0.1, "failures": 0}}}}),
    events.Finished(2, {"total": 3.5}, 10),
    events.Failed({"error": "OutOfMemory", "message": "m", "advice": "a"}),
]


def test_the_examples_are_all_there_is() -> None:
    assert {type(event) for event in EXAMPLES} == set(events.KINDS.values())


@pytest.mark.parametrize("event", EXAMPLES, ids=events.kind_of)
def test_an_event_crosses_a_process_border_unchanged_and_cannot_be_changed(event: Any) -> None:
    assert pickle.loads(pickle.dumps(event)) == event
    assert events.KINDS[events.kind_of(event)] is type(event)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, dataclasses.fields(event)[0].name, None)


@pytest.mark.parametrize("event", EXAMPLES, ids=events.kind_of)
def test_its_json_says_its_kind_and_everything_but_bytes(event: Any) -> None:
    data = json.loads(json.dumps(events.to_json_dict(event)))
    assert data.pop("kind") == events.kind_of(event)
    expected = {f.name for f in dataclasses.fields(event) if not isinstance(getattr(event, f.name), bytes)}
    assert set(data) == expected
