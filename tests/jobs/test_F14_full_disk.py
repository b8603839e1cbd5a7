"""F14: the disk fills up under the job file. Work goes on, is told once, and reaches the disk when there is room."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from webui.jobs.queue import JobQueue
from webui.jobs.states import JobState


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_F14_jobs_go_on_in_memory_and_are_written_when_the_disk_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.setattr("webui.jobs.database.RETRY_DISK_AFTER", 0.0)
    told: list[str] = []
    queue = JobQueue(tmp_path / "queue.sqlite", tell=told.append)
    job = queue.enqueue("{}").id
    queue.claim()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        assert queue.transition(job, JobState.running, JobState.done, result={"seconds": {"total": 1.0}})
        later = queue.enqueue('{"prompt": "made while the disk was full"}').id
        durable_while_full = queue.durable
        state_while_full = queue.get(job).state
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not durable_while_full
    assert state_while_full is JobState.done
    queue.claim()
    assert queue.durable
    assert len(told) == 2
    queue.close()
    again = JobQueue(tmp_path / "queue.sqlite")
    assert again.get(job).state is JobState.done
    assert again.get(later).state is JobState.running
