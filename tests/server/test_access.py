"""Who may come in when the server listens on a network."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from asgi_client import Answer, ask, hello

from webui.server.access import COOKIE, Access, cookie_is_valid, is_loopback, sign, signing_key

KEY = b"k" * 32
TOKEN = "right-token"
PEER = "192.168.1.20"
PAGE = {"sec-fetch-mode": "navigate"}


@pytest.fixture
def app():
    return Access(TOKEN, KEY).guard(hello)


def cookie_of(answer: Answer) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine_needs_no_token(app, peer: str) -> None:
    assert is_loopback(peer)
    assert ask(app, client=peer).status == 200


def test_others_get_401_and_a_page_that_asks(app) -> None:
    refused = ask(app, path="/jobs", client=PEER)
    assert refused.status == 401
    assert b"NotSignedIn" in refused.body
    page = ask(app, client=PEER, headers=PAGE)
    assert page.status == 401
    assert b"Access token" in page.body
    assert b"hello" not in page.body


def test_a_shared_picture_is_open_to_whoever_has_its_link_and_nothing_else_is(app) -> None:
    for path in ("/shared/aB3_-x", "/shared/aB3_-x/picture"):
        assert ask(app, path=path, client=PEER).status == 200
        assert ask(app, "POST", path, client=PEER).status == 401
    for path in ("/shared", "/shared/", "/shared/a/file", "/shared/../jobs", "/shared/a/../../jobs", "/sharedness/a"):
        assert ask(app, path=path, client=PEER).status == 401, path


def test_the_link_signs_in_and_takes_the_token_out_of_the_address(app) -> None:
    answer = ask(app, client=PEER, query=f"token={TOKEN}&__theme=dark", headers=PAGE)
    assert answer.status == 303
    assert answer.headers["location"] == "./?__theme=dark"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert TOKEN not in cookie
    assert ask(app, client=PEER, headers={"cookie": f"other=1; {cookie_of(answer)}"}).status == 200


def test_the_sign_in_form_takes_the_token(app) -> None:
    wrong = ask(app, "POST", "/sign-in", client=PEER, body=b"token=wrong")
    assert wrong.status == 401
    assert b"not the token" in wrong.body
    right = ask(app, "POST", "/sign-in", client=PEER, body=f"token={TOKEN}".encode())
    assert right.status == 303
    assert ask(app, client=PEER, headers={"cookie": cookie_of(right)}).status == 200


def test_programs_send_the_token_as_a_bearer(app) -> None:
    assert ask(app, client=PEER, headers={"authorization": f"Bearer {TOKEN}"}).status == 200
    assert ask(app, client=PEER, headers={"authorization": "Bearer wrong"}).status == 401


def test_a_cookie_of_another_key_or_time_is_worth_nothing(app) -> None:
    now = time.time()
    for value in (
        sign(b"x" * 32, int(now) + 100),
        sign(KEY, int(now) - 1),
        sign(KEY, int(now) + 100).replace(".", "0."),
        "",
        "é",
        "9" * 20 + ".x",
    ):
        assert not cookie_is_valid(KEY, value, now)
    forged = f"{COOKIE}={sign(b'x' * 32, int(now) + 100)}"
    assert ask(app, client=PEER, headers={"cookie": forged}).status == 401


def test_guessing_is_slowed_down_for_that_peer_alone(app) -> None:
    for number in range(5):
        ask(app, "POST", "/sign-in", client=PEER, body=f"token=guess{number}".encode())
    blocked = ask(app, "POST", "/sign-in", client=PEER, body=f"token={TOKEN}".encode())
    assert blocked.status == 429
    assert "retry-after" in blocked.headers
    assert ask(app, "POST", "/sign-in", client="192.168.1.21", body=f"token={TOKEN}".encode()).status == 303


def test_the_signing_key_is_kept_and_private(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "access.key"
    key = signing_key(path)
    assert len(key) == 32
    assert signing_key(path) == key
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0


def test_the_sign_in_page_repeats_nothing_that_was_sent(app) -> None:
    answer = ask(app, "POST", "/sign-in", client=PEER, body=b"token=<script>alert(1)</script>")
    assert b"alert(1)" not in answer.body
