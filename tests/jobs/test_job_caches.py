"""What the worker keeps is known to the front after each job, and cleared between two of them."""

from __future__ import annotations

import sys

import pytest
from job_bench import Bench, finished, ready, sampling, submit, wait_for
from job_engines import keeping

from webui.errors import NotFound

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs POSIX signals and /proc")


def test_caches_are_seen_after_a_job_and_cleared_at_once_or_when_the_running_job_is_over(bench: Bench) -> None:
    service = bench.service(factory=keeping)
    ready(service)
    finished(service, submit(service, "one"))
    wait_for(lambda: service.caches() and service.caches()[0].held == ("one",), "word of what is kept")
    assert (service.caches()[0].entries, service.caches()[0].bytes) == (1, 3)
    assert service.clear_caches(["prompts"]) is False
    wait_for(lambda: service.caches()[0].entries == 0, "an empty cache")
    running = submit(service, "slow", steps=5)
    sampling(service, running)
    after = submit(service, "two")
    assert service.clear_caches() is True
    assert finished(service, running)["state"] == "done"
    finished(service, after)
    wait_for(lambda: service.caches()[0].held == ("two",), "a cache that was cleared before the next job")
    with pytest.raises(NotFound, match="prompts"):
        service.clear_caches(["prompt"])
    service.restart_worker()
    wait_for(lambda: service.caches() == (), "a worker that keeps nothing yet")
