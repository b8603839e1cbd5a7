"""Host, size, origin and headers: what every request passes first."""

from __future__ import annotations

import pytest
from asgi_client import ask, hello

from webui.server.guards import body_limit, origin_is_own, same_origin, security_headers, split_host, trusted_hosts

NAMES = ("127.0.0.1", "localhost", "::1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860"])
def test_own_host_names_pass(host: str) -> None:
    assert ask(trusted_hosts(hello, NAMES), headers={"host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "a@127.0.0.1", "127.0.0.1:99999", "192.168.1.5", "[::1", "/"]
)
def test_other_host_names_are_refused(host: str) -> None:
    answer = ask(trusted_hosts(hello, NAMES), headers={"host": host})
    assert answer.status == 400
    assert b"UnknownHost" in answer.body


def test_a_listening_server_takes_any_address_but_no_foreign_name() -> None:
    app = trusted_hosts(hello, NAMES, any_address=True)
    assert ask(app, headers={"host": "192.168.1.5:7860"}).status == 200
    assert ask(app, headers={"host": "[fe80::1]:7860"}).status == 200
    assert ask(app, headers={"host": "evil.example"}).status == 400


def test_a_host_with_a_path_is_malformed() -> None:
    assert split_host("127.0.0.1/x") is None
    assert split_host("127.0.0.1:7860") == ("127.0.0.1", 7860)


def test_an_announced_body_above_the_limit_is_refused_unread() -> None:
    app = body_limit(hello, 10)
    assert ask(app, "POST", headers={"content-length": "10"}, body=b"x" * 10).status == 200
    assert ask(app, "POST", headers={"content-length": "11"}).status == 413
    assert ask(app, "POST", headers={"content-length": "-5"}).status == 413


def test_a_body_that_grows_above_the_limit_in_pieces_is_refused() -> None:
    assert ask(body_limit(hello, 10), "POST", body=[b"x" * 6, b"x" * 6]).status == 413


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "http://127.0.0.1:port"},
        {"origin": "http://127.0.0.1:7860@evil.example"},
        {"origin": "file://127.0.0.1:7860"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_changes_from_other_origins_are_refused(headers: dict[str, str]) -> None:
    answer = ask(same_origin(hello), "POST", headers=headers)
    assert answer.status == 403
    assert b"ForeignOrigin" in answer.body


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:7860"},
        {"origin": "https://127.0.0.1:7860"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ],
)
def test_changes_from_the_own_page_and_from_programs_pass(headers: dict[str, str]) -> None:
    assert ask(same_origin(hello), "POST", headers=headers).status == 200


def test_reading_is_open_to_any_origin_and_an_allowed_one_may_change() -> None:
    assert ask(same_origin(hello), "GET", headers={"origin": "http://evil.example"}).status == 200
    app = same_origin(hello, ("https://friend.example",))
    assert ask(app, "POST", headers={"origin": "https://friend.example"}).status == 200


def test_default_ports_are_the_same_origin() -> None:
    assert origin_is_own("http://example.org", "example.org:80", ())
    assert not origin_is_own("http://example.org", "example.org:7860", ())


def test_every_response_carries_the_security_headers() -> None:
    headers = ask(security_headers(hello)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "same-origin"
    assert "http" not in headers["content-security-policy"]
