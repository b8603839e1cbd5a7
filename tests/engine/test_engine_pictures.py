"""From a request to a saved picture, on the real model."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from embedded import EMBEDDED_CHECKPOINT
from engine_runs import QUICK, digest, pixels_of, run
from PIL import Image as PillowImage

from webui import infotext, pictures
from webui.engine import Engine
from webui.events import Finished, Image, Loaded, Loading, Memory, Preview, Started, Step
from webui.params import make_params


def test_a_red_apple_is_red_on_white(engine: Engine) -> None:
    done = run(engine, prompt="a red apple on a white background", steps=20, sampler="DPM++ 2M")
    pixels = pixels_of(done.images[0]).astype(int)
    assert pixels.shape == (128, 128, 3)
    red, green, blue = pixels[48:80, 48:80].reshape(-1, 3).mean(0)
    assert red > 180
    assert green < 110
    assert blue < 130
    assert pixels[:8, :8].min() > 225


def test_events_come_in_their_order(engine: Engine) -> None:
    done = run(engine, batch_count=2)
    kinds = [type(event) for event in done.events]
    first = kinds.index(Started)
    assert set(kinds[:first]) <= {Loading, Loaded}
    assert set(kinds[first + 1 : -1]) == {Step, Preview, Image, Memory}
    assert kinds[-1] is Finished
    assert [(s.batch, s.step) for s in done.steps] == [(b, s) for b in (1, 2) for s in (1, 2, 3, 4)]
    assert all(s.steps == 4 and s.batches == 2 and s.rate > 0 and s.seconds_left >= 0 for s in done.steps)
    assert done.started == Started(pictures=2, width=128, height=128, steps=4)
    assert done.finished.pictures == 2
    assert set(done.finished.seconds) == {"load", "encode", "sample", "decode", "save", "total"}
    assert math.isclose(sum(done.finished.seconds.values()) / 2, done.finished.seconds["total"], rel_tol=0.2)
    assert done.finished.peak_memory > 0


def test_the_saved_file_is_the_picture_with_its_parameters(engine: Engine) -> None:
    image = run(engine, negative_prompt="green").images[0]
    assert digest(pixels_of(image)) == image.pixels_sha256
    text, _ = pictures.read_text(Path(image.path).read_bytes())
    assert text == image.infotext
    assert f"Model: {EMBEDDED_CHECKPOINT.stem}" in text
    assert "Model hash: " in text
    assert "VAE" not in text
    params = make_params({**infotext.parse(text).params, "checkpoint": None})
    assert (params.prompt, params.negative_prompt, params.seed) == ("a red apple", "green", 7)
    assert run(engine, **{**params.model_dump(), "image_format": "png"}).digests == [image.pixels_sha256]


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp", "avif"])
def test_a_picture_that_is_not_to_be_saved_is_the_same_file_in_memory(engine: Engine, image_format: str) -> None:
    saved = run(engine, image_format=image_format).images[0]
    before = sorted(Path(saved.path).parent.iterdir())
    image = run(engine, image_format=image_format, save=False).images[0]
    assert (image.path, image.error) == ("", "")
    assert image.png == Path(saved.path).read_bytes()
    assert sorted(Path(saved.path).parent.iterdir()) == before


def test_numbers_and_seeds_name_the_files(engine: Engine) -> None:
    first = run(engine, batch_size=2).images
    second = run(engine, image_format="jpeg").images
    names = [image.path.rsplit("/", 1)[1] for image in (*first, *second)]
    numbers = [int(name.split("-")[0]) for name in names]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
    assert [name.split("-")[1] for name in names] == ["7.png", "8.png", "7.jpg"]


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler a", "DPM++ 2M SDE", "DDIM", "Heun"])
def test_two_runs_are_bit_equal_and_a_batch_equals_its_singles(engine: Engine, sampler: str) -> None:
    fields = {**QUICK, "sampler": sampler, "batch_size": 2, "batch_count": 2, "width": 64, "height": 64}
    batch = run(engine, **fields)
    assert run(engine, **fields).digests == batch.digests
    assert len(set(batch.digests)) == 4
    for index in (0, 3):
        alone = make_params(fields).single(index)
        assert run(engine, **alone.model_dump()).digests == [batch.digests[index]]


def test_a_batch_equals_its_singles_without_guidance_too(engine: Engine) -> None:
    batch = run(engine, cfg_scale=1.0, batch_size=3)
    assert run(engine, cfg_scale=1.0, seed=9).digests == batch.digests[2:]


def test_a_variation_keeps_the_seed_and_counts_the_variation_seed(engine: Engine) -> None:
    batch = run(engine, variation_strength=0.3, variation_seed=5, batch_size=2)
    assert [image.seed for image in batch.images] == [7, 7]
    assert run(engine, variation_strength=0.3, variation_seed=6).digests == batch.digests[1:]
    assert run(engine).digests[0] not in batch.digests


@pytest.mark.parametrize(("width", "height"), [(16, 16), (24, 40), (64, 128), (136, 72), (256, 64)])
def test_small_and_oblong_sizes_work(engine: Engine, width: int, height: int) -> None:
    image = run(engine, width=width, height=height, steps=2).images[0]
    assert pixels_of(image).shape == (height, width, 3)
    assert (image.width, image.height) == (width, height)


def test_the_last_preview_looks_like_the_picture(engine: Engine) -> None:
    done = run(engine, steps=12, sampler="DPM++ 2M")
    with PillowImage.open(io.BytesIO(done.previews[-1].jpeg)) as jpeg:
        assert jpeg.format == "JPEG"
        assert jpeg.size == (128, 128)
        seen = np.asarray(jpeg.resize((16, 16), PillowImage.Resampling.BOX)).astype(float)
    with PillowImage.open(done.images[0].path) as picture:
        wanted = np.asarray(picture.resize((16, 16), PillowImage.Resampling.BOX)).astype(float)
    assert np.corrcoef(seen.ravel(), wanted.ravel())[0, 1] > 0.9
    assert np.abs(seen - wanted).mean() < 30
    assert done.previews[0].step == 1


def test_a_batch_is_previewed_as_one_sheet(engine: Engine) -> None:
    done = run(engine, batch_size=3)
    with PillowImage.open(io.BytesIO(done.previews[0].jpeg)) as jpeg:
        assert jpeg.size == (256, 256)


def test_parts_without_effect_are_named(engine: Engine) -> None:
    done = run(engine, prompt="a red apple <lora:style:0.8>", clip_skip=9)
    assert {warning.code for warning in done.warnings} == {"network", "clip_skip"}
    assert any("style" in warning.text for warning in done.warnings)
    assert done.digests == run(engine, clip_skip=3).digests


def test_unknown_names_end_the_job_with_a_sentence(engine: Engine) -> None:
    assert run(engine, checkpoint="no such model").error["error"] == "ModelNotFound"
    assert (
        EMBEDDED_CHECKPOINT.stem in run(engine, checkpoint=EMBEDDED_CHECKPOINT.stem.replace("m", "", 1)).error["advice"]
    )
    assert run(engine, vae="no such VAE").error["error"] == "ModelNotFound"
    assert run(engine).finished.pictures == 1


@pytest.mark.parametrize("sampler", ["Euler (flow)", "DPM++ 2M (flow)"])
def test_a_sampler_for_another_kind_of_model_is_refused_by_name(engine: Engine, sampler: str) -> None:
    error = run(engine, sampler=sampler).error
    assert error["error"] == "InvalidParams"
    assert sampler in error["message"]
    assert sampler.removesuffix(" (flow)") in error["advice"]
