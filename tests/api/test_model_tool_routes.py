"""/models/tools: merging, pruning and converting for administrators, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from webui.api.common import add_error_handlers
from webui.api.model_tools import model_tool_routes
from webui.api.viewer import identify_by
from webui.identity import OWNER, Viewer
from webui.jobs.model_tools import ModelTools
from webui.paths import Paths


@pytest.fixture
def tools(tmp_path: Path) -> ModelTools:
    paths = Paths.under(tmp_path)
    paths.make_folders()
    return ModelTools(paths)


@pytest.fixture
def client_of(tools: ModelTools) -> Callable[..., TestClient]:
    def make(viewer: Viewer = OWNER) -> TestClient:
        app = FastAPI(dependencies=[Depends(identify_by(lambda _: viewer))])
        add_error_handlers(app)
        app.include_router(model_tool_routes(tools))
        return TestClient(app)

    return make


def test_at_first_nothing_runs(client_of: Callable[..., TestClient]) -> None:
    assert client_of().get("/models/tools").json() == {"running": False, "lines": [], "code": None, "output": ""}


def test_only_administrators_see_and_start_them(client_of: Callable[..., TestClient]) -> None:
    ann = client_of(Viewer("ann", admin=False))
    assert ann.get("/models/tools").status_code == 403
    assert ann.post("/models/tools", json={"tool": "prune", "a": "x", "output": "y"}).status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {"tool": "delete", "a": "x", "output": "y"},
        {"tool": "prune", "a": "x", "output": "../y"},
        {"tool": "convert", "a": "/etc/passwd"},
        {"tool": "convert", "a": "../x.ckpt"},
        {"tool": "convert", "a": "x.safetensors"},
        {"tool": "merge", "a": "x", "b": "y", "output": "z", "alpha": "much"},
    ],
)
def test_a_request_that_cannot_be_is_refused_in_words_and_starts_nothing(
    client_of: Callable[..., TestClient], body: dict[str, Any]
) -> None:
    client = client_of()
    answer = client.post("/models/tools", json=body)
    assert answer.status_code == 422
    assert answer.json()["message"]
    assert client.get("/models/tools").json()["code"] is None


def test_what_went_wrong_is_in_the_last_words(client_of: Callable[..., TestClient], tools: ModelTools) -> None:
    client = client_of()
    started = client.post("/models/tools", json={"tool": "convert", "a": "lost.ckpt"}).json()
    assert (started["running"], started["output"]) == (True, "lost")
    tools.wait()
    ended = client.get("/models/tools").json()
    assert (ended["running"], ended["code"]) == (False, 1)
    assert 'There is no file "lost.ckpt"' in "\n".join(ended["lines"])
