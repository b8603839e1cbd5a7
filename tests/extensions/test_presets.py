"""The file in which a user's own presets are kept."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from webui.errors import InvalidParams, SaveError
from webui.extensions.start import start
from webui.paths import Paths
from webui.settings import Settings


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module of the extension."""
    start(Paths.under(tmp_path_factory.mktemp("data")), Settings(), "front")
    return sys.modules["latent_extensions.presets.front"]


def test_presets_that_are_too_many_are_refused_and_those_that_are_kept_stay(
    presets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presets, "MAX_FILE", 2000)
    fields = {"prompt": "猫" * 400}
    presets._add(tmp_path, "ann", {"a \ud800": fields})  # 1,200 bytes: characters are not written as escapes
    with pytest.raises(InvalidParams, match="presets would take more than"):
        presets._add(tmp_path, "ann", {"b": fields})
    assert list(presets._read(tmp_path, "ann")) == ["a \ud800"]
    monkeypatch.setattr(presets, "MAX_FILE", 100)
    presets._write(tmp_path, "ann", {"a": {"prompt": "猫" * 300}})  # too large still, and smaller than it was


@pytest.mark.parametrize("content", ['{"mine": ', "[]", "\xff"])
def test_a_file_that_cannot_be_read_is_told_and_never_written_over(presets: Any, tmp_path: Path, content: str) -> None:
    path = presets._file(tmp_path, "ann")
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(SaveError, match="cannot be read"):
        presets._add(tmp_path, "ann", {"mine": {"steps": 9}})
    assert path.read_bytes() == content.encode("latin-1")
    assert {preset.own for preset in presets.presets(tmp_path, "ann")} == {False}


def test_presets_that_are_saved_at_once_are_all_kept(presets: Any, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: presets._add(tmp_path, "ann", {f"{n}": {"steps": 9}}), range(24)))
    assert len(presets._read(tmp_path, "ann")) == 24
