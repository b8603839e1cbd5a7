"""The start page, and the hand-over to the full app."""

from __future__ import annotations

import json

from asgi_client import ask, hello

from webui.server.start_page import start_page
from webui.server.switchboard import Progress, Switchboard


def test_before_the_app_is_built_the_address_answers_with_the_start_page() -> None:
    progress = Progress(("Loading", "Building"))
    switchboard = Switchboard(progress, "dark")
    page = ask(switchboard)
    assert page.status == 200
    assert b"Starting" in page.body
    assert b'data-theme="dark"' in page.body
    with progress.step("Loading"):
        steps = json.loads(ask(switchboard, path="/start.json").body)["steps"]
        assert [s["state"] for s in steps] == ["now", "waiting"]
    done = json.loads(ask(switchboard, path="/start.json").body)
    assert done["ready"] is False
    assert done["steps"][0]["state"] == "done"
    assert done["steps"][0]["detail"].endswith(" s")


def test_the_engine_that_starts_beside_the_page_is_shown_too() -> None:
    progress = Progress(("Loading",))
    progress.engine = lambda: "ready"
    step = progress.as_dict()["steps"][-1]
    assert step == {"name": "Starting the engine", "state": "done", "detail": "ready"}


def test_programs_are_told_to_come_back() -> None:
    answer = ask(Switchboard(Progress(()), ""), "POST", "/jobs")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "2"
    assert json.loads(answer.body)["error"] == "Starting"


def test_afterwards_every_request_goes_to_the_app() -> None:
    switchboard = Switchboard(Progress(()), "")
    switchboard._app = hello
    assert ask(switchboard).body == b"hello"
    assert json.loads(ask(switchboard, path="/start.json").body) == {"ready": True}


def test_the_start_page_needs_nothing_from_elsewhere() -> None:
    page = start_page()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "src=" not in page
    assert "--accent:" in page
