"""What the supervisor does when a worker dies, hangs, cannot start, or has to end. The workers are real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from job_bench import Bench, finished, ready, sampling, submit, wait_for
from job_engines import PlainCatalog, cannot_start, starts_once_mended

from webui.events import Loading, Step
from webui.jobs import crashes
from webui.jobs.process import explain_exit
from webui.jobs.queue import JobQueue
from webui.jobs.service import JobService
from webui.jobs.states import JobState
from webui.jobs.supervisor import END_PATIENCE, STOP_PATIENCE
from webui.jobs.wire import event_message

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs POSIX signals and /proc")


def worker_pid(service: JobService) -> int | None:
    """The worker's process id at this moment."""
    return service._supervisor.pid


def alive(pid: int) -> bool:
    """Whether the process runs (one that has ended and waits for its parent does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_F05_a_worker_killed_in_mid_job_fails_that_job_with_the_reason_and_the_queue_goes_on(bench: Bench) -> None:
    service = bench.service()
    job = submit(service, "kill", batch_count=2)
    following = [submit(service) for _ in range(2)]
    first = worker_pid(service)
    view = finished(service, job)
    assert view["state"] == "failed"
    assert view["error"]["error"] == "WorkerDied"
    assert view["error"]["message"] == "The engine worker died (signal 9, SIGKILL)."
    assert "memory" in view["error"]["advice"]
    assert len(view["images"]) == 1  # what was finished before stays
    for job in following:
        assert finished(service, job)["state"] == "done"
    assert ready(service) != first


def test_F05_a_worker_killed_at_rest_is_replaced(bench: Bench) -> None:
    service = bench.service()
    pid = ready(service)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: worker_pid(service) not in (pid, None), "a new worker")
    assert finished(service, submit(service))["state"] == "done"


def test_F36_a_stopped_worker_is_killed_after_the_time_limit_and_the_queue_goes_on(bench: Bench) -> None:
    service = bench.service(timeout=3)
    job = submit(service, "stop soon")
    next_one = submit(service)
    view = finished(service, job)
    assert view["state"] == "failed"
    assert "did not answer for" in view["error"]["message"]
    assert view["error"]["advice"]
    assert finished(service, next_one)["state"] == "done"


def test_F36_a_job_without_progress_is_stopped_though_the_heart_beats(bench: Bench) -> None:
    service = bench.service(timeout=3)
    job = submit(service, "hang soon")
    next_one = submit(service)
    view = finished(service, job)
    assert view["state"] == "failed"
    assert "made no progress" in view["error"]["message"]
    assert finished(service, next_one)["state"] == "done"


def test_F36_the_time_limit_grows_with_the_picture(bench: Bench) -> None:
    service = bench.service()
    service._supervisor.stop()  # from here on this thread plays its part
    for side, batch in ((64, 1), (512, 1), (2048, 2)):
        submit(service, width=side, height=side, batch_size=batch)
    submit(service, width=512, height=512, hires={"scale": 2.0})
    submit(service, width=512, height=512, batch_size=2, hires={"width": 2048, "height": 512})  # cut from 2048x2048
    submit(service, extras={"width": 1024, "height": 512, "image": "0" * 64})
    scales = [service.claim().scale for _ in range(6)]  # type: ignore[union-attr]
    assert scales == [1.0, 1.0, 32.0, 4.0, 32.0, 2.0]


def test_F06_a_lost_device_costs_a_new_worker_and_the_job_runs_once_more(bench: Bench) -> None:
    service = bench.service()
    pid = ready(service)
    job = submit(service, "midway", batch_count=3)
    view = finished(service, job)
    assert view["state"] == "done"
    assert [w["code"] for w in view["warnings"]] == ["device_lost", "note"]
    assert [image["index"] for image in view["images"]] == [0, 1, 2]
    assert bench.runs == ["midway", "midway"]
    first = [event.step for _, event in bench.heard if isinstance(event, Step) and event.batch == 1]
    assert first == sorted(set(first)), "what was finished before is not made again"
    assert worker_pid(service) != pid


def test_F06_a_device_that_stays_lost_fails_the_job_and_is_no_loop(bench: Bench) -> None:
    service = bench.service()
    view = finished(service, submit(service, "sticky always"))
    assert view["state"] == "failed"
    assert view["error"]["error"] == "DeviceLost"
    assert bench.runs == ["sticky always", "sticky always"]


def test_too_many_crashes_end_in_a_failed_worker_and_a_later_submit_tries_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crashes, "PAUSES", (0.0,))
    service = bench.service(factory=starts_once_mended)
    waiting = submit(service)
    wait_for(lambda: service.worker()["state"] == "failed", "giving up")
    assert "exit code 7" in service.worker()["detail"]
    assert service._supervisor._number == 1 + crashes.MAX_RESTARTS
    assert service.view(waiting)["state"] == "pending"  # type: ignore[index]
    assert service.view(waiting)["line"] == service.worker()["detail"]  # type: ignore[index]
    (bench.paths.cache_dir / "mended").touch()
    later = submit(service)
    assert finished(service, waiting)["state"] == "done"
    assert finished(service, later)["state"] == "done"


def test_jobs_that_crash_with_a_success_between_never_make_it_give_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crashes, "PAUSES", (0.0,))
    monkeypatch.setattr(crashes, "MAX_RESTARTS", 1)
    service = bench.service()
    jobs = [submit(service, prompt) for prompt in ("leave soon", "plain", "leave soon", "plain")]
    assert [finished(service, job)["state"] for job in jobs] == ["failed", "done", "failed", "done"]


def test_crashes_are_forgotten_after_ten_minutes_and_the_pauses_grow() -> None:
    now = [0.0]
    count = crashes.Crashes(lambda: now[0])
    pauses = [count.add() for _ in range(crashes.MAX_RESTARTS)]
    assert pauses == sorted(set(crashes.PAUSES))
    now[0] = crashes.WINDOW - 1
    assert count.add() is None
    now[0] = crashes.WINDOW + 1
    assert count.add() == crashes.PAUSES[1]


def test_an_engine_that_cannot_start_tells_why(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crashes, "PAUSES", (0.0,))
    service = bench.service(factory=cannot_start)
    wait_for(lambda: service.worker()["state"] == "failed", "giving up")
    assert "libcuda.so is missing" in service.worker()["detail"]


def test_a_model_that_kills_the_worker_while_it_loads_ahead_is_not_loaded_ahead_again(bench: Bench) -> None:
    service = bench.service(catalog=PlainCatalog("poison.safetensors"))
    wait_for(lambda: service._supervisor._number == 2, "a second worker")
    ready(service)
    assert finished(service, submit(service))["state"] == "done"
    assert service._supervisor._number == 2


def test_a_restart_on_request_waits_for_the_running_job(bench: Bench) -> None:
    service = bench.service()
    pid = ready(service)
    job = submit(service, "slow")
    sampling(service, job)
    service.restart_worker()
    assert finished(service, job)["state"] == "done"
    wait_for(lambda: worker_pid(service) not in (pid, None), "a new worker")
    wait_for(lambda: not alive(pid), "the end of the old worker")
    assert finished(service, submit(service))["state"] == "done"


def test_F35_a_clean_stop_keeps_what_is_finished_and_leaves_no_process(bench: Bench) -> None:
    service = bench.service()
    job = submit(service, "slow", batch_count=2, steps=50)
    sampling(service, job)
    waiting = submit(service)
    pid = worker_pid(service)
    assert pid
    service.stop()
    assert not alive(pid)
    queue = JobQueue(bench.paths.queue_db)
    assert queue.get(job).state is JobState.interrupted
    assert len(queue.get(job).images) == 1
    assert queue.get(waiting).state is JobState.pending
    queue.close()


@pytest.mark.parametrize("prompt", ["hang soon", "stop soon"])
def test_F35_a_worker_that_does_not_listen_is_killed_at_the_stop(bench: Bench, prompt: str) -> None:
    service = bench.service()
    job = submit(service, prompt)
    sampling(service, job)
    pid = worker_pid(service)
    assert pid
    service.stop()
    assert not alive(pid)
    queue = JobQueue(bench.paths.queue_db)
    assert queue.get(job).state is JobState.lost
    assert STOP_PATIENCE + END_PATIENCE < 5  # seconds, as promised; a kill takes no time worth counting
    queue.close()


def test_F35_a_stop_right_after_the_start_leaves_no_process(bench: Bench) -> None:
    service = bench.service()
    wait_for(lambda: worker_pid(service), "a worker process")
    pid = worker_pid(service)
    service.stop()
    assert pid
    assert not alive(pid)


@pytest.fixture
def front(bench: Bench) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1])])
    return subprocess.Popen(
        [sys.executable, str(here / "front_process.py"), str(bench.paths.data_dir), "slow"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_F33_F40_after_a_kill_of_the_front_no_worker_stays_and_the_next_start_takes_over(
    bench: Bench, front: subprocess.Popen[str]
) -> None:
    assert front.stdout
    worker = int(front.stdout.readline())
    assert alive(worker)
    front.kill()
    front.wait()
    wait_for(lambda: not alive(worker), "the end of the orphan")
    service = bench.service()  # the lock of the dead process is no obstacle
    (lost,) = service.list()
    assert lost["state"] == "lost"
    again = service.retry(lost["id"])
    sampling(service, again)
    service.interrupt(again)
    assert finished(service, again)["state"] == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_F35_a_signal_to_the_whole_group_ends_the_front_alone(
    bench: Bench, front: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert front.stdout
    worker = int(front.stdout.readline())
    os.killpg(front.pid, number)  # what a terminal does, or systemctl stop: the whole group gets it
    out, _ = front.communicate(timeout=120)
    assert front.returncode == 0
    assert out.strip() == "None"
    assert not alive(worker)
    queue = JobQueue(bench.paths.queue_db)
    (record,) = queue.list()
    assert record.state is JobState.interrupted  # not lost: the worker lived to save what it had
    queue.close()


@pytest.mark.parametrize("patience", [0.0, 3600.0])
def test_F35_a_worker_dies_of_sigterm_but_not_at_once(patience: float) -> None:
    program = f"""
