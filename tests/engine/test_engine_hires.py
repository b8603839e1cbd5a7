"""The hires pass, SD upscale and extras with the embedded model and a small upscaler."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedded import EMBEDDED_CHECKPOINT, install_embedded
from engine_runs import make_engine, pixels_of, run, run_until
from picture_inputs import keep, scene
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file
from upscaler_models import compact, tensors_of

from webui import infotext, pictures
from webui.engine import Engine
from webui.engine.control import Control
from webui.engine.sd_upscale import Grid
from webui.events import Step
from webui.inputs import InputStore
from webui.params import make_params

TEXT = "a red apple\nSteps: 12, Sampler: Euler, CFG scale: 5, Seed: 42, Size: 24x16, Version: v1.10.1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hires")
    install_embedded(root)
    install_embedded(root, "second")
    folder = root / "models" / "ESRGAN"
    folder.mkdir(parents=True)
    save_file(tensors_of(compact(2)), folder / "small.safetensors")
    return root


@pytest.fixture(scope="module")
def engine(root: Path) -> Any:
    engine = make_engine(root)
    yield engine
    engine.close()


def small(engine: Engine, **fields: Any) -> Any:
    return run(engine, **{"width": 64, "height": 64, **fields})


def test_the_second_pass_has_its_own_size_and_steps_and_progress_counts_both(engine: Engine) -> None:
    done = small(engine, hires={"upscaler": "Latent", "scale": 1.5, "denoising_strength": 0.6, "steps": 3})
    assert (done.images[0].width, done.images[0].height) == (96, 96)
    assert (done.started.width, done.started.height, done.started.steps) == (96, 96, 7)
    assert [step.step for step in done.steps] == list(range(1, 8))


@pytest.mark.parametrize("upscaler", ["Latent (bicubic antialiased)", "Latent (nearest)", "Lanczos", "small"])
def test_every_kind_of_upscaler_leads_to_the_target_and_batches_equal_singles(engine: Engine, upscaler: str) -> None:
    hires = {"upscaler": upscaler, "width": 96, "height": 80, "denoising_strength": 0.5, "steps": 2}
    together = small(engine, steps=2, batch_size=2, hires=hires)
    assert {(image.width, image.height) for image in together.images} == {(96, 80)}
    alone = [small(engine, steps=2, seed=seed, hires=hires).digests[0] for seed in (7, 8)]
    assert together.digests == alone


def test_each_setting_of_the_second_pass_has_its_effect(engine: Engine) -> None:
    base = {"denoising_strength": 0.8, "steps": 4, "scale": 1.25}
    plain = small(engine, hires=base).digests
    for change in (
        {"sampler": "Euler a"},
        {"schedule": "Karras"},
        {"cfg_scale": 1.5},
        {"prompt": "a blue car"},
        {"negative_prompt": "red"},
        {"upscaler": "Latent (bicubic)"},
    ):
        assert small(engine, hires={**base, **change}).digests != plain, change
    assert small(engine, hires={**base, "sampler": "Euler", "cfg_scale": 5.0, "prompt": "a red apple"}).digests == plain


def test_another_checkpoint_for_the_second_pass_with_the_same_weights_gives_the_same_picture(engine: Engine) -> None:
    hires = {"denoising_strength": 0.6, "steps": 2, "scale": 1.25}
    plain = small(engine, hires=hires).digests
    again = small(engine, hires={**hires, "checkpoint": EMBEDDED_CHECKPOINT.stem})
    assert again.digests == plain
    assert {loaded.name for loaded in again.loaded if loaded.what == "checkpoint"} == {EMBEDDED_CHECKPOINT.name}
    assert small(engine, hires=hires).digests == plain


def test_a_finished_picture_stands_in_for_the_first_pass(engine: Engine, root: Path) -> None:
    reference = keep(root / "outputs", scene(64, 64))
    hires = {"first_pass": reference, "upscaler": "Lanczos", "denoising_strength": 0.05, "steps": 2}
    done = run(engine, hires=hires, width=64, height=64)
    assert done.started.steps == 2
    assert (done.images[0].width, done.images[0].height) == (128, 128)
    wanted = np.asarray(scene(64, 64).resize((128, 128)), dtype=int)
    assert np.abs(pixels_of(done.images[0]).astype(int) - wanted).mean() < 45


def test_interrupted_in_the_first_pass_there_is_no_second(engine: Engine) -> None:
    done = run_until(
        engine,
        lambda event, control: control.interrupt() if isinstance(event, Step) and event.step == 2 else None,
        width=64,
        height=64,
        hires={"scale": 2.0},
    )
    assert done.finished.interrupted
    assert (done.images[0].width, done.images[0].height) == (64, 64)


def test_sd_upscale_draws_every_tile_with_a_seed_of_its_own(engine: Engine, root: Path) -> None:
    reference = keep(root / "outputs", scene(64, 48))
    fields = {
        "init": {"image": reference, "denoising_strength": 0.3},
        "sd_upscale": {"upscaler": "Lanczos", "scale": 2.0, "overlap": 16},
    }
    done = small(engine, steps=3, **fields)
    image = done.images[0]
    assert (image.width, image.height) == (128, 96)
    assert done.started.steps == 6 * 1
    assert "SD upscale overlap: 16" in image.infotext
    again = small(engine, steps=3, batch_count=2, **fields)
    assert again.digests[0] == done.digests[0] != again.digests[1]
    assert small(engine, steps=3, seed=8, **fields).digests == again.digests[1:]


def test_an_interrupt_while_sd_upscale_enlarges_ends_the_job_and_the_next_one_runs(engine: Engine, root: Path) -> None:
    fields: dict[str, Any] = {
        "init": {"image": keep(root / "outputs", scene(64, 48)), "denoising_strength": 0.3},
        "sd_upscale": {"upscaler": "small", "scale": 2.0, "overlap": 16},
    }
    control = Control()
    control.interrupt()  # heard at the upscaler's first tile
    cut_short = small(engine, control=control, steps=3, **fields)
    assert cut_short.finished.interrupted
    assert (cut_short.finished.pictures, cut_short.images, cut_short.steps) == (0, [], [])
    done = small(engine, steps=3, **fields)
    assert not done.finished.interrupted
    assert (done.images[0].width, done.images[0].height) == (128, 96)


def test_a_grid_of_tiles_covers_the_picture_and_joins_without_a_trace() -> None:
    image = scene(200, 130)
    grid = Grid(image.size, (64, 48), 16)
    boxes = list(grid.boxes())
    assert len(boxes) == len(grid)
    assert {box[2] - box[0] for box in boxes} == {64}
    assert (boxes[0][:2], boxes[-1][2:]) == ((0, 0), (200, 130))
    joined = grid.joined([image.crop(box) for box in boxes])
    assert np.abs(np.asarray(joined, dtype=int) - np.asarray(image, dtype=int)).max() <= 1


def with_text(outputs: Path, mode: str = "RGB") -> str:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", TEXT)
    info.add_text("workflow", "{}")
    buffer = io.BytesIO()
    scene(24, 16).convert(mode).save(buffer, "PNG", pnginfo=info)
    return InputStore(outputs).add(buffer.getvalue()).reference


def extras(engine: Engine, **fields: Any) -> Any:
    return run(engine, extras=fields)


def test_extras_enlarge_and_keep_what_the_picture_said_and_say_what_was_done(engine: Engine, root: Path) -> None:
    reference = with_text(root / "outputs")
    done = extras(engine, image=reference, upscaler="small", scale=3.0)
    image = done.images[0]
    assert (image.width, image.height, image.seed) == (72, 48, 42)
    text, chunks = pictures.read_text(Path(image.path).read_bytes())
    assert text == image.infotext
    assert text.startswith(TEXT)
    assert chunks["workflow"] == "{}"
    assert chunks["postprocessing"].startswith("Postprocess upscale by: 3, Postprocess upscaler: small")
    parsed = infotext.parse(text)
    assert (parsed.prompt, parsed.params["seed"]) == ("a red apple", 42)
    assert (
        make_params(parsed.params).extras
        == make_params({"extras": {"image": reference, "upscaler": "small", "scale": 3.0}}).extras
    )
    assert "/extras-images/" in image.path.replace("\\", "/")


def test_extras_blend_two_upscalers_and_crop_or_fit(engine: Engine, root: Path) -> None:
    reference = keep(root / "outputs", scene(24, 16))
    size = {"width": 60, "height": 60}
    one, two = (
        pixels_of(extras(engine, image=reference, upscaler=u, **size).images[0]) for u in ("Nearest", "Lanczos")
    )
    both = {"upscaler": "Nearest", "upscaler_2": "Lanczos", "upscaler_2_visibility": 0.5}
    blended = pixels_of(extras(engine, image=reference, **both, **size).images[0])
    assert one.shape == (60, 60, 3)
    assert np.abs(blended.astype(int) - (one.astype(int) + two) / 2).max() <= 1
    assert pixels_of(extras(engine, image=reference, crop=False, **size).images[0]).shape == (40, 60, 3)


def test_extras_keep_transparency(engine: Engine, root: Path) -> None:
    image = scene(24, 16)
    image.putalpha(Image.linear_gradient("L").resize((24, 16)))
    done = extras(engine, image=keep(root / "outputs", image), upscaler="Lanczos", scale=2.0)
    with Image.open(done.images[0].path) as saved:
        assert saved.mode == "RGBA"
        assert saved.getchannel("A").getextrema()[0] < 20


@pytest.mark.parametrize(
    "fields",
    [
        {"hires": {"upscaler": "Latent", "scale": 1.5, "steps": 2, "denoising_strength": 0.5, "prompt": "a, b: c"}},
        {"tiling_x": True, "batch_size": 2},
    ],
)
def test_the_text_of_a_picture_makes_it_again_bit_for_bit(engine: Engine, fields: dict[str, Any]) -> None:
    done = small(engine, **fields)
    for image in done.images:
        params = make_params({**infotext.parse(image.infotext).params, "image_format": "png"})
        assert [e.pixels_sha256 for e in engine.generate(params) if hasattr(e, "pixels_sha256")] == [
            image.pixels_sha256
        ]


def test_an_upscaler_that_is_not_there_is_named_before_anything_is_done(engine: Engine) -> None:
    done = run(engine, hires={"upscaler": "no such"})
    assert done.error["error"] == "ModelNotFound"
    assert not done.steps
