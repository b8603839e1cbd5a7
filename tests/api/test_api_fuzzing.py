"""Every operation of the API's own description, with values that fit the description and values that do not: the
answer may be a refusal, but never a fault of the server (no 5xx), and always JSON where it is one of ours."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from painter import Atelier, atelier, sketcher, with_checkpoint
from schemathesis.core.errors import SerializationNotPossible

EXAMPLES = {"positive": 3, "negative": 1}  # of each operation
NOT_ASKED = {("post", "/worker/restart")}  # the engine would come up anew with every example


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atelier]:
    with atelier(with_checkpoint(tmp_path_factory.mktemp("fuzz")), factory=sketcher) as found:
        yield found


def operations(house: Atelier) -> list[Any]:
    schema = schemathesis.openapi.from_asgi("/openapi.json", house.app)
    return [found.ok() for found in schema.get_all_operations()]


def test_every_operation_is_described_and_none_is_forgotten(house: Atelier) -> None:
    described = {(one.method.lower(), one.path) for one in operations(house)}
    assert len(described) > 80
    assert {("post", "/jobs"), ("post", "/sdapi/v1/txt2img"), ("post", "/v1/images/generations")} <= described
    assert described >= NOT_ASKED


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_no_request_makes_the_server_fail(house: Atelier, mode: str) -> None:
    logging.getLogger("schemathesis").setLevel(logging.ERROR)
    failures: list[str] = []
    untried: list[str] = []
    asked = 0
    for operation in operations(house):
        if (operation.method.lower(), operation.path) in NOT_ASKED:
            continue
        if mode == "negative" and "application/json" not in operation.get_request_payload_content_types():
            continue  # what is wrong about a path or a query is not found by chance
        strategy = operation.as_strategy(schemathesis.GenerationMode(mode))

        @given(case=strategy)
        @settings(
            max_examples=EXAMPLES[mode],
            phases=[Phase.generate],
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            answer = case.call()
            if answer.status_code >= 500:
                failures.append(f"{case.method} {case.formatted_path}: {answer.status_code} {answer.text[:200]}")

        try:
            ask()
        except (Unsatisfiable, SerializationNotPossible):  # takes anything, or bytes, which have tests of their own
            untried.append(f"{operation.method} {operation.path}")
    assert not failures, "\n".join(failures[:20])
    assert asked > 20
    assert len(untried) < 5, untried
