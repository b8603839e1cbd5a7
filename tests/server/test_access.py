"""The one door: who may come in, and as whom."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from asgi_client import Answer, ask

from webui.accounts import Accounts
from webui.server.access import Access, is_loopback
from webui.server.links import OneTimeLinks
from webui.server.options import ServeOptions
from webui.server.proxies import forwarded
from webui.server.sessions import Session, Sessions, signing_key

KEY = b"k" * 32
TOKEN = "right-token"
PEER = "192.168.1.20"
PAGE = {"sec-fetch-mode": "navigate"}
PASSWORD = "correct horse"


async def says_who(scope: Any, receive: Any, send: Any) -> None:
    """The app behind the door: answers with whom it acts for."""
    viewer = scope["viewer"]
    body = json.dumps([viewer.name, viewer.admin]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Door:
    app: Any
    accounts: Accounts
    sessions: Sessions
    links: OneTimeLinks

    def ask(self, *given: Any, **more: Any) -> Answer:
        return ask(self.app, *given, **{"client": PEER, **more})

    def who(self, **headers: str) -> Any:
        """[name, admin] of whom a request with these headers acts for, or the status of the refusal."""
        answer = self.ask(path="/jobs", headers={key.replace("_", "-"): value for key, value in headers.items()})
        return json.loads(answer.body) if answer.status == 200 else answer.status

    def cookie(self, answer: Answer) -> str:
        return answer.headers["set-cookie"].partition(";")[0]

    def sign_in(self, name: str = "ann", password: str = PASSWORD, **more: Any) -> Answer:
        return self.ask("POST", "/sign-in", body=f"user={name}&password={password}".encode(), **more)


@pytest.fixture
def make_door(tmp_path: Path):
    def make(**options: Any) -> Door:
        accounts = Accounts(tmp_path / "users.json")
        sessions, links = Sessions(KEY, tmp_path / "signed-out.json"), OneTimeLinks()
        access = Access(ServeOptions(**options), accounts, sessions, links)
        return Door(forwarded(access.guard(says_who), ["10.0.0.1"]), accounts, sessions, links)

    return make


@pytest.fixture
def door(make_door) -> Door:
    """As a user's own choice of a token makes it, without accounts."""
    return make_door(host="0.0.0.0", access_token=TOKEN)


@pytest.fixture
def house(make_door) -> Door:
    """With two accounts."""
    made = make_door(host="0.0.0.0")
    made.accounts.add("ann", PASSWORD)
    made.accounts.add("root", "another secret", admin=True)
    return made


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


# --- without accounts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machines_user_needs_nothing(door: Door, peer: str) -> None:
    assert is_loopback(peer)
    assert json.loads(door.ask(client=peer).body) == ["", True]


def test_others_get_401_and_a_page_that_asks(door: Door) -> None:
    refused = door.ask(path="/jobs")
    assert refused.status == 401
    assert b"NotSignedIn" in refused.body
    assert refused.headers["www-authenticate"].startswith("Bearer")  # Basic would open the browser's own dialog
    page = door.ask(headers=PAGE)
    assert page.status == 401
    assert b"Access token" in page.body


def test_what_a_proxy_passes_on_is_not_this_machines_user(door: Door, make_door) -> None:
    for header in ("x-forwarded-for", "forwarded", "x-real-ip", "via", "x-forwarded-host"):
        assert door.ask(client="127.0.0.1", headers={header: "127.0.0.1"}).status == 401, header
    for told in ({"root_path": "/sd"}, {"trusted_proxies": ("127.0.0.1",)}, {"allowed_hosts": ("pics.example",)}):
        assert make_door(**told).ask(client="127.0.0.1").status == 401, told


def test_a_shared_picture_is_open_to_whoever_has_its_link_and_nothing_else_is(door: Door) -> None:
    for path in ("/shared/aB3_-x", "/shared/aB3_-x/picture"):
        answer = door.ask(path=path)
        assert answer.status == 200
        assert json.loads(answer.body)[1] is False
        assert door.ask("POST", path).status == 401
    for path in ("/shared", "/shared/", "/shared/a/file", "/shared/../jobs", "/shared/a/../../jobs", "/sharedness/a"):
        assert door.ask(path=path).status == 401, path


