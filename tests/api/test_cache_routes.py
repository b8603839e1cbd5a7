"""The routes of what the engine keeps in memory, the commands over them, and whose they are."""

from __future__ import annotations

from typing import Any

import pytest
from faces import as_viewer
from fake_jobs import FakeJobs
from starlette.testclient import TestClient
from typer.testing import CliRunner

from webui import cli, client
from webui.caches import CacheState
from webui.identity import Viewer


@pytest.fixture(autouse=True)
def filled(fake_jobs: FakeJobs) -> None:
    fake_jobs.kept = [
        CacheState("checkpoints", 1, 40 * 10**6, 1, 0, ("emoji.safetensors",)),
        CacheState("prompts", 12, 5 * 10**6, 0, 64 * 2**20),
    ]


def test_caches_are_listed_with_sizes_and_bounds_and_cleared_one_by_one_or_all(web: Any) -> None:
    listed = web.get("/caches")
    assert listed.headers["cache-control"] == "no-store"
    first, second = listed.json()["caches"]
    assert first == {
        "name": "checkpoints",
        "title": "Checkpoints",
        "entries": 1,
        "bytes": 40 * 10**6,
        "most": 1,
        "limit": 0,
        "held": ["emoji.safetensors"],
    }
    assert (second["entries"], second["limit"]) == (12, 64 * 2**20)
    cleared = web.delete("/caches/prompts")
    assert (cleared.status_code, cleared.json()) == (202, {"waits": False})
    assert [cache["entries"] for cache in web.get("/caches").json()["caches"]] == [1, 0]
    assert web.delete("/caches").status_code == 202
    assert [cache["entries"] for cache in web.get("/caches").json()["caches"]] == [0, 0]


def test_an_unknown_cache_is_named_with_a_near_one(web: Any) -> None:
    answer = web.delete("/caches/prompt")
    assert answer.status_code == 404
    assert 'Did you mean "prompts"' in answer.json()["advice"]


def test_caches_are_for_administrators_alone(full_app: Any) -> None:
    ann = TestClient(as_viewer(full_app, Viewer("ann")), base_url="http://127.0.0.1:7860", client=("127.0.0.1", 50000))
    assert ann.get("/caches").status_code == 403
    assert ann.delete("/caches").status_code == 403
    assert ann.delete("/caches/prompts").status_code == 403


def test_the_commands_list_and_clear(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(_client: Any, method: str, path: str, body: Any = None, headers: Any = None) -> Any:
        return web.request(method, path).json()

    monkeypatch.setattr(client.Client, "_json", asked)

    def command(*words: str) -> str:
        return CliRunner().invoke(cli.command_line("caches"), ["caches", *words], catch_exceptions=False).stdout

    lines = command("list").splitlines()
    assert [line.split()[:3] for line in lines] == [["checkpoints", "1", "38"], ["prompts", "12", "5"]]
    assert "1 at most" in lines[0]
    assert "64 MB at most" in lines[1]
    assert command("clear", "prompts") == "Cleared.\n"
    assert command("list").splitlines()[1].split()[:2] == ["prompts", "0"]
    assert command("clear") == "Cleared.\n"
