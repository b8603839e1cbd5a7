"""The socket, the names and the addresses."""

from __future__ import annotations

import socket

import pytest

from webui.errors import WebUIError
from webui.server.addresses import addresses, bind, host_names
from webui.server.options import ServeOptions


def test_a_port_in_use_is_told_with_another_one_to_try() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WebUIError) as caught:
            bind("127.0.0.1", port)
        assert caught.value.message == f"Port {port} is in use by another program."
        assert "--port" in caught.value.advice


def test_an_address_of_another_machine_cannot_be_bound() -> None:
    with pytest.raises(WebUIError, match="cannot be used"):
        bind("192.0.2.77", 0)


def test_a_local_server_prints_one_address_without_a_token() -> None:
    assert addresses(ServeOptions(), 7860, "secret") == ["http://127.0.0.1:7860"]


def test_a_listening_server_prints_the_link_with_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.server.addresses.lan_address", lambda: "192.168.1.5")
    options = ServeOptions(host="0.0.0.0")
    assert addresses(options, 7860, "secret") == ["http://127.0.0.1:7860", "http://192.168.1.5:7860/?token=secret"]
    assert {"192.168.1.5", socket.gethostname().lower(), "localhost"} <= host_names(options)


def test_a_local_server_answers_to_loopback_names_and_the_named_ones_alone() -> None:
    assert host_names(ServeOptions(allowed_hosts=("pics.example.org",))) == {
        "127.0.0.1",
        "localhost",
        "::1",
        "pics.example.org",
    }
