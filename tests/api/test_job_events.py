"""Following a job: server-sent events with numbers, going on after a break, waiting, moving, and whose job it is."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from painter import Atelier, atelier, with_checkpoint
from starlette.requests import Request

from webui.api.streaming import entries, event_stream
from webui.events import Finished, Image, Loading, Step, Warning
from webui.identity import Viewer
from webui.jobs.bus import Bus


def viewer_of(request: Request) -> Viewer:
    name = request.headers.get("x-user", "")
    return Viewer(name, admin=name == "")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atelier]:
    with atelier(with_checkpoint(tmp_path_factory.mktemp("events")), viewer_of=viewer_of) as found:
        yield found


def submit(house: Atelier, prompt: str = "an apple", user: str = "", **params: Any) -> str:
    body = {"prompt": prompt, "steps": 3, "seed": 5, "width": 64, "height": 64, **params}
    answer = house.client.post("/jobs", json=body, headers={"x-user": user})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def over(house: Atelier, job: str) -> dict[str, Any]:
    view: dict[str, Any] = house.client.get(f"/jobs/{job}", params={"wait": 60}).json()
    return view


def events(text: str) -> list[dict[str, Any]]:
    """The events of a stream, each with the id and the kind that stand outside its data."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append({"id": int(fields["id"]), "event": fields["event"], **json.loads(fields["data"])})
    return found


