"""The suite's own guard: what would leave the machine fails, what stays on it does not."""

from __future__ import annotations

import socket

import pytest


@pytest.mark.parametrize("host", ["192.0.2.1", "example.org", b"example.org", "2001:db8::1"])
def test_a_name_or_address_elsewhere_is_refused_before_it_is_asked_for(host: str) -> None:
    with pytest.raises(AssertionError, match="reach the network"):
        socket.getaddrinfo(host, 80)


def test_a_connection_or_datagram_elsewhere_is_refused() -> None:
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        for attempt in (
            lambda: stream.connect(("192.0.2.1", 80)),
            lambda: stream.connect_ex(("192.0.2.1", 80)),
            lambda: datagram.sendto(b"x", ("192.0.2.1", 53)),
        ):
            with pytest.raises(AssertionError, match="reach the network"):
                attempt()


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())
    assert socket.getaddrinfo("localhost", 80)
