"""The fixtures of the faces (page, API, server), and a house for several people."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faces import face_paths, fake_jobs, full_app, web
from painter import Atelier
from people import open_house

__all__ = ["face_paths", "fake_jobs", "full_app", "house", "web"]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atelier]:
    yield from open_house(tmp_path_factory.mktemp("people"))
