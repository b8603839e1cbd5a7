"""Pictures out, and what a picture says."""

from __future__ import annotations

import io
from typing import Any

import pytest
from fake_jobs import FakeJobs
from PIL import Image, PngImagePlugin

TEXT = "a red apple\nNegative prompt: blurry\nSteps: 12, Sampler: Euler, CFG scale: 5, Seed: 42, Size: 128x64"


def png(text: str | None = TEXT, size: tuple[int, int] = (128, 64)) -> bytes:
    info = PngImagePlugin.PngInfo()
    if text is not None:
        info.add_text("parameters", text)
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def test_a_picture_tells_its_parameters(web: Any) -> None:
    found = web.post("/png-info", content=png()).json()
    assert found["infotext"] == TEXT
    assert found["prompt"] == "a red apple"
    assert found["negative_prompt"] == "blurry"
    assert found["fields"]["Sampler"] == "Euler"
    assert found["params"]["steps"] == 12
    assert found["params"]["seed"] == 42
    assert (found["width"], found["height"], found["format"]) == (128, 64, "PNG")


def test_a_picture_without_parameters_says_so(web: Any) -> None:
    found = web.post("/png-info", content=png(None)).json()
    assert found["infotext"] == ""
    assert found["params"] == {} or "prompt" not in found["params"] or found["prompt"] == ""


@pytest.mark.parametrize(
    "data",
    [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html><script>", b"GIF89a", png()[:50], b"\x89PNG\r\n"],
)
def test_what_is_no_picture_is_refused_in_words(web: Any, data: bytes) -> None:
    answer = web.post("/png-info", content=data)
    assert answer.status_code == 422
    assert answer.json()["message"]
    assert "Traceback" not in answer.text


def test_nothing_is_written_while_reading_a_picture(web: Any, fake_jobs: FakeJobs) -> None:
    root = fake_jobs.outputs.parent
    before = {p for p in root.rglob("*") if p.is_file()}
    web.post("/png-info", content=png())
    assert {p for p in root.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "%2e%2e/secret.png",
        "..%2fsecret.png",
        "%252e%252e/secret.png",
        "..%5csecret.png",
        "/etc/passwd",
        "//etc/passwd",
        "C:/x.png",
        "a.png%00.png",
        "notes.txt",
        ".hidden.png",
        "folder",
        "queue.sqlite",
        "link.png",
    ],
)
def test_only_pictures_below_outputs_are_served(web: Any, fake_jobs: FakeJobs, name: str) -> None:
    outputs = fake_jobs.outputs
    (outputs.parent / "secret.png").write_bytes(png())
    (outputs / "notes.txt").write_text("x")
    (outputs / ".hidden.png").write_bytes(png())
    (outputs / "queue.sqlite").write_bytes(b"x")
    (outputs / "folder").mkdir(exist_ok=True)
    if not (outputs / "link.png").is_symlink():
        (outputs / "link.png").symlink_to(outputs.parent / "secret.png")
    answer = web.get(f"/outputs/{name}")
    assert answer.status_code == 404
    assert str(outputs) not in answer.text


@pytest.mark.parametrize("name", [".trash/1/one.png", "day/.kept/one.png", "day/../.trash/1/one.png", "link/one.png"])
def test_what_lies_in_a_hidden_folder_is_not_served(web: Any, fake_jobs: FakeJobs, name: str) -> None:
    outputs = fake_jobs.outputs
    for folder in (outputs / ".trash" / "1", outputs / "day" / ".kept"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "one.png").write_bytes(png())
    if not (outputs / "link").is_symlink():
        (outputs / "link").symlink_to(outputs / ".trash" / "1")
    assert (outputs / name).is_file()
    assert web.get(f"/outputs/{name.replace('..', '%2e%2e')}").status_code == 404


@pytest.mark.parametrize(
    ("suffix", "kind"), [("png", "image/png"), ("jpg", "image/jpeg"), ("webp", "image/webp"), ("avif", "image/avif")]
)
def test_each_format_has_its_content_type(web: Any, fake_jobs: FakeJobs, suffix: str, kind: str) -> None:
    path = fake_jobs.outputs / f"one.{suffix}"
    Image.new("RGB", (8, 8)).save(path)
    answer = web.get(f"/outputs/one.{suffix}")
    assert answer.headers["content-type"] == kind
    assert answer.content == path.read_bytes()
