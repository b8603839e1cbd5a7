"""Every test has outputs of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from history_studio import Studio
from workshop import workshop

from webui.history import History, Recorder
from webui.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths.under(tmp_path / "data")
    made.make_folders()
    return made


@pytest.fixture
def studio(paths: Paths) -> Iterator[Studio]:
    recorder = Recorder(paths)
    yield Studio(paths, recorder)
    recorder.close()


@pytest.fixture
def history(paths: Paths) -> Iterator[History]:
    opened = History(paths)
    yield opened
    opened.stop()


__all__ = ["workshop"]