def test_a_link_signs_in_once(door: Door) -> None:
    token = door.links.make("")
    looked = [door.ask(query=f"token={token}&__theme=dark", headers=PAGE) for _ in range(3)]
    assert [answer.status for answer in looked] == [200, 200, 200], "looking at a link must not use it up"
    assert "set-cookie" not in looked[0].headers
    body = f"token={token}&query=__theme%3Ddark".encode()
    answer = door.ask("POST", "/sign-in", body=body)
    assert answer.status == 303
    assert answer.headers["location"] == "./?__theme=dark"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert token not in cookie
    assert door.who(cookie=f"other=1; {door.cookie(answer)}") == ["", True]
    assert door.ask("POST", "/sign-in", body=body).status == 401
    assert door.ask(query=f"token={token}", headers=PAGE).status == 401


def test_a_used_link_is_told_so_that_a_new_one_can_be_shown(door: Door) -> None:
    used: list[str] = []
    door.links.on_used = used.append
    door.ask("POST", "/sign-in", body=f"token={door.links.make('')}".encode())
    door.ask("POST", "/sign-in", body=b"token=never-made")
    assert used == [""]


def test_a_link_with_a_time_ends_with_it() -> None:
    now = [0.0]
    links = OneTimeLinks(lambda: now[0])
    token, other = links.make("ann", 60), links.make("ann", 60)
    now[0] = 59
    assert links.use(token) == "ann"
    now[0] = 61
    assert not links.works(other)
    assert links.use(other) is None


def test_the_users_own_token_signs_in_by_form_link_bearer_and_basic(door: Door) -> None:
    assert door.ask("POST", "/sign-in", body=f"token={TOKEN}".encode()).status == 303
    assert door.ask(query=f"token={TOKEN}", headers=PAGE).status == 200
    assert door.who(authorization=f"Bearer {TOKEN}") == ["", True]
    assert door.who(authorization=basic("anyone", TOKEN)) == ["", True]
    assert door.who(authorization="Bearer wrong") == 401


def test_without_a_token_of_the_users_own_no_bearer_is_right(make_door) -> None:
    door = make_door(host="0.0.0.0")
    for value in ("Bearer ", "Bearer", "Basic ", basic("", ""), basic("x", "")):
        assert door.who(authorization=value) == 401, value


def test_no_auth_lets_everybody_in_and_only_that(make_door) -> None:
    assert make_door(host="0.0.0.0", no_auth=True).who() == ["", True]
    assert make_door(host="0.0.0.0").who() == 401


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_with_accounts_everybody_signs_in_also_at_this_machine(house: Door) -> None:
    assert house.ask(client="127.0.0.1").status == 401
    page = house.ask(headers=PAGE).body
    assert b'name="user"' in page
    assert b'name="password"' in page
    answer = house.sign_in()
    assert answer.status == 303
    assert house.who(cookie=house.cookie(answer)) == ["ann", False]
    assert house.who(cookie=house.cookie(house.sign_in("root", "another secret"))) == ["root", True]


def test_page_and_api_know_the_same_people(house: Door) -> None:
    assert house.who(authorization=basic("ann", PASSWORD)) == ["ann", False]
    token = house.accounts.new_token("ann")
    assert house.who(authorization=f"Bearer {token}") == ["ann", False]
    assert house.who(authorization=basic("ann", token)) == ["ann", False]
    assert house.accounts.revoke_tokens("ann") == 1
    assert house.who(authorization=f"Bearer {token}") == 401


@pytest.mark.parametrize("password", ["a:b:c and more", "pässwörd€", "p" * 1024])
def test_a_password_may_hold_colons_and_any_letters(house: Door, password: str) -> None:
    house.accounts.add("ann", password)
    assert house.who(authorization=basic("ann", password)) == ["ann", False]


