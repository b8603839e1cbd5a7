"""Jobs from submit to result, with a real worker process and a stand-in engine."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from job_bench import Bench, finished, ready, sampling, submit, wait_for
from job_engines import PlainCatalog, recorded

from webui.errors import AlreadyRunning, InvalidParams, NotFound, QueueFull, WebUIError
from webui.events import Failed, Finished, Image, Loading, Warning
from webui.jobs.service import JobService
from webui.jobs.states import JobState
from webui.params import make_params
from webui.settings import changed


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, JobService]]:
    """One service for all tests that leave its worker as it was."""
    bench = Bench(tmp_path_factory.mktemp("shared") / "data")
    service = bench.service()
    yield bench, service
    bench.stop()


@pytest.fixture
def service(shared: tuple[Bench, JobService]) -> JobService:
    return shared[1]


def test_a_job_runs_and_its_view_has_all_that_the_page_shows(service: JobService) -> None:
    job = submit(service, "a red apple", batch_count=2)
    view = finished(service, job)
    assert view["state"] == "done"
    assert view["params"]["prompt"] == "a red apple"
    assert view["params"]["checkpoint"] == "a.safetensors"
    assert [image["path"] for image in view["images"]] == ["txt2img-images/00000-5.png", "txt2img-images/00001-6.png"]
    assert view["images"][1]["infotext"] == "a red apple"
    assert view["warnings"] == [{"code": "note", "text": "a note"}]
    waited = view["started"] - view["created"]
    assert view["seconds"] == {"queue": waited, "sample": 0.5, "total": 1.0}, "the wait, and what the engine told"
    assert view["peak_memory"] == 120
    assert (view["step"], view["steps"], view["batch"], view["batches"]) == (3, 3, 2, 2)
    assert view["progress"] == 1.0
    assert view["created"] <= view["started"] <= view["finished"]
    assert (view["position"], view["phase"], view["error"]) == (None, "", None)
    json.dumps(view, allow_nan=False)


def test_the_view_changes_its_revision_with_each_change_and_only_then(service: JobService) -> None:
    job = submit(service, "slow", steps=4)
    seen = []
    while True:
        view = service.view(job)
        assert view is not None
        if view["state"] != "pending" and (not seen or view != seen[-1]):
            seen.append(view)
        if view["state"] == "done":
            break
    revisions = [view["rev"] for view in seen]
    assert revisions == sorted(set(revisions))
    assert {view["step"] for view in seen} >= {1, 2, 3, 4}
    assert max(view["preview"] for view in seen) >= 3
    assert service.preview(job) == b"jpeg 4"


def test_a_seed_of_minus_one_is_drawn_before_the_job_waits(service: JobService) -> None:
    view = service.view(submit(service, seed=-1))
    assert view is not None
    assert view["params"]["seed"] >= 0


def test_a_watcher_that_comes_late_still_gets_the_whole_job_and_then_ends(service: JobService) -> None:
    job = submit(service, batch_count=2)
    finished(service, job)
    sequences, events = zip(*service.watch(job), strict=True)
    assert list(sequences) == sorted(set(sequences))
    assert [e.index for e in events if isinstance(e, Image)] == [0, 1]
    assert sum(isinstance(e, Warning) for e in events) == 2
    assert isinstance(events[-1], Finished)


def test_a_watcher_resumes_behind_the_sequence_number_it_has_seen(service: JobService) -> None:
    job = submit(service, "slow", steps=3)
    watcher = service.watch(job)
    first = [next(iter(watcher)) for _ in range(3)]
    watcher.close()
    rest = list(service.watch(job, after=first[-1][0]))
    assert rest[0][0] > first[-1][0]
    assert isinstance(rest[-1][1], Finished)


def test_F38_an_interrupt_keeps_what_is_finished(service: JobService) -> None:
    job = submit(service, "slow", batch_count=3, steps=20)
    sampling(service, job)
    assert service.interrupt(job)
    view = finished(service, job)
    assert view["state"] == "interrupted"
    assert len(view["images"]) == 1
    assert view["error"] is None


def test_F38_an_interrupt_of_a_finished_job_does_nothing_and_never_hits_the_next(service: JobService) -> None:
    first = submit(service)
    finished(service, first)
    second = submit(service, "slow", steps=3)
    sampling(service, second)
    assert not service.interrupt(first)
    assert not service.skip(first)
    assert not service.cancel(first)
    assert finished(service, second)["state"] == "done"
    third = submit(service)
    assert finished(service, third)["state"] == "done"


def test_F38_interrupts_at_every_moment_end_in_an_idle_worker_and_one_end_each(service: JobService) -> None:
    jobs = [submit(service, f"burst {n}", steps=2) for n in range(12)]
    for number, job in enumerate(jobs):
        if number % 3 == 0:
            service.interrupt(job)
        elif number % 3 == 1:
            wait_for(lambda job=job: service.view(job)["state"] != "pending", "a claim")  # type: ignore[index]
            service.interrupt(job)
    states = [finished(service, job)["state"] for job in jobs]
    assert set(states) <= {"done", "interrupted", "cancelled"}
    assert all(state == "done" for state in states[2::3])
    for job in jobs:
        assert sum(isinstance(event, Finished | Failed) for _, event in service.watch(job)) == 1
    ready(service)


def test_skip_leaves_the_picture_in_the_making_alone(service: JobService) -> None:
    job = submit(service, "slow", steps=30, batch_count=2)
    sampling(service, job)
    assert service.skip(job)
    wait_for(lambda: service.view(job)["batch"] == 2, "the second batch")  # type: ignore[index]
    assert service.skip(job)
    view = finished(service, job)
    assert view["state"] == "done"
    assert {w["code"] for w in view["warnings"]} == {"skipped", "note"}


def test_waiting_jobs_are_cancelled_moved_and_run_in_order(shared: tuple[Bench, JobService]) -> None:
    bench, service = shared
    running = submit(service, "slow one", steps=5)
    sampling(service, running)
    a, b, c = (submit(service, f"order-{name}") for name in "abc")
    assert [service.view(job)["position"] for job in (a, b, c)] == [0, 1, 2]  # type: ignore[index]
    before = service.view(b)
    assert service.cancel(a)
    assert service.move(c)
    after = service.view(b)
    assert before is not None
    assert after is not None
    assert after["rev"] > before["rev"]
    assert [view["id"] for view in service.list(4)] == [c, b, a, running]
    assert [view["id"] for view in service.in_turn(1)[:2]] == [running, c], "of many that wait, the next one"
    assert [view["id"] for view in service.in_turn(4)[:4]] == [running, c, b, a]
    assert [view["id"] for view in service.list(1, states=(JobState.running,))] == [running]
    finished(service, b)
    assert finished(service, a)["state"] == "cancelled"
    assert [prompt for prompt in bench.runs if prompt.startswith("order-")] == ["order-c", "order-b"]
    assert isinstance(next(iter(service.watch(a)))[1], Finished)


def test_emptying_the_queue_leaves_the_running_job_alone(service: JobService) -> None:
    running = submit(service, "slow", steps=3)
    sampling(service, running)
    waiting = [submit(service) for _ in range(4)]
    assert service.cancel_all_pending() == 4
    assert {service.view(job)["state"] for job in waiting} == {"cancelled"}  # type: ignore[index]
    assert finished(service, running)["state"] == "done"


def test_F43_a_double_click_makes_one_job(shared: tuple[Bench, JobService]) -> None:
    bench, service = shared
    assert submit(service, "clicked twice", key="click-1") == submit(service, "clicked twice", key="click-1")
    finished(service, submit(service, "clicked twice", key="click-1"))
    assert bench.runs.count("clicked twice") == 1


def test_retry_makes_a_new_job_with_the_same_params(service: JobService) -> None:
    first = submit(service, "again", seed=-1)
    old = finished(service, first)
    second = service.retry(first)
    new = finished(service, second)
    assert second != first
    assert new["params"] == old["params"]
    running = submit(service, "slow")
    with pytest.raises(InvalidParams, match="still"):
        service.retry(running)
    finished(service, running)


@pytest.mark.parametrize(
    ("prompt", "kind", "words"),
    [
        ("raise", "EngineFault", "a fault nobody foresaw"),
        ("memory", "OutOfMemory", "ran out of memory"),
        ("silent", "EngineFault", "without a result"),
    ],
)
def test_a_job_that_fails_says_why_and_the_next_one_runs(
    service: JobService, prompt: str, kind: str, words: str
) -> None:
    job = submit(service, prompt)
    next_one = submit(service)
    view = finished(service, job)
    assert view["state"] == "failed"
    assert view["error"]["error"] == kind
    assert words in view["error"]["message"]
    assert view["error"]["advice"]
    assert finished(service, next_one)["state"] == "done"


def test_what_an_engine_says_after_the_end_is_not_heard(service: JobService) -> None:
    job = submit(service, "twice")
    assert finished(service, job)["state"] == "done"
    ready(service)
    assert service.view(job)["state"] == "done"  # type: ignore[index]


def test_F13_a_picture_that_could_not_be_saved_is_kept_in_memory(service: JobService) -> None:
    job = submit(service, "unsaved")
    view = finished(service, job)
    assert view["state"] == "done"
    assert view["images"][0]["error"] == "No space left on device"
    assert view["images"][0]["path"] == ""
    assert service.picture(job, 0) == b"png bytes"
    assert service.picture(job, 1) is None


def test_F44_a_flood_of_previews_holds_up_neither_job_nor_memory(service: JobService) -> None:
    lazy = service.watch()
    job = submit(service, "flood")
    assert finished(service, job)["state"] == "done"
    kinds = [type(e.event).__name__ for e in iter(lambda: lazy.get(0.05), None) if e.job == job]
    assert kinds.count("Preview") <= 1
    assert kinds[-1] == "Finished"
    assert kinds.count("Image") == 1
    lazy.close()


def test_unknown_jobs_are_not_found(service: JobService) -> None:
    assert service.view("nope") is None
    assert service.preview("nope") is None
    for action in (service.interrupt, service.cancel, service.skip, service.retry, service.watch):
        with pytest.raises(NotFound):
            action("nope")
    assert not service.move("nope")


def test_the_worker_tells_its_state_device_and_memory(service: JobService) -> None:
    ready(service)
    worker = wait_for(lambda: service.worker() if service.worker()["memory"] else None, "a heartbeat with memory")
    assert worker == {
        "state": "ready",
        "device": "cpu",
        "memory": {"device": "cpu", "used": 100, "reserved": 100, "total": 1000, "peak": 120},
        "detail": "",
    }
    assert service.report()["name"] == "stand-in"


def test_the_log_of_the_worker_reaches_the_log_of_the_front(
    service: JobService, caplog: pytest.LogCaptureFixture
) -> None:
    finished(service, submit(service, "raise"))
    ready(service)
    assert any(
        "Traceback" in record.getMessage() and "nobody foresaw" in record.getMessage() for record in caplog.records
    )


def test_F33_a_second_instance_on_the_same_folder_refuses(shared: tuple[Bench, JobService]) -> None:
    bench, service = shared
    with pytest.raises(AlreadyRunning, match=r"process \d+") as refusal:
        bench.service()
    assert "--data-dir" in refusal.value.advice
    assert finished(service, submit(service))["state"] == "done"


def test_the_selected_model_is_loaded_before_any_job(bench: Bench) -> None:
    service = bench.service(catalog=PlainCatalog("first.safetensors"))
    wait_for(lambda: any(isinstance(e, Loading) and e.name == "first.safetensors" for _, e in bench.heard), "loading")
    ready(service)
    service.set_selected("second.safetensors")
    wait_for(lambda: any(isinstance(e, Loading) and e.name == "second.safetensors" for _, e in bench.heard), "loading")
    assert bench.runs == []


def test_a_full_queue_refuses(bench: Bench) -> None:
    service = bench.service(max_pending=2)
    running = submit(service, "slow", steps=50)
    sampling(service, running)
    submit(service)
    submit(service)
    with pytest.raises(QueueFull):
        submit(service)


def test_F40_a_restart_keeps_what_waits_and_shows_what_was_lost(bench: Bench) -> None:
    service = bench.service()
    done = submit(service, "before", batch_count=2)
    shown_before = finished(service, done)
    running = submit(service, "slow busy", steps=2)
    wait_for(lambda: service.view(running)["images"], "the first picture")  # type: ignore[index]
    waiting = [submit(service, f"after {n}") for n in range(3)]
    service.stop()  # the engine does not react to the interrupt: it is killed

    again = bench.service()
    lost = again.view(running)
    assert lost is not None
    assert lost["state"] == "lost"
    assert "was stopped" in lost["error"]["message"]
    assert len(lost["images"]) == 1
    for job in waiting:
        assert finished(again, job)["state"] == "done"
    shown = again.view(done)
    assert shown is not None
    assert {**shown, "rev": 0, "preview": 0} == {**shown_before, "rev": 0, "preview": 0}
    assert isinstance(list(again.watch(done))[-1][1], Finished)
    assert isinstance(list(again.watch(running))[-1][1], Failed)
    retried = again.retry(running)
    assert again.view(retried)["params"] == lost["params"]  # type: ignore[index]
    assert bench.runs[:5] == ["before", "slow busy", "after 0", "after 1", "after 2"]
    again.stop()


def test_a_stored_job_that_this_version_cannot_read_fails_and_the_queue_goes_on(bench: Bench) -> None:
    service = bench.service()
    blocker = submit(service, "slow")
    sampling(service, blocker)
    strange = service._queue.enqueue('{"steps": 0}').id
    last = submit(service)
    assert finished(service, strange)["error"]["error"] == "InvalidParams"
    assert finished(service, last)["state"] == "done"


def test_F37_a_listener_that_fails_is_logged_and_harms_no_job(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def broken(job: str, event: object) -> None:
        raise RuntimeError("a listener's fault")

    service = bench.service(on_event=broken)
    assert finished(service, submit(service))["state"] == "done"
    assert any(record.exc_info for record in caplog.records)


def test_only_settings_that_concern_the_engine_replace_the_worker(bench: Bench) -> None:
    service = bench.service()
    pid = ready(service)
    others = {"page.theme": "dark", "model.checkpoint": "b", "queue.max_pending": 1, "saving.format": "webp"}
    service.apply_settings(changed(service._settings, others))
    assert finished(service, submit(service))["state"] == "done"
    assert ready(service) == pid
    service.apply_settings(changed(service._settings, {"device.attention": "sliced"}))
    wait_for(lambda: service._supervisor.pid not in (pid, None), "a new worker")
    assert finished(service, submit(service))["state"] == "done"


def test_a_waiting_job_goes_before_a_model_to_load_ahead(bench: Bench) -> None:
    service = bench.service()
    running = submit(service, "slow")
    sampling(service, running)
    service.set_selected("other.safetensors")
    next_one = submit(service)
    finished(service, next_one)
    wait_for(lambda: any(isinstance(event, Loading) for _, event in bench.heard), "the load")
    order = [event for job, event in bench.heard if isinstance(event, Finished | Loading)]
    assert [type(event) for event in order] == [Finished, Finished, Loading]


def test_before_the_start_and_after_the_stop_calls_are_refused_with_a_reason(bench: Bench) -> None:
    service = bench.service()
    service.stop()
    service.stop()
    with pytest.raises(WebUIError, match="not open"):
        submit(service)
    with pytest.raises(WebUIError, match="not open"):
        service.view("x")


def test_an_engine_that_records_is_told_whose_job_it_does(bench: Bench) -> None:
    service = bench.service(factory=recorded)
    job = service.submit(make_params({"prompt": "mine", "steps": 1}), user="ann")
    assert finished(service, job)["user"] == "ann"
    assert (bench.paths.cache_dir / "followed").read_text() == f"{job} ann"


def test_params_travel_whole(service: JobService) -> None:
    params = make_params({"prompt": "π\n\U0001f34e", "sigmas": (3.0, 1.0, 0.0), "width": 128, "height": 64, "seed": 7})
    job = service.submit(params)
    assert finished(service, job)["params"] == params.changed(
        checkpoint="a.safetensors",
        variation_seed=service.view(job)["params"]["variation_seed"],  # type: ignore[index]
    ).model_dump(mode="json")
