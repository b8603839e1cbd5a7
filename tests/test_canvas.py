"""Pixels before and after img2img: resize modes, masks, fills, colours, pasting back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from webui.operations import Frame, Hires, Init, Inpaint
from webui.pictures import colours, masks, resizing
from webui.pictures.canvas import flattened, prepare
from webui.pictures.resizing import cropped, filled, framed, resized

side = st.integers(8, 90)


def gradient(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def array(image: Image.Image) -> Any:
    return np.asarray(image).astype(int)


@given(side, side, side, side)
def test_every_mode_gives_the_size_that_is_asked_for(width: int, height: int, w: int, h: int) -> None:
    image = gradient(width, height)
    for mode in ("Just resize", "Crop and resize", "Resize and fill"):
        assert resized(image, (w, h), mode).size == (w, h)  # type: ignore[arg-type]


def test_cropping_keeps_the_middle_and_filling_repeats_the_edge() -> None:
    wide = Image.new("RGB", (100, 20), "red")
    wide.paste("blue", (40, 0, 60, 20))
    assert (array(cropped(wide, (20, 20))) == array(Image.new("RGB", (20, 20), "blue"))).all()
    tall = filled(gradient(40, 20), (40, 40))
    assert (array(tall)[:10] == array(tall)[10]).all()
    assert (array(tall)[30:] == array(tall)[29]).all()
    assert (array(tall)[10:30] == array(gradient(40, 20))).all()


def test_a_frame_adds_the_nearest_pixels_of_the_edge() -> None:
    image = gradient(10, 8)
    whole = array(framed(image, Frame(left=3, top=2, right=1, bottom=4)))
    assert whole.shape == (14, 14, 3)
    assert (whole[2:10, 3:13] == array(image)).all()
    assert (whole[2:10, :3] == array(image)[:, :1]).all()
    assert (whole[:3, :4] == array(image)[0, 0]).all()
    assert (whole[10:, 13] == array(image)[-1, -1]).all()


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({"scale": 1.5}, ((768, 1152), (768, 1152))),
        ({"width": 1024}, ((1024, 1536), (1024, 1536))),
        ({"height": 1024}, ((682, 1024), (682, 1024))),
        ({"width": 1024, "height": 1024}, ((1024, 1536), (1024, 1024))),
        ({"width": 600, "height": 1200}, ((800, 1200), (600, 1200))),
    ],
)
def test_the_target_of_hires(fields: dict[str, Any], sizes: Any) -> None:
    assert Hires(**fields).sizes(512, 768) == sizes


def test_a_blur_keeps_the_sum_and_ends_after_two_and_a_half_deviations() -> None:
    mask = Image.new("L", (41, 41))
    mask.paste(255, (16, 16, 25, 25))
    soft = array(masks.blurred(mask, 2, 2))
    assert abs(soft.sum() - 255 * 81) < 255 * 81 * 0.03
    assert soft[20, 10] == 0
    assert soft[20, 11] > 0  # 16 - int(2.5 * 2 + 0.5)
    assert (array(masks.blurred(mask, 0, 3))[20, :16] == 0).all()
    assert array(masks.blurred(mask, 0, 0)).sum() == array(mask).sum()


@given(st.integers(0, 60), st.integers(0, 40), st.integers(1, 30), st.integers(1, 30), st.integers(0, 20), side, side)
def test_the_masked_rectangle_is_padded_stays_inside_and_has_the_shape_where_there_is_room(
    x: int, y: int, w: int, h: int, padding: int, width: int, height: int
) -> None:
    mask = Image.new("L", (90, 70))
    mask.paste(255, (x, y, x + w, y + h))
    box = masks.masked_box(mask, padding, (width, height))
    assert box is not None
    left, top, right, bottom = box
    assert 0 <= left <= max(0, x - padding) or left <= x
    assert 0 <= left < right <= 90
    assert 0 <= top < bottom <= 70
    assert left <= x
    assert top <= y
    assert right >= min(x + w, 90)
    assert bottom >= min(y + h, 70)
    if right - left < 90 and bottom - top < 70:
        assert abs((right - left) / (bottom - top) - width / height) <= 2 * max(1, width / height) / min(
            right - left, bottom - top
        )
    assert masks.masked_box(Image.new("L", (9, 9)), 4, (8, 8)) is None


def test_a_mask_is_the_alpha_of_a_file_that_has_one_else_its_grey() -> None:
    clear = Image.new("RGBA", (2, 1), (255, 255, 255, 255))
    clear.putpixel((0, 0), (0, 0, 0, 129))
    clear.putpixel((1, 0), (0, 0, 0, 128))
    assert list(masks.from_picture(clear, rounded=True).tobytes()) == [255, 0]
    assert list(masks.from_picture(clear, rounded=False).tobytes()) == [129, 128]
    assert list(masks.from_picture(Image.new("RGB", (1, 1), (80, 80, 80)), rounded=True).tobytes()) == [80]


def test_what_is_masked_is_covered_by_the_colours_around_and_the_rest_stays() -> None:
    image = Image.new("RGB", (64, 64), "green")
    image.paste("red", (24, 24, 40, 40))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (24, 24, 40, 40))
    covered = array(masks.fill_in(image, mask))
    assert (np.abs(covered - array(Image.new("RGB", (64, 64), "green"))) <= 6).all()


def test_a_picture_gets_the_colours_of_another_and_keeps_its_light() -> None:
    image = Image.effect_noise((32, 32), 40).convert("RGB")
    target = gradient(32, 32)
    corrected = colours.corrected(image, target)
    light = np.array([0.3, 0.59, 0.11])
    assert np.abs(array(corrected) @ light - array(image) @ light).mean() < 4
    assert array(corrected).std(axis=2).mean() > 20 > array(image).std(axis=2).mean()
    same = colours.corrected(target, target)
    assert np.abs(array(same) - array(target)).mean() < 3


def test_the_part_that_is_drawn_is_pasted_back_where_it_was_cut() -> None:
    image, mask = gradient(80, 60), Image.new("L", (80, 60))
    mask.paste(255, (30, 20, 50, 40))
    canvas = prepare(image, Init(), (64, 64), Inpaint(only_masked=True, padding=4, blur_x=0, blur_y=0), mask)
    assert canvas.image.size == (64, 64)
    assert canvas.box == (26, 16, 54, 44)
    made = array(canvas.finish(Image.new("RGB", (64, 64), "white")))
    assert (made[20:40, 30:50] == 255).all()
    made[20:40, 30:50] = array(image)[20:40, 30:50]
    assert (made == array(image)).all()


def test_strip_by_strip_every_pixel_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    clear = gradient(50, 43)
    clear.putalpha(Image.effect_noise((50, 43), 90))
    dots = Image.effect_noise((50, 43), 90).point(lambda value: 255 if value > 200 else 0)

    def made() -> list[Any]:
        soft = masks.blurred(dots, 2, 3)
        laid = masks.laid_over(clear.convert("RGB").rotate(180), clear.convert("RGB"), soft)
        return [array(one) for one in (soft, laid, flattened(clear, "#123456"))]

    at_once = made()
    monkeypatch.setattr(resizing, "_STRIP_PIXELS", 50 * 5)
    assert all((one == other).all() for one, other in zip(at_once, made(), strict=True))


def test_a_part_above_the_limit_of_pillow_is_cut_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    image = gradient(80, 60)
    assert (array(resizing.cut(image, (3, 5, 77, 58))) == array(image)[5:58, 3:77]).all()


@given(st.integers(0, 2**32 - 1))
def test_laid_over_what_is_not_masked_is_the_original_whatever_the_colours(seed: int) -> None:
    random = np.random.default_rng(seed)
    original, new = (Image.fromarray(random.integers(0, 256, (9, 7, 3), dtype=np.uint8)) for _ in range(2))
    values = random.choice(np.array([0, 1, 127, 254, 255], dtype=np.uint8), (9, 7))
    made = array(masks.laid_over(new, original, Image.fromarray(values)))
    assert (made[values == 0] == array(original)[values == 0]).all()
    assert (made[values == 255] == array(new)[values == 255]).all()
