"""Behind a reverse proxy: whom to believe, and the sub-path."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asgi_client import ask

from webui.server.attempts import limit_changes
from webui.server.proxies import below, checked_root_path, forwarded


async def shows(scope: Any, receive: Any, send: Any) -> None:
    seen = [scope["client"][0], scope["scheme"], scope["passed_on"], sorted(k.decode() for k, _ in scope["headers"])]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})


def seen(client: str, **headers: str) -> Any:
    app = forwarded(shows, ["10.0.0.1", "10.1.0.0/16"])
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    return json.loads(ask(app, client=client, headers=sent).body)


def test_a_named_proxy_is_believed_and_nobody_else() -> None:
    told = {"x_forwarded_for": "203.0.113.9", "x_forwarded_proto": "https"}
    assert seen("10.0.0.1", **told)[:3] == ["203.0.113.9", "https", True]
    assert seen("10.0.0.2", **told)[:3] == ["10.0.0.2", "http", True]
    assert seen("10.0.0.1")[:3] == ["10.0.0.1", "http", False]


def test_of_several_hops_the_last_that_is_no_proxy_of_ours_counts() -> None:
    assert seen("10.0.0.1", x_forwarded_for="127.0.0.1, 203.0.113.9, 10.1.2.3")[0] == "203.0.113.9"
    assert seen("10.0.0.1", x_forwarded_for=" , ")[0] == "10.0.0.1"


def test_forwarding_headers_go_no_further() -> None:
    evil = {"x_forwarded_host": "evil.example", "x_forwarded_prefix": "/x", "forwarded": "host=evil", "x_real_ip": "1"}
    assert seen("192.168.1.7", **evil)[3] == ["host"]


@pytest.mark.parametrize(("text", "path"), [("", ""), ("/", ""), ("studio", "/studio"), ("/a/b/", "/a/b")])
def test_a_sub_path_is_written_in_any_way(text: str, path: str) -> None:
    assert checked_root_path(text) == path


@pytest.mark.parametrize("text", ["/..", "/a//b", "/a b", "/a?x", "http://x/y", '/"', "/a/./b", "/é"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        checked_root_path(text)


async def tells_path(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def test_the_sub_path_may_be_taken_away_by_the_proxy_or_not() -> None:
    app = below(tells_path, "/a/studio")
    assert ask(app, path="/a/studio/jobs").body == b"/jobs"
    assert ask(app, path="/jobs").body == b"/jobs"
    assert ask(app, path="/a/studios").body == b"/a/studios"
    moved = ask(app, path="/a/studio", query="x=1")
    assert (moved.status, moved.headers["location"]) == (307, "studio/?x=1")


def test_a_user_who_sends_changes_in_a_flood_is_told_to_wait_before_anything_is_done() -> None:
    from faces import as_viewer

    from webui.identity import OWNER, Viewer

    done: list[str] = []
    now = [0.0]

    async def works(scope: Any, receive: Any, send: Any) -> None:
        done.append(scope["viewer"].name)
        await tells_path(scope, receive, send)

    limited = limit_changes(works, lambda: now[0])
    ann, bob, owner = (as_viewer(limited, viewer) for viewer in (Viewer("ann"), Viewer("bob"), OWNER))
    answers = [ask(ann, "POST") for _ in range(201)]
    assert {answer.status for answer in answers[:200]} == {200}
    assert answers[200].status == 429
    assert answers[200].headers["retry-after"] == "1"
    assert len(done) == 200
    assert ask(ann, "GET").status == 200
    assert ask(bob, "POST").status == 200
    now[0] += 1
    assert ask(ann, "POST").status == 200
    assert {ask(owner, "POST").status for _ in range(250)} == {200}
