"""Uploading a picture to start from, and getting it back."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from webui.inputs import MAX_BYTES
from webui.paths import Paths


def png(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (24, 16), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_uploaded_picture_has_a_reference_and_comes_back_byte_for_byte(web: Any) -> None:
    answer = web.post("/inputs", content=png())
    assert answer.status_code == 201
    found = answer.json()
    assert found["reference"] == hashlib.sha256(png()).hexdigest()
    assert (found["width"], found["height"], found["format"], found["has_alpha"]) == (24, 16, "PNG", True)
    back = web.get(found["url"])
    assert back.content == png()
    assert back.headers["content-type"] == "image/png"
    assert "immutable" in back.headers["cache-control"]
    assert web.get(f"{found['url']}/info").json() == found


def test_a_body_without_a_length_is_taken_too(web: Any) -> None:
    data = png("blue")
    answer = web.post("/inputs", content=(data[i : i + 7] for i in range(0, len(data), 7)))
    assert answer.json()["reference"] == hashlib.sha256(data).hexdigest()


def test_a_saved_picture_is_taken_by_its_name(web: Any, face_paths: Paths) -> None:
    file = face_paths.outputs / "txt2img-images" / "to-send.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png("green"))
    answer = web.post("/inputs", params={"output": "txt2img-images/to-send.png"})
    assert answer.status_code == 201
    assert answer.json()["reference"] == hashlib.sha256(png("green")).hexdigest()


@pytest.mark.parametrize("name", ["../cache/queue.sqlite", ".inputs/aa/x.png", "/etc/passwd", "none.png", ""])
def test_nothing_but_saved_pictures_can_be_named(web: Any, name: str) -> None:
    assert web.post("/inputs", params={"output": name}).status_code == 404


@pytest.mark.parametrize("data", [b"", b"<svg/>", png()[:40]])
def test_what_is_no_picture_is_refused_in_words(web: Any, data: bytes) -> None:
    answer = web.post("/inputs", content=data)
    assert answer.status_code == 422
    assert answer.json()["message"]


def test_an_upload_that_does_not_end_is_given_up(web: Any, face_paths: Paths) -> None:
    def endless() -> Any:
        for _ in range(MAX_BYTES // 2**20 + 8):
            yield b"\x89PNG\r\n\x1a\n" + b"\0" * (2**20 - 8)

    before = {path for path in Path(face_paths.outputs).rglob("*") if path.is_file()}
    assert web.post("/inputs", content=endless()).status_code in (413, 422)
    assert {path for path in Path(face_paths.outputs).rglob("*") if path.is_file()} == before


def test_an_unknown_reference_is_not_found(web: Any) -> None:
    for name in ("a" * 64, "nonsense", "..%2f..%2fetc"):
        assert web.get(f"/inputs/{name}").status_code == 404
        assert web.get(f"/inputs/{name}/info").status_code == 404
