"""Ground rules of the suite: no network, the real embedded model, folders of its own for every test."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded import install_embedded
from hypothesis import HealthCheck, settings

os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    GRADIO_ANALYTICS_ENABLED="False",
    GRADIO_RUN_HISTORY="false",
    TOKENIZERS_PARALLELISM="false",
)
if "PYTEST_XDIST_WORKER" in os.environ:  # several tests at once: one thread each, here and in every program they start
    os.environ["OMP_NUM_THREADS"] = "1"

# No test is failed by a clock, and CI sees the same examples each time.
settings.register_profile(
    "suite", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("suite")

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0", "::ffff:127.")


def _is_here(host: object) -> bool:
    """Whether a host is this machine; "" and None mean any of its own addresses."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    return not name or str(name).startswith(_LOOPBACK) or str(name) == socket.gethostname()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Any connection, datagram or look-up of a name that would leave the machine fails the test that tried it."""

    def guard(real: Callable[..., Any], host_of: Callable[..., object]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **words: Any) -> Any:
            host = host_of(*arguments, **words)
            if not _is_here(host):
                raise AssertionError(f"a test tried to reach the network: {host!r}")
            return real(*arguments, **words)

        return guarded

    def of_address(_socket: socket.socket, *arguments: Any) -> object:
        address = arguments[-1]  # of connect and sendto; a path, for sockets of this machine alone
        return address[0] if isinstance(address, tuple) else None

    def of_name(host: object, *_: Any, **__: Any) -> object:
        return host

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, guard(getattr(socket.socket, name), of_address))
        for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
            patch.setattr(socket, name, guard(getattr(socket, name), of_name))
        yield


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A fresh data folder that holds the embedded checkpoint and nothing else."""
    root = tmp_path / "data"
    install_embedded(root)
    return root


# A suite started in the background inherits an ignored SIGINT, and with it every program that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