import os, signal, time
from webui.jobs import worker
worker.TERM_PATIENCE = {patience}
worker._put_off_sigterm()
os.kill(os.getpid(), signal.SIGTERM)
if worker.TERM_PATIENCE:
    os._exit(3)
while True:
    time.sleep(1)
"""
    path = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, timeout=60)
    assert done.returncode == (3 if patience else -signal.SIGTERM)


def test_F12_many_workers_leave_no_threads_and_no_open_files(bench: Bench) -> None:
    import threading

    service = bench.service()
    ready(service)

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0

    def replace_worker() -> None:
        pid = ready(service)
        service.restart_worker()
        wait_for(lambda: worker_pid(service) not in (pid, None), "a new worker")
        ready(service)

    replace_worker()
    before = (open_files(), threading.active_count())
    for _ in range(3):
        replace_worker()
    assert (open_files(), threading.active_count()) == before


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-9, "The engine worker died (signal 9, SIGKILL)."),
        (-7, "The engine worker died (signal 7, SIGBUS)."),
        (-11, "The engine worker died (signal 11, SIGSEGV)."),
        (3, "The engine worker ended by itself (exit code 3)."),
        (75, "The graphics device failed."),
    ],
)
def test_every_way_to_end_has_a_sentence_and_an_advice(code: int, message: str) -> None:
    what, advice = explain_exit(code)
    assert what == message
    assert advice


def test_H113_what_everybody_sees_of_the_worker_names_no_folder(bench: Bench) -> None:
    service = bench.service()
    line = "Loading weights [abc] from /home/anna/models/a.safetensors"
    service._supervisor._event(event_message("", Loading("checkpoint", "a.safetensors", line)))
    assert service.worker()["detail"] == "Loading a.safetensors"
