"""What goes wrong is said in a sentence, and the next job works."""

from __future__ import annotations

import gc
import io
import logging
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedded import EMBEDDED_CHECKPOINT, install_embedded
from engine_runs import digest, make_engine, rewrite, run
from PIL import Image as PillowImage

from webui import pictures
from webui.engine import Engine, denoise
from webui.engine.checkpoints import models
from webui.engine.saving import keeping, save
from webui.errors import SaveError
from webui.events import Step

SMALL = {"width": 64, "height": 64}


def failing_at(which: int | set[int], error: Exception, held: list[Any] | None = None) -> Any:
    """The UNet's evaluation, raising at a call, or at several, while a large tensor is in its frame."""
    failing = {which} if isinstance(which, int) else which
    real, calls = denoise.UnetEvaluator.__call__, 0

    def evaluate(self: Any, x: torch.Tensor, *rest: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in failing:
            activations = torch.ones(1000, 1000)
            if held is not None:
                held.append(weakref.ref(activations))
            raise error
        return real(self, x, *rest)

    return evaluate


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
    ],
)
def test_F01_no_memory_in_mid_job_and_when_tried_again_frees_everything_and_advises(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    held: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(denoise.UnetEvaluator, "__call__", failing_at({2, 4}, error, held))
        failed = run(engine, **SMALL)
    assert failed.error["error"] == "OutOfMemory"
    assert "again when everything else was freed" in failed.error["message"]
    assert "smaller size" in failed.error["advice"]
    assert failed.images == []
    error.__traceback__ = None
    gc.collect()
    assert [one() for one in held] == [None, None]  # the tensors of the failed calls are gone
    assert run(engine, **SMALL).finished.pictures == 1


def test_F03_no_memory_while_loading_leaves_nothing_half_loaded(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_embedded(data_dir, "other")
    engine = make_engine(data_dir)
    run(engine, checkpoint=EMBEDDED_CHECKPOINT.stem, **SMALL)

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(models, "fill", full)
        assert run(engine, checkpoint="other", **SMALL).error["error"] == "OutOfMemory"
    assert "other.safetensors" not in engine.loaded
    assert run(engine, checkpoint="other", **SMALL).finished.pictures == 1
    assert engine.loaded == ("other.safetensors",)
    engine.close()


def test_F07_H026_a_network_of_nan_is_named_and_nothing_is_saved(data_dir: Path) -> None:
    """All weights NaN, or infinite; the file stays selectable and other models work."""
    folder = data_dir / "models" / "Stable-diffusion"
    for name, value in (("nan", float("nan")), ("inf", float("inf"))):

        def poison(tensors: dict[str, Any], value: float = value) -> Any:
            for key, tensor in tensors.items():
                unet = key.startswith("model.diffusion_model.") and tensor.is_floating_point()
                yield key, torch.full_like(tensor, value) if unet else tensor

        rewrite(EMBEDDED_CHECKPOINT, folder / f"{name}.safetensors", poison)
    engine = make_engine(data_dir)
    for name in ("nan", "inf"):
        failed = run(engine, checkpoint=name, steps=10)
        assert failed.error["error"] == "NanDetected"
        assert f"{name}.safetensors" in failed.error["message"]
        assert "fp32" in failed.error["message"]
        assert failed.of(Step) == []  # at once, not after all steps
    assert not list((data_dir / "outputs").rglob("*.png"))
    assert run(engine, checkpoint=EMBEDDED_CHECKPOINT.stem, **SMALL).finished.pictures == 1
    engine.close()


def test_an_unforeseen_error_is_logged_and_told_without_its_traceback(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(denoise.UnetEvaluator, "__call__", failing_at(1, KeyError("a defect")))
        failed = run(engine, **SMALL)
    assert failed.error["error"] == "EngineFault"
    assert "KeyError" in failed.error["message"]
    assert "Traceback" not in str(failed.error)
    assert "Traceback" in caplog.text
    assert run(engine, **SMALL).finished.pictures == 1


def test_F13_a_full_disk_keeps_the_picture_in_the_event(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(data_dir)

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(save, "write_new", full)
        done = run(engine, batch_size=2, image_format="jpeg", **SMALL)
    assert done.finished.pictures == 2
    for image in done.images:
        assert image.path == ""
        assert "No space left on device" in image.error
        assert str(data_dir / "outputs") in image.error
        with PillowImage.open(io.BytesIO(image.png)) as picture:
            assert digest(np.asarray(picture)) == image.pixels_sha256
        assert pictures.read_text(image.png)[0] == image.infotext
    assert not [path for path in (data_dir / "outputs").rglob("*") if path.suffix in (".png", ".jpg", ".tmp")]
    assert run(engine, **SMALL).images[0].error == ""
    engine.close()


def test_F16_a_deleted_outputs_folder_is_made_again_and_a_blocked_one_is_named(data_dir: Path) -> None:
    import shutil

    engine = make_engine(data_dir)
    outputs = data_dir / "outputs"
    run(engine, **SMALL)
    shutil.rmtree(outputs)
    assert run(engine, **SMALL).images[0].error == ""
    shutil.rmtree(outputs)
    outputs.write_text("a file where the folder should be")
    image = run(engine, **SMALL).images[0]
    assert str(outputs) in image.error
    assert image.png
    engine.close()


def test_numbers_are_never_used_twice(tmp_path: Path) -> None:
    folder = tmp_path / "txt2img-images" / "2026-01-02"
    folder.mkdir(parents=True)
    assert [save.next_number(tmp_path, folder) for _ in range(3)] == [0, 1, 2]
    (folder / "00007-1.png").touch()  # somebody else's
    assert save.next_number(tmp_path, folder) == 8
    (folder / "00007-1.png").unlink()
    assert save.next_number(tmp_path, folder) == 9
    other = tmp_path / "txt2img-images" / "2026-01-03"
    other.mkdir()
    assert save.next_number(tmp_path, other) == 0
    (folder / "00012-1.png").touch()
    (tmp_path / save.COUNTER).write_bytes(b"not a database, and long enough to be sure of it" * 50)
    assert save.next_number(tmp_path, folder) == 13  # a broken counter: the names tell


def test_a_name_that_is_taken_in_between_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import contextlib
    import datetime

    day = datetime.date(2026, 1, 2)
    numbers = iter([3, 3, 4])
    monkeypatch.setattr(save, "next_number", lambda *_: next(numbers))

    def around(path: Path) -> Any:
        return contextlib.nullcontext()

    first = save.save_picture(tmp_path, b"one", 5, "png", day, around)
    second = save.save_picture(tmp_path, b"two", 5, "png", day, around)
    assert (first.name, second.name) == ("00003-5.png", "00004-5.png")
    assert first.read_bytes() == b"one"


def test_the_save_hook_surrounds_each_file(data_dir: Path) -> None:
    import contextlib

    from webui.paths import Paths
    from webui.settings import Settings

    told: list[tuple[str, Any, bool]] = []

    @contextlib.contextmanager
    def hook(picture: Any) -> Any:
        told.append(("before", picture, picture.path.exists()))
        yield
        told.append(("after", picture, picture.path.exists()))

    engine = Engine(Settings(), Paths.under(data_dir), save_hook=hook)
    done = run(engine, batch_size=2, **SMALL)
    assert [(when, exists) for when, _, exists in told] == [("before", False), ("after", True)] * 2
    picture = told[0][1]
    assert str(picture.path) == done.images[0].path
    assert picture.models[0].name == EMBEDDED_CHECKPOINT.name
    assert len(picture.models[0].sha256) == 64
    assert picture.environment.dtype == str(engine._tools.device.dtype).removeprefix("torch.")
    engine.close()


def test_a_counter_that_cannot_be_opened_is_no_reason_not_to_save(data_dir: Path) -> None:
    engine = make_engine(data_dir)
    (data_dir / "outputs" / save.COUNTER).mkdir()
    numbers = [Path(run(engine, **SMALL).images[0].path).name for _ in range(2)]
    assert numbers == ["00000-7.png", "00001-7.png"]
    engine.close()


def test_a_save_that_fails_does_not_cost_the_picture(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = keeping.save_picture

    def refuse(*arguments: Any, **more: Any) -> Path:
        raise SaveError("The picture could not be written.")

    monkeypatch.setattr(keeping, "save_picture", refuse)
    assert run(engine, **SMALL).images[0].png
    monkeypatch.setattr(keeping, "save_picture", real)
    assert run(engine, **SMALL).images[0].path
