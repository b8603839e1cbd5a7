"""One house for several people: the app over a real queue, a stand-in engine, and three checkpoints."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedded import install_embedded
from painter import Atelier, atelier, with_checkpoint
from PIL import Image
from starlette.requests import Request

from webui.identity import Viewer

SMALL: dict[str, Any] = {"steps": 2, "width": 64, "height": 64, "sampler_name": "Euler a", "seed": 5}


def viewer_of(request: Request) -> Viewer:
    name = request.headers.get("x-user", "")
    return Viewer(name, admin=name == "root")


def open_house(root: Path) -> Iterator[Atelier]:
    with_checkpoint(root)
    for name in ("second", "third"):
        install_embedded(root, name)
    with atelier(root, viewer_of=viewer_of) as found:
        yield found


def submit(house: Atelier, user: str, prompt: str = "an apple", **params: Any) -> str:
    body = {"prompt": prompt, "steps": 3, "seed": 5, "width": 64, "height": 64, **params}
    answer = house.client.post("/jobs", json=body, headers={"x-user": user})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def over(house: Atelier, job: str, user: str) -> dict[str, Any]:
    view: dict[str, Any] = house.client.get(f"/jobs/{job}", params={"wait": 60}, headers={"x-user": user}).json()
    return view


def wait_until_running(house: Atelier, job: str, user: str) -> None:
    deadline = time.monotonic() + 60
    while house.client.get(f"/jobs/{job}", headers={"x-user": user}).json()["state"] != "running":
        assert time.monotonic() < deadline, "the job never began"
        time.sleep(0.01)


def sdapi(house: Atelier, route: str, body: Any, user: str = "ann") -> Any:
    return house.client.post(f"/sdapi/v1/{route}", json=body, headers={"x-user": user})


def as_base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
