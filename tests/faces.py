"""The full app around a scripted JobService: everything but the engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fake_jobs import FakeCatalog, FakeJobs

from webui.identity import OWNER, Viewer
from webui.paths import Paths
from webui.server.options import ServeOptions
from webui.settings import Settings, SettingsStore


def as_viewer(app: Any, viewer: Viewer = OWNER) -> Any:
    """The app as the access guard hands a request on to it: with the one who asks."""

    async def asked(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "viewer": viewer} if scope["type"] == "http" else scope, receive, send)

    return asked


@pytest.fixture(scope="session")
def face_paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    import os

    paths = Paths.under(tmp_path_factory.mktemp("faces"))
    paths.make_folders()
    os.environ["GRADIO_TEMP_DIR"] = str(paths.cache_dir / "gradio")
    return paths


@pytest.fixture(scope="session")
def fake_jobs(face_paths: Paths) -> Iterator[FakeJobs]:
    jobs = FakeJobs(face_paths.outputs, FakeCatalog(), seconds_per_step=0.01)
    jobs.start()
    yield jobs
    jobs.stop()


@pytest.fixture(scope="session")
def full_app(face_paths: Paths, fake_jobs: FakeJobs) -> Any:
    from webui.api.viewer import guarded_viewer
    from webui.server.app import build_app

    store = SettingsStore(Settings(), face_paths.config_file)
    return build_app(fake_jobs, fake_jobs.catalog, store, face_paths, ServeOptions(), viewer_of=guarded_viewer)


@pytest.fixture(scope="session")
def web(full_app: Any) -> Iterator[Any]:
    """A client of the full app, as the browser on this machine sees it."""
    from starlette.testclient import TestClient

    with TestClient(as_viewer(full_app), base_url="http://127.0.0.1:7860", client=("127.0.0.1", 50000)) as client:
        yield client
