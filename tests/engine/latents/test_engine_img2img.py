"""img2img and inpaint with the embedded model: how much is run, what changes, and what must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import Run, pixels_of, run, run_until
from picture_inputs import array, box_mask, keep, scene
from PIL import Image, ImageFilter

from webui.engine import Engine
from webui.events import Step

BOX = (40, 32, 96, 88)


@pytest.fixture(scope="module")
def picture(root: Path) -> str:
    return keep(root / "outputs", scene())


@pytest.fixture(scope="module")
def mask(root: Path) -> str:
    return keep(root / "outputs", box_mask((128, 128), BOX))


def changed(one: Any, other: Any) -> Any:
    """(H, W): where two pictures differ."""
    return (np.asarray(one, dtype=np.int16) != np.asarray(other, dtype=np.int16)).any(axis=2)


def img2img(engine: Engine, picture: str, **fields: Any) -> Run:
    init = {"image": picture, "denoising_strength": 0.5, **fields.pop("init", {})}
    return run(engine, **{"init": init, "steps": 8, **fields})


@pytest.mark.parametrize(
    ("strength", "exact", "sampler", "steps"),
    [
        (0.75, False, "Euler", 7),
        (0.0, False, "Euler", 1),
        (1.0, False, "Euler", 8),
        (0.5, True, "Euler", 8),
        (0.0, True, "Euler", 0),
        (0.75, False, "DDIM", 6),
        (0.5, True, "DDIM", 7),
    ],
)
def test_the_share_of_the_steps_that_is_run_is_that_of_automatic1111(
    engine: Engine, picture: str, strength: float, exact: bool, sampler: str, steps: int
) -> None:
    init = {"denoising_strength": strength, "exact_steps": exact}
    done = img2img(engine, picture, init=init, sampler=sampler)
    assert done.started.steps == steps
    assert len(done.steps) == steps
    assert len(done.images) == 1


def test_a_low_strength_stays_near_the_picture_and_a_high_one_leaves_it(engine: Engine, picture: str) -> None:
    given = array(scene())
    far = [
        np.abs(pixels_of(img2img(engine, picture, init={"denoising_strength": s}).images[0]) - given).mean()
        for s in (0.0, 0.4, 1.0)
    ]
    assert far[0] < far[1] < far[2]


def test_a_batch_of_pictures_from_one_equals_the_pictures_made_alone(engine: Engine, picture: str) -> None:
    for sampler in ("Euler a", "DPM++ 2M SDE"):
        together = img2img(engine, picture, sampler=sampler, batch_size=2).digests
        alone = [img2img(engine, picture, sampler=sampler, seed=seed).digests[0] for seed in (7, 8)]
        assert together == alone


@pytest.mark.parametrize("field", ["noise_multiplier", "extra_noise", "color_correction", "resize_mode"])
def test_every_option_changes_the_picture_and_its_default_does_not(engine: Engine, root: Path, field: str) -> None:
    wide = keep(root / "outputs", scene(160, 112))
    values = {"noise_multiplier": 0.8, "extra_noise": 0.1, "color_correction": True, "resize_mode": "Crop and resize"}
    size = {"width": 128, "height": 128}
    plain = img2img(engine, wide, **size).digests
    assert img2img(engine, wide, **size).digests == plain
    assert img2img(engine, wide, init={field: values[field]}, **size).digests != plain


def test_the_size_is_the_pictures_own_unless_it_is_given(engine: Engine, root: Path) -> None:
    wide = keep(root / "outputs", scene(152, 100))
    assert (img2img(engine, wide, steps=2).images[0].width, img2img(engine, wide, steps=2).images[0].height) == (
        152,
        96,
    )
    latent = {"resize_mode": "Just resize (latent upscale)"}
    image = img2img(engine, wide, init=latent, steps=2, width=64, height=80).images[0]
    assert (image.width, image.height) == (64, 80)


def test_transparent_parts_have_the_background_colour(engine: Engine, root: Path) -> None:
    clear = keep(root / "outputs", Image.new("RGBA", (64, 64), (255, 0, 0, 0)))
    exact = {"denoising_strength": 0.0, "exact_steps": True}
    white = pixels_of(img2img(engine, clear, init=exact).images[0]).mean(axis=(0, 1))
    blue = pixels_of(img2img(engine, clear, init={**exact, "background": "#0000ff"}).images[0]).mean(axis=(0, 1))
    assert white.min() > 200
    assert blue[2] > 150 > blue[0]


@pytest.mark.parametrize("only_masked", [False, True])
@pytest.mark.parametrize("fill", ["fill", "original", "latent noise", "latent nothing"])
def test_unmasked_pixels_come_back_bit_for_bit_and_masked_ones_change(
    engine: Engine, picture: str, mask: str, fill: str, only_masked: bool
) -> None:
    inpaint = {"mask": mask, "fill": fill, "only_masked": only_masked, "blur_x": 2, "blur_y": 2}
    made = pixels_of(img2img(engine, picture, inpaint=inpaint, init={"denoising_strength": 0.8}).images[0])
    touched = changed(made, array(scene()))
    left, top, right, bottom = BOX
    reach = 5  # pixels: 2.5 standard deviations of the blur
    assert touched[top + 8 : bottom - 8, left + 8 : right - 8].mean() > 0.9
    touched[top - reach : bottom + reach, left - reach : right + reach] = False
    assert not touched.any()


def test_the_inverted_mask_changes_the_rest(engine: Engine, picture: str, mask: str) -> None:
    inpaint = {"mask": mask, "invert": True, "blur_x": 0, "blur_y": 0}
    touched = changed(pixels_of(img2img(engine, picture, inpaint=inpaint).images[0]), array(scene()))
    left, top, right, bottom = BOX
    assert not touched[top:bottom, left:right].any()
    assert touched[:top].mean() > 0.9


def test_without_a_mask_the_transparent_part_is_drawn(engine: Engine, root: Path) -> None:
    image = scene()
    image.putalpha(Image.eval(box_mask((128, 128), BOX), lambda value: 255 - value))
    reference = keep(root / "outputs", image)
    inpaint = {"blur_x": 0, "blur_y": 0}
    touched = changed(pixels_of(img2img(engine, reference, inpaint=inpaint).images[0]), array(scene()))
    left, top, right, bottom = BOX
    assert touched[top:bottom, left:right].mean() > 0.9
    touched[top:bottom, left:right] = False
    assert not touched.any()


def test_a_frame_is_drawn_around_the_picture_and_the_picture_stays(engine: Engine, root: Path) -> None:
    small = keep(root / "outputs", scene(64, 64))
    init = {"frame": {"left": 32, "bottom": 24}, "denoising_strength": 1.0}
    inpaint = {"blur_x": 0, "blur_y": 0, "fill": "fill"}
    image = img2img(engine, small, init=init, inpaint=inpaint).images[0]
    made = pixels_of(image)
    assert (image.width, image.height) == (96, 88)
    assert (made[:64, 32:] == array(scene(64, 64))).all()
    assert made[:, :32].std() > 0


@pytest.mark.parametrize(
    ("only_masked", "said"), [(True, "so the whole picture was drawn"), (False, "so the picture is as it was given")]
)
def test_a_black_mask_is_said_and_what_became_of_the_picture(
    engine: Engine, root: Path, picture: str, only_masked: bool, said: str
) -> None:
    black = keep(root / "outputs", Image.new("L", (128, 128)))
    done = img2img(engine, picture, inpaint={"mask": black, "only_masked": only_masked})
    [warning] = done.warnings
    assert warning.code == "mask"
    assert said in warning.text
    drawn = changed(pixels_of(done.images[0]), array(scene()))
    assert drawn.mean() > 0.9 if only_masked else not drawn.any()


def test_soft_inpainting_keeps_what_is_far_from_the_mask_and_differs_from_hard(
    engine: Engine, root: Path, picture: str
) -> None:
    grey = keep(root / "outputs", box_mask((128, 128), (48, 48, 80, 80)).filter(ImageFilter.GaussianBlur(3)))
    inpaint = {"mask": grey, "blur_x": 0, "blur_y": 0}
    hard = img2img(engine, picture, inpaint=inpaint).digests
    soft = img2img(engine, picture, inpaint={**inpaint, "soft": {}}, init={"denoising_strength": 0.8})
    assert soft.digests != hard
    touched = changed(pixels_of(soft.images[0]), array(scene()))
    assert touched[56:72, 56:72].mean() > 0.5
    assert not touched[:8].any()
    assert not touched[:, 120:].any()


def test_a_stopped_job_keeps_unmasked_pixels_too(engine: Engine, picture: str, mask: str) -> None:
    done = run_until(
        engine,
        lambda event, control: control.interrupt() if isinstance(event, Step) and event.step == 2 else None,
        init={"image": picture, "denoising_strength": 0.9},
        inpaint={"mask": mask, "blur_x": 0, "blur_y": 0},
        steps=8,
    )
    assert done.finished.interrupted
    touched = changed(pixels_of(done.images[0]), array(scene()))
    left, top, right, bottom = BOX
    touched[top:bottom, left:right] = False
    assert not touched.any()


def test_results_lie_in_a_folder_of_their_own(engine: Engine, picture: str) -> None:
    assert "/img2img-images/" in img2img(engine, picture, steps=2).images[0].path.replace("\\", "/")


def test_a_picture_that_is_gone_is_named(engine: Engine) -> None:
    done = img2img(engine, "0" * 64)
    assert done.error["error"] == "NotFound"
    assert "000000000000" in done.error["message"]
