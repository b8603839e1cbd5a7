"""The native job routes: strict in, typed out, cheap to poll."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fake_jobs import FakeJobs


def finished(web: Any, job: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while (view := web.get(f"/jobs/{job}").json())["state"] in ("pending", "running"):
        assert time.monotonic() < deadline, view
        time.sleep(0.01)
    return view


def submit(web: Any, **params: Any) -> str:
    answer = web.post("/jobs", json={"prompt": "a red apple", "steps": 4, **params})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_a_job_is_submitted_watched_and_its_picture_is_served_byte_for_byte(web: Any, fake_jobs: FakeJobs) -> None:
    view = finished(web, submit(web, seed=7))
    assert view["state"] == "done"
    assert view["params"]["seed"] == 7
    path = view["images"][0]["path"]
    answer = web.get(f"/outputs/{path}")
    assert answer.content == (fake_jobs.outputs / path).read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert "immutable" in answer.headers["cache-control"]
    assert "private" in answer.headers["cache-control"]


def test_an_unchanged_job_answers_with_nothing(web: Any) -> None:
    job = submit(web)
    view = finished(web, job)
    answer = web.get(f"/jobs/{job}", params={"rev": view["rev"]})
    assert answer.status_code == 204
    assert answer.content == b""
    assert web.get(f"/jobs/{job}", params={"rev": view["rev"] - 1}).json()["id"] == job


def test_whoever_polls_is_sent_what_is_new(web: Any) -> None:
    job = submit(web, batch_count=3)
    images = finished(web, job)["images"]
    assert len(images) == 3
    for known in range(4):
        view = web.get(f"/jobs/{job}", params={"known": known}).json()
        assert view["images"] == images[known:]
        assert view["image_count"] == 3
    assert web.get(f"/jobs/{job}?known=4").json()["images"] == images  # it was begun anew meanwhile
    for order in ("newest", "turn"):
        [listed] = web.get("/jobs", params={"order": order, "limit": 1, "images": 1}).json()["jobs"]
        assert listed["images"] == images[:1]
        assert listed["image_count"] == 3


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"steps": "20"}, "steps"),
        ({"steps": 0}, "steps"),
        ({"steps": True}, "steps"),
        ({"width": 513}, "width"),
        ({"cfg_scale": False}, "cfg_scale"),
        ({"sampler": "Euler b"}, "sampler"),
        ({"unknown_field": 1}, "unknown_field"),
        ({"batch_size": 64, "batch_count": 1000}, "pictures"),
    ],
)
def test_what_cannot_be_made_is_refused_in_words(web: Any, body: dict[str, Any], where: str) -> None:
    answer = web.post("/jobs", json=body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "message", "advice"}
    assert where in answer.json()["message"]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"cfg_scale": NaN}', b'{"prompt": "\\ud800"}', b"\xff", b"[" * 100_000]
)
def test_a_body_that_is_no_request_is_refused_in_words(web: Any, body: bytes) -> None:
    answer = web.post("/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["message"]


def test_forms_and_plain_text_are_no_json(web: Any) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert web.post("/jobs", content=b"{}", headers={"content-type": kind}).status_code == 422


def test_the_same_key_makes_one_job(web: Any) -> None:
    headers = {"idempotency-key": "click-1"}
    first = web.post("/jobs", json={"prompt": "x", "steps": 1}, headers=headers).json()["id"]
    assert web.post("/jobs", json={"prompt": "x", "steps": 1}, headers=headers).json()["id"] == first


def test_a_job_that_is_not_there_is_404_on_every_route(web: Any) -> None:
    assert web.get("/jobs/nothing").status_code == 404
    assert web.get("/jobs/nothing/preview.jpg").status_code == 404
    assert web.get("/jobs/nothing/pictures/0.png").status_code == 404
    for action in ("interrupt", "skip", "cancel", "retry", "move-up"):
        answer = web.post(f"/jobs/nothing/{action}")
        assert answer.status_code == 404, action
        assert answer.json()["error"] == "NotFound"


def test_previews_come_from_memory_while_the_job_runs(web: Any) -> None:
    job = submit(web, steps=150)
    deadline = time.monotonic() + 20
    while not web.get(f"/jobs/{job}").json()["preview"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    preview = web.get(f"/jobs/{job}/preview.jpg")
    assert preview.headers["content-type"] == "image/jpeg"
    assert preview.headers["cache-control"] == "no-store"
    assert preview.content[:2] == b"\xff\xd8"
    assert web.get("/jobs?state=running").json()["jobs"][0]["id"] == job
    assert web.get("/status").json()["running"][0]["id"] == job
    assert web.post(f"/jobs/{job}/interrupt").json() == {"changed": True}
    assert finished(web, job)["state"] == "interrupted"
    assert web.get(f"/jobs/{job}/preview.jpg").status_code == 204


def test_a_waiting_job_moves_up_and_is_cancelled(web: Any) -> None:
    running = submit(web, steps=150)
    first, second = submit(web), submit(web)
    while web.get(f"/jobs/{running}").json()["state"] == "pending":
        time.sleep(0.01)
    assert [web.get(f"/jobs/{j}").json()["position"] for j in (first, second)] == [0, 1]
    assert web.get("/status").json()["waiting"] == 2
    assert web.post(f"/jobs/{second}/move-up").json() == {"changed": True}
    assert [web.get(f"/jobs/{j}").json()["position"] for j in (first, second)] == [1, 0]
    assert web.post(f"/jobs/{second}/move-up").json() == {"changed": False}
    for job in (first, second):
        assert web.post(f"/jobs/{job}/cancel").json() == {"changed": True}
        assert web.get(f"/jobs/{job}").json()["state"] == "cancelled"
        assert web.post(f"/jobs/{job}/cancel").json() == {"changed": False}
    web.post(f"/jobs/{running}/interrupt")
    finished(web, running)


def test_a_finished_job_is_made_again_under_a_new_id(web: Any) -> None:
    job = submit(web, seed=11)
    finished(web, job)
    again = web.post(f"/jobs/{job}/retry").json()["id"]
    assert again != job
    assert finished(web, again)["params"]["seed"] == 11


def test_a_full_queue_says_when_to_come_back(web: Any, fake_jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    running = submit(web, steps=150)
    monkeypatch.setattr(fake_jobs, "max_pending", 0)
    answer = web.post("/jobs", json={"prompt": "x"})
    assert answer.status_code == 429
    assert answer.headers["retry-after"]
    assert answer.json()["error"] == "QueueFull"
    web.post(f"/jobs/{running}/interrupt")
    finished(web, running)


def test_the_list_is_bounded_and_newest_first(web: Any) -> None:
    jobs = [submit(web, steps=1) for _ in range(3)]
    listed = [view["id"] for view in web.get("/jobs?limit=2").json()["jobs"]]
    assert listed == jobs[:0:-1]
    assert {view["id"] for view in web.get("/jobs?order=turn").json()["jobs"]} >= set(jobs)
    assert web.get("/jobs?order=size").status_code == 422
    assert web.get("/jobs?limit=0").status_code == 422
    assert web.get("/jobs?limit=100000").json()["error"] == "InvalidParams"
    for job in jobs:
        finished(web, job)
