"""A worker's parts in one process, on the real engine and the embedded model: makes pictures, and makes them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from embedded import install_embedded

from webui import events
from webui.catalog import Catalog
from webui.history import History, Recorder
from webui.params import GenerationParams, make_params
from webui.paths import Paths
from webui.settings import Settings


@dataclass
class Workshop:
    """Everything that a worker holds, in this process."""

    paths: Paths
    catalog: Catalog
    recorder: Recorder
    engine: Any
    history: History
    jobs: int = 0

    def make(self, params: GenerationParams) -> tuple[str, list[events.Event]]:
        """Run a job as the worker does; its id and what it said."""
        self.jobs += 1
        job = f"job{self.jobs}"
        told = list(self.recorder.following(self.engine.generate(params), job=job, user=""))
        assert isinstance(told[-1], events.Finished), told[-1]
        return job, told

    def replay(self, picture_id: int, **changes: Any) -> int:
        """What the API does for a replay; the id of the child."""
        plan = self.history.plan_replay("", picture_id, self.catalog, changes)
        job, _ = self.make(plan.require_complete())
        self.history.link("", job, picture_id, plan.relation, plan.changes)
        [card] = self.history.of_job("", job)
        return card.id


@contextmanager
def opened(root: Path, install: Callable[[Paths], None]) -> Iterator[Workshop]:
    """A workshop below `root`, once `install` has put its checkpoints there."""
    from webui.engine import Engine

    paths = Paths.under(root)
    paths.make_folders()
    install(paths)
    catalog, recorder = Catalog(paths), Recorder(paths)
    engine = Engine(Settings(), paths, catalog, save_hook=recorder.saving)
    history = History(paths)
    yield Workshop(paths, catalog, recorder, engine, history)
    history.stop()
    engine.close()
    catalog.close()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    def install(paths: Paths) -> None:
        install_embedded(paths.data_dir)

    with opened(tmp_path_factory.mktemp("workshop"), install) as workshop:
        yield workshop


def params(**fields: Any) -> GenerationParams:
    return make_params({"prompt": "a red apple", "steps": 3, "seed": 11, "width": 64, "height": 64, **fields})
