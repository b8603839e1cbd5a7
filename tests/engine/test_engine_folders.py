"""A folder of pictures as one job: img2img and extras for each, whatever becomes of the others, and going on later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from engine_runs import run, run_until
from picture_inputs import keep, scene

from webui.catalog import Catalog
from webui.engine import Engine
from webui.engine.control import Control
from webui.engine.latents.vae import Vae
from webui.errors import InvalidParams, NotFound
from webui.events import Event, Image
from webui.inputs import InputStore
from webui.params import make_params, params_from_json
from webui.paths import Paths
from webui.settings import Settings

NAMES = ("first.png", "second.png", "third.png")


def folder(root: Path, seed: int = 0) -> list[dict[str, str]]:
    return [{"image": keep(root / "outputs", scene(48, 32, seed + i)), "name": name} for i, name in enumerate(NAMES)]


def drawn(engine: Engine, sources: list[dict[str, str]], **fields: Any) -> Any:
    settings = {"init": {"denoising_strength": 0.4}, "width": 64, "height": 64, "steps": 4}
    return run(engine, **{**settings, "sources": tuple(sources), **fields})


def test_each_picture_of_a_folder_is_drawn_as_it_would_be_alone(engine: Engine, root: Path) -> None:
    sources = folder(root)
    done = drawn(engine, sources, batch_size=2)
    assert [image.index for image in done.images] == list(range(6))
    assert done.started.pictures == done.finished.pictures == 6
    assert [step.batch for step in done.steps] == [1, 1, 2, 2, 3, 3]
    assert {step.batches for step in done.steps} == {3}
    for number, source in enumerate(sources):
        alone = drawn(engine, [], init={"denoising_strength": 0.4, "image": source["image"]}, batch_size=2)
        assert alone.digests == done.digests[2 * number : 2 * number + 2]
        assert f"Init image: {source['image']}" in done.images[2 * number].infotext


def test_without_a_size_each_picture_keeps_its_own(engine: Engine, root: Path) -> None:
    sources = [{"image": keep(root / "outputs", scene(*size))} for size in ((48, 32), (32, 64))]
    done = drawn(engine, sources, width=None, height=None)
    assert [(image.width, image.height) for image in done.images] == [(48, 32), (32, 64)]


def test_extras_of_a_folder_skip_and_name_a_file_that_was_damaged(engine: Engine, root: Path) -> None:
    sources = folder(root, seed=20)
    InputStore(root / "outputs").path(sources[1]["image"]).write_bytes(b"no picture")
    done = run(engine, extras={"upscaler": "Lanczos", "scale": 2.0}, sources=tuple(sources))
    assert [(image.index, image.width) for image in done.images] == [(0, 96), (2, 96)]
    assert [warning.text.partition(":")[0] for warning in done.warnings] == ["second.png"]
    assert done.finished.pictures == 2


def test_results_above_pillows_limit_end_neither_the_folder_nor_its_second_run(
    engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)  # in place of 89 million
    sources = [{"image": keep(root / "outputs", scene(24, 24, 50 + i)), "name": f"{i}.png"} for i in range(2)]
    fields: dict[str, Any] = {"extras": {"upscaler": "Nearest", "scale": 2.0}, "sources": tuple(sources)}

    def stop(event: Event, control: Control) -> None:
        if isinstance(event, Image):
            control.interrupt()

    cut = run_until(engine, stop, **fields)
    assert (len(cut.images), cut.finished.interrupted) == (1, True)
    whole = run(engine, **fields)
    assert [image.index for image in whole.images] == [0, 1]
    assert whole.images[0].path == cut.images[0].path


def test_a_picture_for_which_memory_does_not_suffice_does_not_stop_the_others(
    engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Vae.encode_mean, list[int]()

    def tight(self: Vae, pixels: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) <= 2:  # at the second, leaner attempt, too
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return real(self, pixels)

    monkeypatch.setattr(Vae, "encode_mean", tight)
    done = drawn(engine, folder(root, seed=30), vae_tiling="Off")
    assert [image.index for image in done.images] == [1, 2]
    again, warning = done.warnings
    assert "made again" in again.text
    assert warning.text.startswith("first.png: ")
    assert "ran out of memory" in warning.text


def test_a_job_that_was_stopped_makes_only_what_is_missing_when_it_is_queued_again(engine: Engine, root: Path) -> None:
    def stop(event: Event, control: Control) -> None:
        if isinstance(event, Image):
            control.interrupt()

    fields: dict[str, Any] = {
        "init": {"denoising_strength": 0.4},
        "sources": tuple(folder(root, seed=40)),
        "width": 64,
        "height": 64,
        "steps": 4,
    }
    cut = run_until(engine, stop, **fields)
    assert cut.finished.interrupted
    kept = {image.path: Path(image.path).stat().st_mtime_ns for image in cut.images}
    assert 0 < len(kept) < 3
    whole = run(engine, **fields)
    assert [image.index for image in whole.images] == [0, 1, 2]
    assert [image.path for image in whole.images[: len(kept)]] == list(kept)
    assert all(Path(path).stat().st_mtime_ns == changed for path, changed in kept.items())
    assert not whole.finished.interrupted
    assert {image.path for image in run(engine, **fields).images}.isdisjoint(kept)  # it was complete: made anew


def test_what_is_to_be_done_with_a_folder_is_complete_at_the_door(root: Path) -> None:
    paths = Paths.under(root)
    catalog, sources = Catalog(paths), folder(root)
    with pytest.raises(InvalidParams, match="add init or extras"):
        make_params({"sources": tuple(sources)})
    with pytest.raises(InvalidParams, match="no picture to enlarge"):
        catalog.resolve(make_params({"extras": {}}), Settings())
    with pytest.raises(NotFound):
        catalog.resolve(make_params({"extras": {}, "sources": ({"image": "0" * 64},)}), Settings())
    asked = make_params({"init": {}, "sources": tuple(sources)})
    assert params_from_json(asked.canonical_json()) == asked
    complete = catalog.resolve(asked, Settings())
    assert complete.checkpoint
    assert complete.seed >= 0
    assert (complete.init, complete.sources, complete.width) == (asked.init, asked.sources, None)
    assert set(complete.inputs) == {source["image"] for source in sources}
    assert catalog.resolve(complete, Settings()) == complete
    catalog.close()
