"""The socket, the names and the addresses."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from webui.errors import WebUIError
from webui.server.addresses import bind, check_tls, host_names, own_address, shared_address
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


def test_a_local_server_has_one_address_and_none_for_others() -> None:
    assert own_address(ServeOptions(), 7860) == "http://127.0.0.1:7860"
    assert shared_address(ServeOptions(), 7860) == ""


def test_a_listening_server_has_an_address_for_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.server.addresses.lan_address", lambda: "192.168.1.5")
    options = ServeOptions(host="0.0.0.0", tls_cert="cert.pem")
    assert own_address(options, 7860) == "https://127.0.0.1:7860"
    assert shared_address(options, 7860) == "https://192.168.1.5:7860"
    assert shared_address(ServeOptions(host="fd00::7"), 80) == "http://[fd00::7]:80"
    assert {"192.168.1.5", socket.gethostname().lower(), "localhost"} <= host_names(options)


def test_tls_files_that_cannot_be_used_are_told_before_anything_starts(tmp_path: Path) -> None:
    missing, empty = str(tmp_path / "missing.pem"), tmp_path / "empty.pem"
    empty.write_text("")
    check_tls("", "")
    for cert, key in (("cert.pem", ""), ("", "key.pem"), (missing, missing), (str(empty), str(empty))):
        with pytest.raises(WebUIError, match="TLS"):
            check_tls(cert, key)


def test_a_local_server_answers_to_loopback_names_and_the_named_ones_alone() -> None:
    assert host_names(ServeOptions(allowed_hosts=("pics.example.org",))) == {
        "127.0.0.1",
        "localhost",
        "::1",
        "pics.example.org",
    }
