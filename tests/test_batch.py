"""Many pictures from one command line: progress, faults of single files, and going on after a stop."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from embedded import install_embedded
from face_models import ASTRONAUT, STAND_INS, write_face_models
from PIL import Image
from typer.testing import CliRunner

from webui import cli, infotext, pictures
from webui.cli import batch, groups
from webui.engine.saving import save
from webui.errors import NotFound
from webui.history import History
from webui.inputs import InputStore
from webui.jobs.queue import JobQueue
from webui.params import GenerationParams, make_params
from webui.paths import Paths
from webui.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "to do"
    folder.mkdir()
    for number, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (12, 8), colour).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths.under(tmp_path / "data")
    paths.make_folders()
    return paths


def items(folder: Path, paths: Paths, act: Any = lambda number: None) -> list[batch.Item]:
    store = InputStore(paths.outputs)

    def item(number: int, file: Path) -> batch.Item:
        def request() -> GenerationParams:
            act(number)
            extras = {"image": groups.keep(str(file), store), "upscaler": "Lanczos"}
            return make_params({"extras": extras, "seed": 0, "variation_seed": 0})

        return batch.Item(file, request)

    return [item(number, file) for number, file in enumerate(batch.pictures_in([folder]))]


def run_all(todo: list[batch.Item], paths: Paths, **more: Any) -> tuple[list[str], int]:
    return batch.run_all(todo, len(todo), Settings(), paths, (), **more)


def test_the_pictures_of_a_folder_are_found_by_name_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    assert [path.name for path in batch.pictures_in([folder, folder / "0.png"])] == ["0.png", "1.png", "2.png"]
    for nothing in (tmp_path / "none", tmp_path / "data"):
        with pytest.raises(NotFound):
            batch.pictures_in([nothing])


def test_a_pattern_that_no_shell_has_expanded_names_the_pictures_it_fits(folder: Path) -> None:
    assert [path.name for path in batch.pictures_in([folder / "*"])] == ["0.png", "1.png", "2.png"]
    assert [path.name for path in batch.pictures_in([folder / "[12].p?g"])] == ["1.png", "2.png"]
    (folder / "[0].png").write_bytes((folder / "0.png").read_bytes())
    assert [path.name for path in batch.pictures_in([folder / "[0].png"])] == ["[0].png"], "a file of that very name"
    with pytest.raises(NotFound):
        batch.pictures_in([folder / "*.webp"])


@pytest.mark.parametrize(("options", "needed"), [(["--faces-2", "CodeFormer"], "--faces"), (["--fit"], "--size")])
def test_an_option_of_upscale_that_would_have_no_effect_is_refused(
    folder: Path, tmp_path: Path, options: list[str], needed: str
) -> None:
    line = ["upscale", str(folder), "-u", "Lanczos", *options, "--data-dir", str(tmp_path / "data")]
    refused = CliRunner().invoke(cli.command_line("upscale"), line)
    assert refused.exit_code != 0
    assert f"Give {needed} as well" in str(refused.exception)


def test_a_damaged_file_is_told_and_the_others_are_made(folder: Path, paths: Paths, capsys: Any) -> None:
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:40])
    saved, code = run_all(items(folder, paths), paths)
    assert (len(saved), code) == (2, 1)
    told = capsys.readouterr().err
    assert "3 of 3: 2.png" in told
    assert "1.png: " in told


def test_the_same_command_again_makes_only_what_is_missing(folder: Path, paths: Paths, capsys: Any) -> None:
    first, _ = run_all(items(folder, paths)[:1], paths)
    rest, code = run_all(items(folder, paths), paths)
    assert (len(first), len(rest), code) == (1, 2, 0)
    assert "1 of 3 were made before" in capsys.readouterr().err
    assert run_all(items(folder, paths), paths) == ([], 0)
    again, _ = run_all(items(folder, paths), paths, again=True)
    assert len(again) == 3


def test_the_same_command_again_makes_what_a_full_disk_refused_and_what_was_deleted(
    folder: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(save, "write_new", full)
        assert run_all(items(folder, paths), paths) == ([], 1)
    made, code = run_all(items(folder, paths), paths)
    assert (len(made), code) == (3, 0)
    Path(made[1]).unlink()
    again, code = run_all(items(folder, paths), paths)
    assert (len(again), code) == (1, 0)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_it_and_the_same_command_goes_on_there(folder: Path, paths: Paths, capsys: Any) -> None:
    stop = items(folder, paths, lambda number: os.kill(os.getpid(), signal.SIGINT) if number == 1 else None)
    saved, code = run_all(stop, paths)
    assert code == 130
    assert len(saved) < 3
    assert "are left" in capsys.readouterr().err
    rest, code = run_all(items(folder, paths), paths)
    assert (len(saved) + len(rest), code) == (3, 0)


def test_upscale_enlarges_a_folder_and_prints_the_paths(folder: Path, tmp_path: Path) -> None:
    line = ["upscale", str(folder), "--upscaler", "Lanczos", "--size", "30x30", "--data-dir", str(tmp_path / "data")]
    done = CliRunner().invoke(cli.command_line("upscale"), line)
    assert done.exit_code == 0, done.stderr
    saved = done.stdout.split()
    assert len(saved) == 3
    for path in saved:
        with Image.open(path) as image:
            assert image.size == (30, 30)
        text, _ = pictures.read_text(Path(path).read_bytes())
        assert infotext.parse(text).params["extras"]["width"] == 30


def test_upscale_restores_faces_with_the_named_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STAND_INS))
    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    data = tmp_path / "data"
    line = ["upscale", str(ASTRONAUT), "-u", "None", "--scale", "1", "--data-dir", str(data)]
    missing = CliRunner().invoke(cli.command_line("upscale"), [*line, "--faces", "GFPGAN"])
    assert missing.exit_code != 0
    assert "models/GFPGAN" in missing.stderr
    write_face_models(data)
    faces = ["--faces", "GFPGAN", "--faces-visibility", "0.5", "--faces-2", "CodeFormer", "--codeformer-weight", "0.7"]
    done = CliRunner().invoke(cli.command_line("upscale"), [*line, *faces])
    assert done.exit_code == 0, done.stderr
    text, _ = pictures.read_text(Path(done.stdout.strip()).read_bytes())
    read = make_params(infotext.parse(text).params).faces
    wanted = {"model": "GFPGANv1.4", "visibility": 0.5, "model_2": "codeformer", "visibility_2": 0.5}
    assert read == make_params({"faces": {**wanted, "codeformer_weight": 0.7}}).faces


def test_img2img_of_a_folder_starts_from_each_picture(folder: Path, tmp_path: Path) -> None:
    install_embedded(tmp_path / "data", "m")
    line = ["generate", "an apple", "--init-folder", str(folder), "--steps", "2", "--seed", "7", "--cfg", "1"]
    line += ["--width", "64", "--height", "64", "--denoising-strength", "0.3", "--data-dir", str(tmp_path / "data")]
    done = CliRunner().invoke(cli.command_line("generate"), line)
    assert done.exit_code == 0, done.stderr
    saved = done.stdout.split()
    texts = [pictures.read_text(Path(path).read_bytes())[0] for path in saved]
    assert len({infotext.parse(text).params["init"]["image"] for text in texts}) == 3


def test_what_the_history_or_a_job_needs_is_not_cleaned(folder: Path, paths: Paths) -> None:
    run_all(items(folder, paths)[:1], paths)
    store = InputStore(paths.outputs)
    made = store.add((folder / "0.png").read_bytes()).reference
    queued = store.add((folder / "1.png").read_bytes()).reference
    unused = store.add((folder / "2.png").read_bytes()).reference
    queue = JobQueue(paths.queue_db)
    queue.enqueue(make_params({"init": {"image": queued}}).canonical_json())
    history = History(paths)
    needed = history.inputs() | queue.inputs()
    assert needed == {made, queued}
    assert store.clean(needed, older_than=-1).removed == 1
    with pytest.raises(NotFound):
        store.path(unused)
    queue.close()
    history.stop()
