"""The whole spine with the real engine and the embedded model: queue, worker process, pictures on the disk."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_bench import Bench, finished, ready, sampling, submit, wait_for
from PIL import Image

from webui.catalog import Catalog
from webui.events import Finished, Loaded, Preview, Step
from webui.jobs.service import JobService
from webui.jobs.worker import real_engine

CHECKPOINTS = Path(__file__).parents[2] / "models" / "Stable-diffusion"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, JobService]]:
    """One service, as importing torch takes its time."""
    bench = Bench(tmp_path_factory.mktemp("real") / "data")
    for source in sorted(CHECKPOINTS.glob("emoji-*"))[:4]:
        shutil.copyfile(source, bench.paths.checkpoints[0] / source.name)
    service = bench.service(factory=real_engine, catalog=Catalog(bench.paths))
    yield bench, service
    bench.stop()


def test_a_job_becomes_a_picture_on_the_disk_and_the_front_stays_without_torch(real: tuple[Bench, JobService]) -> None:
    bench, service = real
    wait_for(lambda: any(isinstance(event, Loaded) for _, event in bench.heard), "a model loaded ahead")
    ready(service)
    job = submit(service, "a red apple", steps=6, batch_count=2)
    view = finished(service, job)
    assert view["error"] is None
    assert view["state"] == "done"
    assert [image["index"] for image in view["images"]] == [0, 1]
    for image in view["images"]:
        with Image.open(bench.paths.outputs / image["path"]) as picture:
            assert (
                picture.size == (image["width"], image["height"]) == (view["params"]["width"], view["params"]["height"])
            )
            assert picture.info["parameters"] == image["infotext"]
            assert f"Seed: {image['seed']}" in image["infotext"]
    assert view["peak_memory"] > 0
    assert view["seconds"]["sample"] > 0
    watched = [event for _, event in service.watch(job)]
    assert sum(isinstance(event, Step) for event in watched) == 12
    assert isinstance(watched[-1], Finished)
    assert service.worker()["memory"]["used"] > 0
    assert service.report()["torch_version"]


def test_a_preview_can_be_seen_and_an_interrupt_saves_the_picture_in_the_making(
    real: tuple[Bench, JobService],
) -> None:
    bench, service = real
    job = submit(service, "a red apple", steps=300)
    sampling(service, job)
    wait_for(lambda: service.preview(job), "a preview")
    with Image.open(io.BytesIO(service.preview(job) or b"")) as preview:
        assert preview.format == "JPEG"
    wait_for(lambda: any(isinstance(event, Preview) for heard, event in bench.heard if heard == job), "its event")
    assert service.interrupt(job)
    view = finished(service, job)
    assert view["state"] in ("interrupted", "done")  # whichever the engine calls a picture that was ended early
    assert 0 < view["step"] < 300
    assert (bench.paths.outputs / view["images"][0]["path"]).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_F05_a_killed_engine_fails_its_job_and_the_next_one_gets_its_picture(real: tuple[Bench, JobService]) -> None:
    bench, service = real
    pid = ready(service)
    job = submit(service, "a red apple", steps=300)
    next_one = submit(service, "a green apple", steps=3)
    sampling(service, job)
    os.kill(pid, signal.SIGKILL)
    view = finished(service, job)
    assert view["state"] == "failed"
    assert "SIGKILL" in view["error"]["message"]
    after = finished(service, next_one)
    assert after["state"] == "done"
    assert (bench.paths.outputs / after["images"][0]["path"]).exists()
