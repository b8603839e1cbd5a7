"""The ledger of a job of cells: what it finds again, and what it takes for not there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage

from webui.engine.saving.ledger import Ledger
from webui.events import Image
from webui.params import make_params

REQUEST = make_params({"prompt": "all", "seed": 1})
CELLS = [make_params({"prompt": prompt, "seed": 1}) for prompt in ("one", "two")]


def saved(outputs: Path, name: str) -> Image:
    """A picture of noise, whose file has several chunks of pixels."""
    outputs.mkdir(exist_ok=True)
    picture = PillowImage.effect_noise((300, 300), 50).convert("RGB")
    picture.save(outputs / name)
    digest = hashlib.sha256(picture.tobytes()).hexdigest()
    return Image(0, str(outputs / name), 1, 300, 300, "a cell", digest)


def written(root: Path) -> tuple[Path, list[Image]]:
    """The file of a ledger with two cells, and their pictures."""
    ledger = Ledger.of(root, REQUEST)
    images = [saved(root / "outputs", f"{number}.png") for number in range(2)]
    for cell, image in zip(CELLS, images, strict=True):
        ledger.add(cell, [image], root / "outputs")
    return ledger._path, images


def test_a_finished_cell_is_found_again_as_it_was_told(tmp_path: Path) -> None:
    _, images = written(tmp_path)
    for cell, image in zip(CELLS, images, strict=True):
        found = Ledger.of(tmp_path, REQUEST).find(cell, tmp_path / "outputs")
        assert found is not None
        assert found.images == (image,)
        for user in ("ann", "bob"):
            assert Ledger.of(tmp_path, REQUEST, user).find(cell, tmp_path / "outputs") is None


def test_a_damaged_line_is_not_there_and_the_others_are(tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first.replace(b"a cell", b"a \xff\xfe cell") + second)
    ledger = Ledger.of(tmp_path, REQUEST)
    assert [ledger.find(cell, tmp_path / "outputs") is not None for cell in CELLS] == [False, True]


@pytest.mark.parametrize(
    "change",
    [
        {"added": 1},
        {"path": None},
        {"pixels_sha256": None},
        {"seed": None},
    ],
)
def test_a_line_of_another_version_is_not_there(tmp_path: Path, change: dict[str, Any]) -> None:
    """A field more, or (None) one less."""
    path, _ = written(tmp_path)
    first, second = path.read_text().splitlines()
    line = json.loads(first)
    entry = {**line["images"][0], **change}
    line["images"] = [{name: value for name, value in entry.items() if value is not None}]
    path.write_text(f"{json.dumps(line)}\n{second}\n")
    ledger = Ledger.of(tmp_path, REQUEST)
    assert [ledger.find(cell, tmp_path / "outputs") is not None for cell in CELLS] == [False, True]


def test_a_picture_whose_file_was_damaged_is_not_there(tmp_path: Path) -> None:
    _, images = written(tmp_path)
    file = Path(images[0].path)
    start, _, end = file.read_bytes().rpartition(b"IDAT")
    file.write_bytes(start + b"\xff\xff\xff\xff" + end)
    ledger = Ledger.of(tmp_path, REQUEST)
    assert [ledger.find(cell, tmp_path / "outputs") is not None for cell in CELLS] == [False, True]


def test_a_picture_above_pillows_limit_is_found_and_one_of_another_size_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, images = written(tmp_path)
    monkeypatch.setattr(PillowImage, "MAX_IMAGE_PIXELS", 1000)
    PillowImage.new("RGB", (3000, 10)).save(images[1].path)
    ledger = Ledger.of(tmp_path, REQUEST)
    assert [ledger.find(cell, tmp_path / "outputs") is not None for cell in CELLS] == [True, False]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[]\n", b'{"cell": "a", "images": ["b"]}\n', b"{", b"\x80" * 99])
def test_a_file_that_is_no_ledger_is_one_without_cells(tmp_path: Path, content: bytes) -> None:
    path, _ = written(tmp_path)
    path.write_bytes(content)
    assert all(Ledger.of(tmp_path, REQUEST).find(cell, tmp_path / "outputs") is None for cell in CELLS)
