"""One engine for the tests that only make pictures; those that change models or settings make their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from embedded import install_embedded
from engine_runs import make_engine

from webui.engine import Engine


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of `engine`."""
    root = tmp_path_factory.mktemp("engine")
    install_embedded(root)
    return root


@pytest.fixture(scope="session")
def engine(root: Path) -> Iterator[Engine]:
    engine = make_engine(root)
    yield engine
    engine.close()


@pytest.fixture
def own_engine(data_dir: Path) -> Iterator[Engine]:
    """An engine on a data folder of the test's own."""
    engine = make_engine(data_dir)
    yield engine
    engine.close()
