"""A running `JobService` with a stand-in engine, and a way to wait that names what it waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from job_engines import PlainCatalog, scripted

from webui.events import Event
from webui.jobs.service import JobService
from webui.params import make_params
from webui.paths import Paths
from webui.settings import QueueSettings, Settings

PATIENCE = 120.0  # seconds: only a broken product reaches it


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"in {PATIENCE:.0f} seconds there was no: {what}")


class Bench:
    """Services on one data folder, with shorthands for tests. All of them are stopped at the end."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths.under(root)
        self.paths.make_folders()
        self.heard: list[tuple[str, Event]] = []
        self._services: list[JobService] = []

    def service(self, *, timeout: float = 60.0, max_pending: int = 500, **options: Any) -> JobService:
        settings = Settings(queue=QueueSettings(max_pending=max_pending, worker_timeout_seconds=timeout))
        options.setdefault("factory", scripted)
        options.setdefault("catalog", PlainCatalog())
        options.setdefault("on_event", lambda job, event: self.heard.append((job, event)))
        service = JobService(settings, self.paths, **options)
        self._services.append(service)
        service.start()
        return service

    @property
    def runs(self) -> list[str]:
        """The prompts that an engine really ran, in order."""
        log = self.paths.cache_dir / "runs.log"
        return log.read_text().splitlines() if log.exists() else []

    def stop(self) -> None:
        for service in self._services:
            service.stop()


def submit(service: JobService, prompt: str = "plain", **fields: Any) -> str:
    key = fields.pop("key", None)
    return service.submit(make_params({"prompt": prompt, "steps": 3, "seed": 5, **fields}), key=key)


def finished(service: JobService, job: str) -> dict[str, Any]:
    """The view of a job once it is over."""

    def over() -> dict[str, Any] | None:
        view = service.view(job)
        assert view is not None
        return view if view["state"] not in ("pending", "running") else None

    view: dict[str, Any] = wait_for(over, f"end of job {job}")
    return view


def sampling(service: JobService, job: str) -> dict[str, Any]:
    """The view of a job once it has done a step."""

    def has_begun() -> dict[str, Any] | None:
        view = service.view(job)
        return view if view and view["step"] else None

    view: dict[str, Any] = wait_for(has_begun, f"first step of job {job}")
    return view


def ready(service: JobService) -> int:
    """Wait for an idle worker; gives its process id."""
    wait_for(lambda: service.worker()["state"] == "ready", "ready worker")
    pid = service._supervisor.pid
    assert pid is not None
    return pid
