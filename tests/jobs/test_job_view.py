"""Events folded into the view of a job, and messages over the pipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.events import (
    KINDS,
    Event,
    Extensions,
    Failed,
    Finished,
    Image,
    Loaded,
    LoadedKind,
    Loading,
    Memory,
    Preview,
    Started,
    Step,
    Warning,
)
from webui.jobs.live import Live, as_dict, fold
from webui.jobs.queue import JobQueue
from webui.jobs.wire import Message, decode, encode, event_message, message_event, without_bytes
from webui.params import make_params

OUTPUTS = Path("/data/outputs")
EVENTS: list[Event] = [
    Loading("checkpoint", "a.safetensors", "Loading weights [abc] from /secret/a.safetensors"),
    Loaded("checkpoint", "a.safetensors", "abc", "", {"read": 0.5}, reused=True),
    Started(2, 512, 768, 20),
    Step(5, 20, 1, 2, 8.0, 4.5),
    Preview(b"\xff\xd8\x00jpeg", 5),
    Image(0, "/data/outputs/txt2img-images/1.png", 7, 512, 768, "π", "00", png=b"\x89PNG"),
    Warning("code", "text"),
    Memory("cuda", 1, 2, 3, 4),
    Extensions({"off": {"grain": "It failed."}}),
    Finished(2, {"total": 1.0}, 99, interrupted=True),
    Failed({"error": "OutOfMemory", "message": "m", "advice": "a"}),
]


def folded(*events: Event) -> Live:
    live = Live()
    for number, event in enumerate(events):
        live = fold(live, event, number + 1, OUTPUTS)
    return live


def test_every_event_goes_over_the_pipe_and_comes_back_equal() -> None:
    assert {type(event) for event in EVENTS} == set(KINDS.values())
    for event in EVENTS:
        message = decode(encode(event_message("job", event)))
        assert message.job == "job"
        assert message_event(message) == event


@given(st.binary(max_size=200))
def test_garbage_from_the_pipe_is_a_value_error(frame: bytes) -> None:
    with pytest.raises(ValueError):
        decode(frame)


def test_an_unknown_event_is_a_value_error() -> None:
    for data in ({"kind": "future"}, {"kind": "step"}, {"kind": "step", "step": 1, "more": 2}, {}):
        with pytest.raises(ValueError, match="event"):
            message_event(Message("event", "job", data))


def test_the_phases_follow_the_job() -> None:
    assert folded().phase == "waiting"
    assert folded(EVENTS[0]).phase == "loading"
    assert folded(*EVENTS[:3]).phase == "sampling"
    assert folded(Step(20, 20, 1, 2, 8.0, 4.0)).phase == "saving"
    assert folded(Step(20, 20, 1, 2, 8.0, 4.0), Step(1, 20, 2, 2, 8.0, 4.0)).phase == "sampling"
    assert folded(Finished(1, {}, 0)).phase == ""


def test_the_page_is_not_told_where_files_lie() -> None:
    live = folded(*EVENTS[:6])
    assert "/secret" not in json.dumps((*live.images, folded(EVENTS[0]).line))
    assert folded(EVENTS[0]).line == "Loading a.safetensors"
    assert live.images[0]["path"] == "txt2img-images/1.png"
    outside = folded(Image(0, "/elsewhere/1.png", 7, 1, 1, "", ""))
    assert outside.images[0]["path"] == ""


def test_every_kind_of_network_is_named_while_it_is_loaded() -> None:
    for kind in get_args(LoadedKind):
        assert folded(Loading(kind, "a.safetensors", "")).line.endswith("a.safetensors")


def test_of_a_folder_a_view_says_how_many_pictures_there_are(tmp_path: Path) -> None:
    source = {"image": "a" * 64, "name": "a.png"}
    params = make_params({"extras": {}, "sources": [source, source]})
    queue = JobQueue(tmp_path / "jobs.sqlite")
    view = as_dict(queue.enqueue(params.canonical_json()), Live(), None)
    queue.close()
    assert view["sources"] == 2
    assert view["params"]["sources"] == []


def test_progress_counts_the_batches_and_never_leaves_its_bounds() -> None:
    assert folded(Step(10, 20, 2, 2, 1.0, 1.0)).progress == 0.75
    assert folded(Step(0, 0, 1, 0, float("nan"), float("inf"))).progress == 0.0
    assert folded(Step(99, 20, 9, 2, 1.0, 1.0)).progress == 1.0
    assert folded(Step(1, 20, 1, 1, float("nan"), float("inf"))).rate == 0.0
    assert folded(Finished(1, {}, 0)).progress == 1.0
    assert folded(Step(10, 20, 1, 1, 1.0, 1.0), Finished(1, {}, 0, interrupted=True)).progress == 0.5


def test_warnings_count_once_and_are_bounded() -> None:
    live = folded(*[Warning("code", f"text {n % 150}") for n in range(400)])
    assert len(live.warnings) == 100
    assert len({w["text"] for w in live.warnings}) == 100


def test_what_changes_nothing_gives_the_same_view_back() -> None:
    live = folded(Warning("a", "b"), Memory("cpu", 1, 1, 1, 50))
    assert fold(live, Warning("a", "b"), 99, OUTPUTS) is live
    assert fold(live, Memory("cpu", 1, 1, 1, 50), 99, OUTPUTS) is live
    assert fold(live, Memory("cpu", 1, 1, 1, 51), 99, OUTPUTS).rev == 99


def test_an_unsaved_picture_goes_on_without_its_pixels() -> None:
    assert without_bytes(EVENTS[5]) == Image(0, "/data/outputs/txt2img-images/1.png", 7, 512, 768, "π", "00")
    assert without_bytes(EVENTS[4]) is EVENTS[4]
