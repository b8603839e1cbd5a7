"""Every operation of the API's own description, with values that fit the description and values that do not: the
answer may be a refusal, but never a fault of the server (no 5xx), and always JSON where it is one of ours.

Ids made up at random are never those of something: so what has an id in its path is asked about things that exist, too,
one operation after another on the same job and picture, as a client leaves them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from history_studio import Studio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from painter import Atelier, atelier, sketcher, with_checkpoint
from PIL import Image
from schemathesis.core.errors import SerializationNotPossible

from webui.history import Recorder

EXAMPLES = {"positive": 3, "negative": 1}  # of each operation
# What exists here and is refused all the same: a saved picture is not in memory, and no extension has that name.
NEVER_FITS = {"GET /jobs/{job_id}/pictures/{index}.png", *(f"POST /extensions/{{name}}/{w}able" for w in ("en", "dis"))}
NOT_ASKED = {("post", "/worker/restart")}  # the engine would come up anew with every example


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atelier]:
    with atelier(with_checkpoint(tmp_path_factory.mktemp("fuzz")), factory=sketcher) as found:
        yield found


def examples(count: int) -> settings:
    """So many requests of each kind, the same ones at every run."""
    return settings(
        max_examples=count,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


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
        @examples(EXAMPLES[mode])
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


@pytest.fixture(scope="module")
def existing(house: Atelier) -> dict[str, str]:
    """A value for each name in a path: those of a finished job and its picture, a link, and what lies beside them."""
    recorder = Recorder(house.paths)
    checkpoint = house.catalog.checkpoints[0].name
    Studio(house.paths, recorder, models=()).save(prompt="a crane", seed=5, checkpoint=checkpoint)
    recorder.close()
    row = house.client.get("/history/ids").json()["ids"][0]
    start = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(start, "PNG")
    job = house.client.post("/jobs", json={"prompt": "a crane", "steps": 1, "width": 64, "height": 64}).json()["id"]
    view = house.client.get(f"/jobs/{job}", params={"wait": 60}).json()
    shared = house.client.post(f"/history/{row}/share", json={}).json()
    return {
        "job_id": job,
        "index": "0",
        "picture_id": str(row),
        "other": str(row),
        "reference": house.client.post("/inputs", content=start.getvalue()).json()["reference"],
        "token": shared["path"].rpartition("/")[2],
        "share_id": str(shared["id"]),
        "form": "txt2img",
        "/outputs/{name}": view["images"][0]["path"],
        "/v1/models/{name}": house.client.get("/v1/models").json()["data"][0]["id"],
        "/caches/{name}": "prompts",
        "name": "prompt-matrix",
    }


def test_no_request_about_something_that_exists_makes_the_server_fail(house: Atelier, existing: dict[str, str]) -> None:
    failures: list[str] = []
    found: set[str] = set()
    about = [one for one in operations(house) if "{" in one.path]
    for operation in sorted(about, key=lambda one: ("revoke" in one.path, one.method, one.path)):
        strategy = operation.as_strategy(schemathesis.GenerationMode.POSITIVE)

        def ask(case: Any) -> None:
            path = case.operation.path
            case.path_parameters = {name: existing.get(path, existing[name]) for name in re.findall(r"\{(\w+)\}", path)}
            answer = case.call()
            if answer.status_code >= 500:
                failures.append(f"{case.method} {case.formatted_path}: {answer.status_code} {answer.text[:200]}")
            if answer.status_code < 300:
                found.add(f"{case.method} {path}")

        name = f"{operation.method.upper()} {operation.path}"
        for count in (2, 20):  # more where chance gave nothing that fits
            if name not in found:
                with contextlib.suppress(Unsatisfiable, SerializationNotPossible):
                    given(case=strategy)(examples(count)(ask))()
            if name in NEVER_FITS:
                break
    assert not failures, "\n".join(failures[:20])
    unseen = {f"{one.method.upper()} {one.path}" for one in about} - found - NEVER_FITS
    assert not unseen, "nothing there was reached"