def test_a_job_is_followed_from_its_beginning_to_its_end(house: Atelier) -> None:
    job = submit(house, batch_count=2)
    answer = house.client.get(f"/jobs/{job}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    told = events(answer.text)
    kinds = [one["kind"] for one in told]
    assert kinds[0] == "loading"
    assert kinds[-1] == "finished"
    assert kinds.count("image") == 2
    assert {"loaded", "started", "step", "warning"} <= set(kinds)
    assert all(one["id"] == one["sequence"] and one["event"] == one["kind"] and one["job"] == job for one in told)
    assert [one["id"] for one in told] == sorted({one["id"] for one in told})
    picture = next(one for one in told if one["kind"] == "image")
    assert house.client.get(f"/outputs/{picture['path']}").content[:4] == b"\x89PNG"


def test_no_event_names_a_path_of_this_machine(house: Atelier) -> None:
    text = house.client.get(f"/jobs/{submit(house)}/events").text
    assert "/somewhere/secret" not in text
    assert str(house.paths.data_dir) not in text


def test_who_comes_back_goes_on_behind_the_last_event(house: Atelier) -> None:
    job = submit(house, batch_count=3)
    told = events(house.client.get(f"/jobs/{job}/events").text)
    middle = next(one["id"] for one in told if one["kind"] == "image")
    for again in (
        house.client.get(f"/jobs/{job}/events", headers={"last-event-id": str(middle)}),
        house.client.get(f"/jobs/{job}/events", params={"after": middle}),
    ):
        rest = events(again.text)
        kept = ("image", "warning", "finished")
        assert [one["id"] for one in rest if one["kind"] in kept] == [
            one["id"] for one in told if one["kind"] in kept and one["id"] > middle
        ]
    end = house.client.get(f"/jobs/{job}/events", headers={"last-event-id": str(told[-1]["id"])})
    assert end.status_code == 204  # EventSource stops asking at that


def test_the_end_of_a_job_is_told_though_the_events_were_forgotten(house: Atelier) -> None:
    job = submit(house)
    over(house, job)
    house.jobs._bus._log.clear()
    told = events(house.client.get(f"/jobs/{job}/events").text)
    assert [one["kind"] for one in told] == ["warning", "image", "finished"]


def test_a_sequence_number_that_is_none_is_refused(house: Atelier) -> None:
    job = submit(house)
    for header in ("abc", "-1", "1.5", "٣"):
        answer = house.client.get(f"/jobs/{job}/events", headers={"last-event-id": header.encode()})
        assert answer.status_code == 422, header
    assert house.client.get(f"/jobs/{job}/events", params={"after": -1}).status_code == 422
    assert house.client.get("/jobs/nothing/events").status_code == 404


def test_a_failed_job_ends_its_stream_with_the_reason(house: Atelier) -> None:
    told = events(house.client.get(f"/jobs/{submit(house, 'fail')}/events").text)
    assert told[-1]["kind"] == "failed"
    assert told[-1]["error"]["error"] == "OutOfMemory"


def test_a_wait_ends_with_the_job_or_with_the_time(house: Atelier) -> None:
    house.hold()
    job = submit(house, "held")
    still = house.client.get(f"/jobs/{job}", params={"wait": 0.05}).json()
    assert still["state"] in ("pending", "running")
    threading.Timer(0.1, house.let_go).start()
    assert over(house, job)["state"] == "done"
    assert house.client.get(f"/jobs/{job}", params={"wait": 61}).status_code == 422


def test_waiting_jobs_are_put_in_another_order(house: Atelier) -> None:
    house.hold()
    running = submit(house, "held")
    first, second, third = (submit(house, f"number {n}") for n in (1, 2, 3))

    def order() -> list[int | None]:
        return [house.client.get(f"/jobs/{job}").json()["position"] for job in (first, second, third)]

    while house.client.get(f"/jobs/{running}").json()["state"] == "pending":
        time.sleep(0.01)
    assert order() == [0, 1, 2]
    assert house.client.post(f"/jobs/{third}/move", json={"position": 0}).json() == {"changed": True}
    assert order() == [1, 2, 0]
    assert house.client.post(f"/jobs/{running}/move", json={"position": 0}).json() == {"changed": False}
    for bad in ({}, {"position": -1}, {"position": "1"}, {"position": True}, {"position": 10**7}):
        assert house.client.post(f"/jobs/{third}/move", json=bad).status_code == 422, bad
    for job in (first, second, third):
        house.client.post(f"/jobs/{job}/cancel")
    house.let_go()
    assert over(house, running)["state"] == "done"


def test_somebody_elses_job_is_not_shown_and_not_to_be_steered(house: Atelier) -> None:
    job = submit(house, user="anna")
    assert over(house, job)["user"] == "anna"
    berta = {"x-user": "berta"}
    for rest in ("", "/events", "/preview.jpg", "/pictures/0.png"):
        assert house.client.get(f"/jobs/{job}{rest}", headers=berta).status_code == 404, rest
    for action in ("interrupt", "skip", "cancel", "retry", "move-up"):
        assert house.client.post(f"/jobs/{job}/{action}", headers=berta).status_code == 403, action
    assert house.client.post(f"/jobs/{job}/move", json={"position": 0}, headers=berta).status_code == 403
    mine = [one["id"] for one in house.client.get("/jobs", headers={"x-user": "anna"}).json()["jobs"]]
    assert mine == [job]
    assert house.client.get("/jobs", headers=berta).json() == {"jobs": []}
    again = house.client.post(f"/jobs/{job}/retry", headers={"x-user": "anna"}).json()["id"]
    assert over(house, again)["user"] == "anna"


def test_the_same_key_of_two_users_makes_two_jobs(house: Atelier) -> None:
    body = {"prompt": "x", "steps": 1, "width": 64, "height": 64}

    def key_job(user: str) -> str:
        headers = {"x-user": user, "idempotency-key": "the same"}
        return str(house.client.post("/jobs", json=body, headers=headers).json()["id"])

    assert key_job("anna") == key_job("anna")
    assert key_job("anna") != key_job("berta")


# --- without a server -------------------------------------------------------------------------------------------------


def test_events_reach_a_watcher_in_a_loop_from_other_threads() -> None:
    bus = Bus()
    watcher = bus.watch("a", 0)

    async def read() -> list[str]:
        threading.Timer(
            0.05, lambda: [bus.publish("b", Warning("other", "")), bus.publish("a", Warning("x", ""))]
        ).start()
        threading.Timer(0.1, lambda: bus.publish("a", Finished(1, {}, 0))).start()
        return [type(one.event).__name__ async for one in entries(watcher, 30) if one is not None]

    assert asyncio.run(read()) == ["Warning", "Finished"]
    assert not bus._calls


def test_a_silent_stream_shows_that_it_lives_and_leaves_nothing_behind(tmp_path: Path) -> None:
    bus = Bus()
    watcher = bus.watch("a", 0)

    async def read() -> list[str]:
        stream = event_stream(watcher, tmp_path, beat=0.01)
        parts = [await anext(stream) for _ in range(3)]
        await stream.aclose()  # type: ignore[attr-defined]
        return parts

    assert asyncio.run(read()) == ["retry: 2000\n\n", ": still here\n\n", ": still here\n\n"]


def test_a_flood_of_steps_goes_out_as_its_newest_and_nothing_else_is_left_out(tmp_path: Path) -> None:
    bus = Bus()
    watcher = bus.watch("a", 0)
    for number in range(300):
        bus.publish("a", Step(number + 1, 300, 1, 1, 5.0, 1.0))
        if number % 100 == 50:
            bus.publish("a", Warning("note", str(number)))
    bus.publish("a", Finished(1, {}, 0))

    async def read() -> list[str]:
        return [part async for part in event_stream(watcher, tmp_path)]

    parts = asyncio.run(read())
    told = events("".join(parts))
    assert len(parts) == 2  # how to come back, and one message
    assert [one["kind"] for one in told] == ["warning", "warning", "warning", "step", "finished"]
    assert told[3]["step"] == 300


def test_a_stream_ends_when_the_server_does(tmp_path: Path) -> None:
    bus = Bus()
    watcher = bus.watch("a", 0)
    bus.publish("a", Loading("checkpoint", "a.safetensors", "Loading weights from /home/anna/a.safetensors"))
    bus.publish("a", Image(0, str(tmp_path / "one.png"), 1, 64, 64, "text", "0"))
    threading.Timer(0.05, bus.close).start()

    async def read() -> str:
        return "".join([part async for part in event_stream(watcher, tmp_path)])

    told = events(asyncio.run(read()))
    assert [one["kind"] for one in told] == ["loading", "image"]
    assert told[0]["line"] == "Loading a.safetensors"
    assert told[1]["path"] == "one.png"