def hashed(house: Door, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names whose passwords are looked at from now on."""
    tried: list[str] = []
    real = house.accounts.sign_in
    monkeypatch.setattr(house.accounts, "sign_in", lambda name, word: (tried.append(name), real(name, word))[1])
    return tried


def test_a_program_that_sends_its_password_each_time_is_hashed_once(
    house: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = hashed(house, monkeypatch)
    for _ in range(3):
        assert house.who(authorization=basic("ann", PASSWORD)) == ["ann", False]
    house.accounts.add("ann", "changed since then")
    assert house.who(authorization=basic("ann", PASSWORD)) == 401
    assert tried == ["ann", "ann"]


def test_a_changed_password_a_removed_user_and_the_first_account_end_sessions(house: Door, make_door) -> None:
    cookie = house.cookie(house.sign_in())
    house.accounts.add("ann", "another password")
    assert house.who(cookie=cookie) == 401
    cookie = house.cookie(house.sign_in(password="another password"))
    assert house.who(cookie=cookie) == ["ann", False]
    house.accounts.remove("ann")
    assert house.who(cookie=cookie) == 401
    house.accounts.remove("root")
    token = house.links.make("")
    owner = house.cookie(house.ask("POST", "/sign-in", body=f"token={token}".encode()))
    assert house.who(cookie=owner) == ["", True]
    house.accounts.add("bob", PASSWORD)
    assert house.who(cookie=owner) == 401


def test_a_link_of_a_user_signs_in_as_that_user(house: Door) -> None:
    answer = house.ask("POST", "/sign-in", body=f"token={house.links.make('ann')}".encode())
    assert house.who(cookie=house.cookie(answer)) == ["ann", False]
    assert house.ask("POST", "/sign-in", body=f"token={house.links.make('gone')}".encode()).status == 401


@pytest.mark.parametrize("before", ['prefs={"dark":true}', "version=1", "a[b]=1", 'x="abc', "path=/x", "no value"])
def test_no_other_programs_cookie_hides_ours(house: Door, before: str) -> None:
    cookie = house.cookie(house.sign_in())
    older = f"{house.sessions.cookie}=of-another-path"
    assert house.who(cookie=f"{before}; {older}; {cookie}; {older}") == ["ann", False]


def test_a_link_ends_with_the_password_it_was_made_under(house: Door) -> None:
    token = house.links.make("ann", 900)
    assert house.links.works(token)
    house.accounts.add("ann", "another password")
    assert not house.links.works(token)
    assert house.ask("POST", "/sign-in", body=f"token={token}".encode()).status == 401


def test_signing_out_ends_the_links_one_made(house: Door) -> None:
    cookie = house.cookie(house.sign_in())
    own, printed, other = house.links.make("ann", 900), house.links.make("ann"), house.links.make("root", 900)
    house.ask("POST", "/sign-out", headers={"cookie": cookie})
    assert [house.links.works(token) for token in (own, printed, other)] == [False, True, True]


def test_a_full_disk_keeps_nobody_signed_in(house: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    cookie = house.cookie(house.sign_in())
    with monkeypatch.context() as full:
        full.setattr("webui.server.sessions.write_atomic", refuse)
        answer = house.ask("POST", "/sign-out", headers={"cookie": cookie})
    assert answer.status == 303
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert house.who(cookie=cookie) == 401
    assert not (tmp_path / "signed-out.json").exists()
    house.sign_in()
    assert len(json.loads((tmp_path / "signed-out.json").read_text())) == 1, "written once there is room"


def test_signing_out_ends_the_session_for_every_copy_of_the_cookie(house: Door, tmp_path: Path) -> None:
    cookie = house.cookie(house.sign_in())
    assert house.ask("GET", "/sign-out", headers={"cookie": cookie}).status == 405
    assert house.who(cookie=cookie) == ["ann", False]
    answer = house.ask("POST", "/sign-out", headers={"cookie": cookie})
    assert answer.status == 303
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert house.who(cookie=cookie) == 401
    after_a_restart = Sessions(KEY, tmp_path / "signed-out.json")
    value = cookie.partition("=")[2]
    session = after_a_restart.read(value)
    assert session is not None
    assert not after_a_restart.proves(session, value, house.accounts.find("ann").fingerprint)  # type: ignore[union-attr]


def test_signing_in_makes_a_new_session_whatever_the_browser_brought(house: Door) -> None:
    first = house.cookie(house.sign_in())
    second = house.cookie(house.sign_in(headers={"cookie": first}))
    assert first != second


def test_a_forged_or_expired_cookie_is_worth_nothing(house: Door) -> None:
    fingerprint = house.accounts.find("ann").fingerprint  # type: ignore[union-attr]
    soon = int(time.time()) + 100
    right = house.sessions.sign(Session("ann", "id", soon), fingerprint)
    assert house.who(cookie=f"{house.sessions.cookie}={right}") == ["ann", False]
    body, _, proof = right.rpartition(".")
    wrong = [
        Sessions(b"x" * 32).sign(Session("ann", "id", soon), fingerprint),
        house.sessions.sign(Session("ann", "id", int(time.time()) - 1), fingerprint),
        house.sessions.sign(Session("root", "id", soon), fingerprint),
        f"{body.replace(str(soon), str(soon + 9999))}.{proof}",
        f"{body}.",
        "....",
        "",
        "é",
        "a." * 2000,
        "=" * 50,
    ]
    for value in wrong:
        headers = {"cookie": f"{house.sessions.cookie}={value}"}
        assert house.ask(path="/jobs", headers=headers).status == 401, value


def test_guessing_is_slowed_down_for_that_peer_alone(house: Door) -> None:
    for number in range(5):
        assert house.sign_in(password=f"guess {number}").status == 401
    blocked = house.sign_in()
    assert blocked.status == 429
    assert 0 < int(blocked.headers["retry-after"]) <= 30
    assert house.who(authorization=basic("ann", PASSWORD)) == 429
    assert house.sign_in(client="192.168.1.21").status == 303


def test_guesses_that_are_sent_together_are_slowed_down_too(house: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr(house.accounts, "sign_in", lambda name, word: looked_at.append(word))

    async def guess(number: int) -> int:
        status = 0
        secret = basic("ann", f"guess {number}").encode()
        scope = {"type": "http", "method": "GET", "path": "/jobs", "headers": [(b"authorization", secret)]}

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)

        await house.app({**scope, "query_string": b"", "client": (PEER, 1)}, None, send)
        return status

    async def guess_all() -> list[int]:
        return await asyncio.gather(*(guess(number) for number in range(200)))

    statuses = asyncio.run(guess_all())
    assert len(looked_at) <= 6, "five, and one that was being looked at"
    assert statuses.count(429) >= 194


def test_a_password_that_is_sent_many_times_together_is_hashed_once(
    house: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = hashed(house, monkeypatch)
    access = Access(ServeOptions(host="0.0.0.0"), house.accounts, house.sessions, house.links)
    scope = {"type": "http", "headers": [(b"authorization", basic("ann", PASSWORD).encode())], "client": (PEER, 1)}

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*(access.viewer(dict(scope)) for _ in range(20)))

    assert {viewer.name for viewer in asyncio.run(ask_all())} == {"ann"}
    assert len(tried) <= 2, "as many as are hashed at a time"


def test_an_ipv6_network_is_one_peer(house: Door) -> None:
    for number in range(5):
        house.sign_in(password="guess", client=f"2001:db8::{number}")
    assert house.sign_in(client="2001:db8::ffff").status == 429
    assert house.sign_in(client="2001:db8:0:1::1").status == 303


def test_the_answers_to_a_wrong_name_and_a_wrong_password_are_the_same(house: Door) -> None:
    answers = [house.sign_in("ann", "wrong"), house.sign_in("nobody", "wrong")]
    assert answers[0].body == answers[1].body
    assert answers[0].status == answers[1].status == 401


def test_the_sign_in_page_repeats_nothing_that_was_sent(house: Door, door: Door) -> None:
    evil = "%3Cscript%3Ealert(1)%3C%2Fscript%3E"
    for answer in (
        house.ask("POST", "/sign-in", body=f"user={evil}&password={evil}&token={evil}&query={evil}".encode()),
        door.ask(query=f"token={evil}", headers=PAGE),
        door.ask(query=f"token={TOKEN}&x={evil}", headers=PAGE),
    ):
        assert b"<script>alert(1)" not in answer.body


def test_the_form_leads_to_the_top_from_wherever_it_is_shown(house: Door) -> None:
    page = house.ask(path="/history/5/file", headers=PAGE).body.decode()
    assert re.search(r'action="([^"]*)"', page)[1] == "../../sign-in"  # type: ignore[index]


def test_the_cookie_is_secure_over_https_and_stays_under_its_path(make_door) -> None:
    door = make_door(root_path="/studio")
    answer = door.ask(
        "POST",
        "/sign-in",
        body=f"token={door.links.make('')}".encode(),
        client="10.0.0.1",
        headers={"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"},
    )
    assert "Secure" in answer.headers["set-cookie"]
    assert "Path=/studio;" in answer.headers["set-cookie"]


def test_the_signing_key_is_kept_and_private(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "access.key"
    key = signing_key(path)
    assert len(key) == 32
    assert signing_key(path) == key
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0


def test_two_instances_do_not_take_each_others_cookies() -> None:
    assert Sessions(b"a" * 32).cookie != Sessions(b"b" * 32).cookie
