"""The whole way through two processes: the queue, a real worker process (without torch), rows that the page reads."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from history_studio import Studio

from webui import events
from webui.caches import CacheState
from webui.history import History, Recorder
from webui.history.reconcile import origins_of
from webui.history.records import State
from webui.jobs.service import JobService
from webui.jobs.worker import EngineLike, RecordedEngine
from webui.params import GenerationParams
from webui.paths import Paths, write_new
from webui.settings import Settings

PATIENCE = 60.0  # seconds


@dataclass
class PaintingEngine:
    """Saves real pictures through the save hook, and dies where the prompt says."""

    studio: Studio

    def generate(
        self, params: GenerationParams, control: Any = None, *, user: str = "", made: Sequence[events.Image] = ()
    ) -> Iterator[events.Event]:
        yield events.Started(params.pictures, 64, 48, 1)
        if "die" in params.prompt:

            def write(path: Any, data: bytes) -> None:
                write_new(path, data)
                os.kill(os.getpid(), signal.SIGKILL)

            self.studio.write = write
        folder = self.studio.paths.outputs / "made"
        for index in range(params.pictures):
            seed = params.seeds_of(index)[0]
            path = self.studio.save(params, index=index, path=folder / f"{seed}.png")
            yield events.Image(index, str(path), seed, 64, 48, "", "")
        yield events.Finished(params.pictures, {"total": 0.5}, 77)

    def load(self, checkpoint: str | None = None, vae: str | None = None) -> Iterator[events.Event]:
        yield from ()

    def memory(self) -> events.Memory:
        return events.Memory("cpu", 1, 1, 10, 1)

    def report(self) -> dict[str, str]:
        return {"device": "cpu"}

    def caches(self) -> tuple[CacheState, ...]:
        return ()

    def clear(self, names: Sequence[str] = ()) -> None:
        pass


def painting(settings: Settings, paths: Paths) -> EngineLike:
    """Called in the worker process."""
    recorder = Recorder(paths)
    return RecordedEngine(PaintingEngine(Studio(paths, recorder)), recorder)


class EveryModel:
    """A catalog where everything is there."""

    def resolve(self, params: GenerationParams, settings: Settings) -> GenerationParams:
        return params

    def default_checkpoint(self, preferred: str = "", **_: Any) -> None:
        return None


@pytest.fixture
def service(paths: Paths, history: History) -> Iterator[JobService]:
    service = JobService(
        Settings(), paths, EveryModel(), on_event=lambda _, event: history.heard(event), factory=painting
    )
    service.start()
    history.start(lambda: origins_of(service.list(100)))
    yield service
    service.stop()


def finished(service: JobService, job: str) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        view = service.view(job)
        assert view is not None
        if view["state"] in ("done", "failed", "interrupted"):
            return view
        time.sleep(0.01)
    raise AssertionError("the job did not end")


def test_a_job_of_the_queue_is_in_the_history_with_its_user_and_its_cost(
    service: JobService, history: History, studio: Studio
) -> None:
    job = service.submit(studio.params(seed=5, batch_count=3), user="anna")
    assert finished(service, job)["state"] == "done"
    cards = history.of_job("anna", job)
    assert [card.seed for card in cards] == [5, 6, 7]
    records = [history.get("anna", card.id).record for card in cards]
    assert all(record.seconds == {"total": 0.5} and record.peak_memory == 77 for record in records)
    assert history.page("ben").cards == ()
    history.link("anna", service.submit(studio.params(seed=6), user="anna"), cards[1].id, "replay", {})


def test_F19_what_a_worker_had_saved_when_it_died_is_put_right_while_the_page_is_up(
    service: JobService, history: History, studio: Studio
) -> None:
    job = service.submit(studio.params(seed=9, prompt="die"), user="anna")
    assert finished(service, job)["error"]["error"] == "WorkerDied"
    end = time.monotonic() + PATIENCE
    while not history.of_job("anna", job) and time.monotonic() < end:
        time.sleep(0.01)
    [card] = history.of_job("anna", job)
    assert (card.seed, card.state) == (9, State.present)
    after = service.submit(studio.params(seed=10), user="anna")  # the queue goes on
    assert finished(service, after)["state"] == "done"
    assert [card.seed for card in history.page("anna").cards] == [10, 9]
