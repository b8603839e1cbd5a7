"""Ground rules of the suite: no network, the real embedded model, folders of its own for every test."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    GRADIO_ANALYTICS_ENABLED="False",
    GRADIO_RUN_HISTORY="false",
    TOKENIZERS_PARALLELISM="false",
)

REPO_ROOT = Path(__file__).resolve().parent.parent
EMBEDDED_CHECKPOINT = REPO_ROOT / "models" / "Stable-diffusion" / "emoji-proto-128.safetensors"

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")
_real_connect = socket.socket.connect


def _guarded_connect(self: socket.socket, address: Any) -> None:
    if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
        raise AssertionError(f"a test tried to reach the network: {address}")
    _real_connect(self, address)


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Any connection that leaves the machine fails the test that tried it."""
    socket.socket.connect = _guarded_connect  # type: ignore[method-assign]
    yield
    socket.socket.connect = _real_connect  # type: ignore[method-assign]


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system allows it: the embedded model is 42 MB."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A fresh data folder that holds the embedded checkpoint and nothing else."""
    root = tmp_path / "data"
    checkpoints = root / "models" / "Stable-diffusion"
    checkpoints.mkdir(parents=True)
    for source in (EMBEDDED_CHECKPOINT, EMBEDDED_CHECKPOINT.with_suffix(".yaml")):
        link_or_copy(source, checkpoints / source.name)
    return root
