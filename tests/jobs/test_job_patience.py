"""How long the supervisor waits for what, and what it begins next. Clock, worker and host are played."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from webui.errors import WebUIError
from webui.events import Event, Finished, Memory, Started, Step
from webui.jobs import supervisor as module
from webui.jobs.process import Received
from webui.jobs.supervisor import LOADING_PATIENCE, TICK, Assignment, Supervisor
from webui.jobs.wire import Message, event_message
from webui.jobs.worker import EXIT_DEVICE_LOST

LIMIT = 100.0  # seconds of silence
DAY = 24 * 3600.0
DONE = Finished(1, {}, 0)


@dataclass
class PlayedWorker:
    """A worker process that is said to have heard, and to have ended with `exit_code`."""

    number: int
    started: float
    heard: float
    pid: int = 1
    exit_code: int | None = None
    killed: bool = False
    sent: list[Message] = field(default_factory=list)

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def kill(self) -> None:
        self.killed = True

    def end(self, _patience: float) -> int | None:
        return self.exit_code

    def last_words(self) -> str:
        return ""


@dataclass
class PlayedHost:
    """Has these jobs, and notes how each of them ended."""

    waiting: deque[Assignment] = field(default_factory=deque)
    ended: dict[str, str] = field(default_factory=dict)
    before_requeue: Callable[[], None] = lambda: None

    def claim(self) -> Assignment | None:
        return self.waiting.popleft() if self.waiting else None

    def event(self, job: str, event: Event) -> None:
        if isinstance(event, Finished):
            self.ended[job] = "finished"

    def failed(self, job: str, error: WebUIError) -> None:
        self.ended[job] = error.message

    def requeued(self, job: str, error: WebUIError) -> bool:
        self.before_requeue()
        self.waiting.append(Assignment(job, "{}", 1.0))
        return True

    def lost(self, job: str) -> None:
        self.ended[job] = "lost"


class Stage:
    """A supervisor without its thread: the test says what comes next and what time it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.host = PlayedHost()
        self.workers: list[PlayedWorker] = []
        self.supervisor = Supervisor(self._launch, self.host, lambda: LIMIT)

    def _launch(self, number: int, _receive: Any) -> Any:
        self.workers.append(PlayedWorker(number, self.now, self.now))
        return self.workers[-1]

    @property
    def worker(self) -> PlayedWorker:
        return self.workers[-1]

    def look(self) -> None:
        """What the thread does between two messages."""
        self.supervisor._start_if_due()
        self.supervisor._dispatch()
        self.supervisor._check_silence()

    def says(self, message: Message) -> None:
        self.worker.heard = self.now
        self.supervisor._take(Received(self.worker.number, message))

    def tells(self, job: str, event: Event) -> None:
        self.says(event_message(job, event))

    def passes(self, seconds: float) -> None:
        """Time in which the worker's heart beats and the supervisor looks now and then."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 9 * TICK)
            self.says(Message("heartbeat"))
            self.supervisor._check_silence()

    def runs(self, *jobs: Assignment) -> None:
        """A worker that is ready is given the first of these."""
        self.host.waiting.extend(jobs)
        self.look()
        self.now += TICK
        self.says(Message("ready"))
        self.look()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_an_old_worker_outlives_the_moment_between_a_jobs_end_and_its_idle(stage: Stage) -> None:
    stage.runs(Assignment("a", "{}", 1000.0))
    stage.passes(2 * LIMIT * LOADING_PATIENCE)
    stage.tells("a", DONE)
    stage.look()
    assert not stage.worker.killed
    stage.says(Message("idle", "a"))
    assert stage.host.ended == {"a": "finished"}
    assert len(stage.workers) == 1


def test_an_old_worker_that_empties_a_cache_gets_its_time(stage: Stage) -> None:
    stage.runs(Assignment("a", "{}", 1000.0))
    stage.passes(2 * LIMIT * LOADING_PATIENCE)
    stage.tells("a", DONE)
    stage.says(Message("idle", "a"))
    stage.supervisor.clear(["prompts"])
    stage.look()
    assert stage.worker.sent[-1].kind == "clear"
    assert not stage.worker.killed


def test_a_worker_that_never_becomes_idle_after_a_job_is_killed(stage: Stage) -> None:
    stage.runs(Assignment("a", "{}", 1.0))
    stage.tells("a", DONE)
    stage.passes(LIMIT * LOADING_PATIENCE)
    assert not stage.worker.killed
    stage.passes(10 * TICK)
    assert stage.worker.killed


def test_a_slow_upscale_that_tells_of_its_tiles_is_left_alone(stage: Stage) -> None:
    stage.runs(Assignment("a", "{}", 1.0))
    stage.tells("a", Started(1, 512, 512, 1))
    for _ in range(3):
        stage.passes(0.9 * LIMIT)
        stage.tells("a", Memory("cpu", 1, 1, 1, 1))
    assert not stage.worker.killed
    stage.passes(LIMIT + 10 * TICK)
    assert stage.worker.killed


def test_the_patience_follows_from_the_size_that_the_worker_tells(stage: Stage) -> None:
    stage.runs(Assignment("a", "{}", 1.0))
    stage.tells("a", Started(1, 2048, 1024, 1))
    stage.passes(8 * LIMIT)
    assert not stage.worker.killed
    stage.tells("a", Step(1, 2, 1, 1, 1.0, 1.0))
    stage.passes(8 * LIMIT + 10 * TICK)
    assert stage.worker.killed


def test_a_small_pass_does_not_shorten_the_patience_of_a_large_batch(stage: Stage) -> None:
    stage.runs(Assignment("a", "{}", 8.0))
    stage.tells("a", Started(8, 512, 512, 1))
    stage.passes(8 * LIMIT)
    assert not stage.worker.killed


def test_nothing_is_begun_any_more_once_the_program_is_about_to_stop(stage: Stage) -> None:
    stage.runs(Assignment("a", "{}", 1.0), Assignment("b", "{}", 1.0))
    stage.supervisor.hold()
    stage.tells("a", DONE)
    stage.says(Message("idle", "a"))
    stage.look()
    assert [one.id for one in stage.host.waiting] == ["b"]
    stage.says(Message("gone"))
    stage.now += DAY  # whatever the pause before a restart
    stage.look()
    assert len(stage.workers) == 1
    assert [one.id for one in stage.host.waiting] == ["b"]


def lose_device(stage: Stage) -> None:
    stage.worker.exit_code = EXIT_DEVICE_LOST
    stage.says(Message("gone"))


def test_F06_a_cancel_while_a_job_goes_back_into_the_queue_finds_it_there(stage: Stage) -> None:
    found: list[bool] = []

    def cancel() -> None:  # as `JobService.interrupt` looks for it
        found.append(stage.supervisor.interrupt("a") or any(one.id == "a" for one in stage.host.waiting))

    canceller = threading.Thread(target=cancel)

    def meanwhile() -> None:
        canceller.start()
        canceller.join(0.2)  # without the lock it would be through by now

    stage.host.before_requeue = meanwhile
    stage.runs(Assignment("a", "{}", 1.0))
    lose_device(stage)
    canceller.join()
    assert found == [True]


def test_F06_a_job_that_was_cancelled_before_the_device_was_lost_is_not_run_again(stage: Stage) -> None:
    stage.runs(Assignment("a", "{}", 1.0))
    assert stage.supervisor.interrupt("a")
    lose_device(stage)
    assert not stage.host.waiting
    assert stage.host.ended == {"a": "The graphics device failed."}
