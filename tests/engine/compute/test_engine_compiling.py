"""A compiled network: compiled once, right when its weights change, and as before where compiling fails."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from webui.engine.compute.compiling import compile_in_place


class Backend:
    """Counts what it is given to compile, and runs it as it is; or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.compiled = 0
        self._error = error

    def __call__(self, graph: Any, _inputs: Any) -> Any:
        self.compiled += 1
        if self._error is not None:
            raise self._error
        return graph.forward


class Network(torch.nn.Module):
    """Of a class of its own, as a UNet is: torch does not compile its own alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(torch.nn.functional.silu(self.first(x)))
        return y


def test_it_is_compiled_once_and_follows_its_weights() -> None:
    own, plain, backend, x = Network(), Network(), Backend(), torch.ones(3, 4)
    plain.load_state_dict(own.state_dict())
    compile_in_place(own, backend)
    for _ in range(2):
        torch.testing.assert_close(own(x), plain(x))
    for one in (own, plain):
        one.get_parameter("first.weight").data = torch.full((4, 4), 0.5)  # as a LoRA does it
    torch.testing.assert_close(own(x), plain(x))
    assert backend.compiled == 1


def test_where_it_cannot_be_compiled_it_runs_as_it_is_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own, plain, backend = Network(), Network(), Backend(RuntimeError("no compiler here"))
    plain.load_state_dict(own.state_dict())
    compile_in_place(own, backend)
    with caplog.at_level(logging.WARNING, "webui"):
        for _ in range(2):
            torch.testing.assert_close(own(torch.ones(3, 4)), plain(torch.ones(3, 4)))
    assert backend.compiled == 1
    assert [record.name for record in caplog.records] == ["webui.engine.compute.compiling"]
    assert "could not be compiled" in caplog.text
