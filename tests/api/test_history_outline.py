"""The grid's shape over HTTP: blocks by day, each of which is exactly a page after its cursor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from history_studio import Studio

from webui.api.common import add_error_handlers
from webui.api.history import history_routes
from webui.history import History, Recorder, search
from webui.paths import Paths


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(search, "BLOCK", 3)
    paths = Paths.under(tmp_path)
    paths.make_folders()
    recorder = Recorder(paths)
    studio = Studio(paths, recorder)
    for number in range(8):
        studio.save(prompt="a fox" if number % 2 else "a castle", seed=number)
    recorder.close()
    history = History(paths)
    with history._database.write() as db:
        db.execute("UPDATE pictures SET day='2026-01-05' WHERE id <= 4")
    app = FastAPI()
    add_error_handlers(app)
    app.include_router(history_routes(history, None, None, None))  # type: ignore[arg-type]  # finding needs none
    with TestClient(app) as opened:
        yield opened
    history.stop()


def test_each_block_is_a_page_and_together_they_are_everything(client: Any) -> None:
    blocks = client.get("/history/outline").json()["blocks"]
    assert [count for _, count, _ in blocks] == [3, 1, 3, 1]  # a day begins a block of its own
    assert [day for day, _, _ in blocks[2:]] == ["2026-01-05", "2026-01-05"]
    seen = []
    for day, count, cursor in blocks:
        cards = client.get("/history", params={"after": cursor, "limit": count}).json()["cards"]
        assert {card["day"] for card in cards} == {day}
        seen += [card["id"] for card in cards]
    assert seen == [8, 7, 6, 5, 4, 3, 2, 1]


def test_a_search_and_the_trash_have_shapes_of_their_own(client: Any) -> None:
    client.post("/history/delete", json={"ids": [8]})
    assert sum(block[1] for block in client.get("/history/outline?q=fox").json()["blocks"]) == 3
    assert [block[1] for block in client.get("/history/outline?trash=true").json()["blocks"]] == [1]
    assert client.get("/history/ids?trash=true").json() == {"ids": [8]}
