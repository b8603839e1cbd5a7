"""The history on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from history_studio import Studio, draw

from webui import infotext, pictures
from webui.errors import InvalidParams, NotFound, SaveError
from webui.history import commands
from webui.history.importer import ImportProgress
from webui.paths import Paths


@pytest.fixture
def said() -> list[str]:
    return []


def test_listing_shows_a_line_a_picture(studio: Studio, said: list[str]) -> None:
    for seed in range(5):
        studio.save(seed=seed, prompt=f"castle\nnumber {seed}")
    assert commands.list_pictures(studio.paths, limit=3, say=said.append) == 3
    assert [line.split()[0] for line in said] == ["5", "4", "3"]
    assert said[0].endswith("64x48            4 castle number 4")
    said.clear()
    assert commands.list_pictures(studio.paths, "castle seed:1", say=said.append) == 1
    said.clear()
    assert commands.list_pictures(studio.paths, "size:big", limit=1, say=said.append) == 1
    assert said[0].startswith("# size: takes a width")


def test_showing_a_picture_tells_everything(studio: Studio, said: list[str]) -> None:
    studio.save(seed=3)
    commands.show(studio.paths, 1, say=said.append)
    text = "\n".join(said)
    for fact in (
        "txt2img-images/2026-11-23/00000-3.png",
        "photo/base-v15.safetensors [6ce0161689]",
        "2.13.0",
        "Seed: 3",
    ):
        assert fact in text
    with pytest.raises(NotFound):
        commands.show(studio.paths, 9, say=said.append)


def test_deleting_says_how_to_undo_it(studio: Studio, said: list[str]) -> None:
    path = studio.save(seed=1)
    assert commands.delete(studio.paths, [1], say=said.append) == [1]
    assert said == ["1 picture moved to the trash. Undo: history restore 1"]
    assert not path.exists()
    assert commands.list_pictures(studio.paths, trashed=True, say=said.append) == 1
    assert commands.restore(studio.paths, [1], say=said.append) == [1]
    assert path.exists()
    for undone in (commands.restore, commands.delete):
        with pytest.raises(NotFound):
            undone(studio.paths, [99], say=said.append)
    commands.delete(studio.paths, [1], say=said.append)
    assert commands.empty_trash(studio.paths, say=said.append) == 1
    assert said[-1] == "1 picture deleted for good."


def test_importing_a_folder_tells_how_far_it_is(paths: Paths, studio: Studio, said: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    text = infotext.format(studio.params(seed=5), model_name="x", model_hash="0123456789")
    (folder / "a.png").write_bytes(pictures.encode(draw(5), "png", 90, text))
    (folder / "b.jpg").write_bytes(pictures.encode(draw(6), "jpeg", 90, text))
    draw(7).save(folder / "plain.png")
    (folder / "bad.webp").write_bytes(b"RIFF")
    told: list[ImportProgress] = []
    result = commands.import_folder(paths, folder, progress=told.append, say=said.append)
    assert (result.added, result.plain, result.refused) == (2, 1, 1)
    assert said[0] == "4 pictures found: 2 added, 0 known already."
    assert said[1].startswith("1 picture without metadata left out")
    assert said[2].startswith("  bad.webp: ")
    assert told[-1] == ImportProgress(4, 4, 2, "")
    with pytest.raises(InvalidParams):
        commands.import_folder(paths, tmp_path / "none", say=said.append)


def test_export_and_import_of_lines(studio: Studio, said: list[str], tmp_path: Path) -> None:
    for seed in range(3):
        studio.save(seed=seed)
    target = tmp_path / "history.jsonl"
    assert commands.export(studio.paths, target, say=said.append) == 3
    assert commands.export(studio.paths, target, "seed:1", say=said.append) == 1
    other = Paths.under(tmp_path / "other")
    other.make_folders()
    with target.open("a") as file:
        file.write("nonsense\n")
    result = commands.import_lines(other, target, say=said.append)
    assert (result.added, result.refused) == (1, 1)
    assert said[-2:] == ["1 picture added, 0 known already.", "  Line 2: The line is not JSON."]
    with pytest.raises(InvalidParams):
        commands.import_lines(other, tmp_path / "none", say=said.append)
    with pytest.raises(SaveError):
        commands.export(studio.paths, target / "below", say=said.append)
