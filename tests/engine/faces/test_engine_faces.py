"""Face restoration: a real face found and aligned, restored by small networks, and put back where it came from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedded import install_embedded
from engine_runs import make_engine, pixels_of, run
from face_models import BACKGROUND, BOX, STAND_INS, astronaut, write_face_models
from numpy.typing import NDArray
from picture_inputs import keep, scene
from PIL import Image, ImageOps
from safetensors.torch import save_file

from webui import infotext
from webui.engine import Engine
from webui.engine.faces.alignment import SIDE, TEMPLATE, cut_out, put_back, similarity
from webui.engine.faces.yunet import Face, find_faces, load_yunet
from webui.params import make_params

Pixels = NDArray[np.int16]
EYES = np.array([(76.2, 86.2), (118.0, 86.5)])  # measured in the picture


@pytest.fixture(scope="module")
def faces() -> Any:
    network = load_yunet()
    return lambda image: find_faces(network, image)


def is_inside(face: Face, box: tuple[int, ...]) -> bool:
    return all(abs(found - wanted) < 0.2 * (box[2] - box[0]) for found, wanted in zip(face.box, box, strict=True))


def test_a_face_is_found_with_its_landmarks(faces: Any) -> None:
    [face] = faces(astronaut())
    assert face.score > 0.9
    assert is_inside(face, BOX)
    assert np.abs(face.landmarks[:2] - EYES).max() < 5
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_eye[1] < nose[1] < left_mouth[1]
    assert left_mouth[0] < right_mouth[0]


@pytest.mark.parametrize("scale", [0.25, 5.0])
def test_small_and_large_faces_are_found_in_pixels_of_the_picture(faces: Any, scale: float) -> None:
    image = astronaut()
    [face] = faces(image.resize((int(image.width * scale), int(image.height * scale))))
    assert np.abs(face.landmarks[:2] / scale - EYES).max() < 8


def test_several_faces_come_from_left_to_right_and_a_scene_has_none(faces: Any) -> None:
    row = Image.new("RGB", (672, 224))
    for number in range(3):
        row.paste(astronaut(), (224 * number, 0))
    found = faces(row)
    assert len(found) == 3
    assert np.abs(np.diff([face.landmarks[0, 0] for face in found]) - 224).max() < 4
    assert faces(scene(200, 150)) == []
    assert faces(Image.new("RGB", (1, 1))) == []


@pytest.mark.parametrize("degrees", [0, 25, -25])
def test_an_aligned_face_has_its_landmarks_where_the_networks_were_trained(faces: Any, degrees: int) -> None:
    turned = astronaut().rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
    [face] = faces(turned)
    aligned, _ = cut_out(turned, face.landmarks)
    assert aligned.size == (SIDE, SIDE)
    [again] = faces(aligned)
    assert np.abs(again.landmarks - TEMPLATE).max() < 32  # of 512


def test_a_similarity_is_found_exactly_and_never_mirrors() -> None:
    points = np.array([(0, 0), (4, 0), (1, 3)], dtype=float)
    turned = 2 * np.stack((-points[:, 1], points[:, 0]), axis=-1) + (5, -7)
    there = similarity(points, turned)
    assert np.allclose(there(points), turned)
    assert np.allclose(there.inverse(turned), points)
    mirrored = points * (-1, 1)
    assert not np.allclose(similarity(points, mirrored)(points), mirrored)
    with pytest.raises(ValueError, match="all the same"):
        similarity(np.ones((5, 2)), points)


@pytest.mark.parametrize("scale", [0.5, 1, 4])
def test_what_is_put_back_unchanged_changes_little_there_and_nothing_elsewhere(faces: Any, scale: float) -> None:
    image = astronaut().resize((int(224 * scale), int(224 * scale)), Image.Resampling.LANCZOS)
    [face] = faces(image)
    aligned, there = cut_out(image, face.landmarks)
    same, before = as_numbers(put_back(image, aligned, there, 1.0)), as_numbers(image)
    assert np.abs(same - before).mean() < 2.5
    inverted = as_numbers(put_back(image, ImageOps.invert(aligned), there, 1.0))
    left, top, right, bottom = (int(side * scale) for side in BACKGROUND)
    assert (inverted[top:bottom, left:right] == before[top:bottom, left:right]).all()
    middle = tuple(int(side) for side in face.landmarks[2][::-1])
    assert np.abs(inverted[middle] - (255 - before[middle])).max() < 25
    half = as_numbers(put_back(image, ImageOps.invert(aligned), there, 0.5))
    assert np.abs(half - (inverted + before) / 2).max() <= 2


def as_numbers(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"), dtype=np.int16)


# --- jobs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    install_embedded(root)
    write_face_models(root)
    save_file({"layers.weight": torch.zeros(2)}, root / "models" / "GFPGAN" / "not one.safetensors")
    return root


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STAND_INS))
        patch.delitem(sys.modules, "spandrel", raising=False)
        engine = make_engine(root)
        yield engine
        engine.close()


@pytest.fixture(scope="module")
def given(root: Path) -> str:
    return keep(root / "outputs", astronaut())


def restored(engine: Engine, image: str, faces: dict[str, Any], **extras: Any) -> Any:
    return run(engine, extras={"image": image, "scale": 1.0, **extras}, faces=faces)


def face_of(pixels: Any) -> Pixels:
    left, top, right, bottom = BOX
    return np.asarray(pixels, dtype=np.int16)[top + 30 : bottom - 30, left + 20 : right - 20]


def test_extras_restore_the_face_alone_and_say_with_what(engine: Engine, given: str) -> None:
    done = restored(engine, given, {"model": "GFPGAN"})
    before, after = as_numbers(astronaut()), pixels_of(done.images[0]).astype(np.int16)
    change = (face_of(after) - face_of(before)).mean(axis=(0, 1))
    assert change[0] > 30  # redder by 0.4 of 2, as far as there is room
    assert np.abs(change[1:]).max() < 3
    left, top, right, bottom = BACKGROUND
    assert (after[top:bottom, left:right] == before[top:bottom, left:right]).all()
    text = done.images[0].infotext
    assert "Face restoration: GFPGANv1.4" in text
    assert make_params(infotext.parse(text).params).faces == make_params({"faces": {"model": "GFPGANv1.4"}}).faces
    assert (done.started.steps, [step.step for step in done.steps]) == (2, [1, 2])
    assert [loaded.name for loaded in done.loaded] in ([], ["GFPGANv1.4.safetensors"])


def test_equal_requests_give_equal_pictures_although_the_network_could_draw_noise(engine: Engine, given: str) -> None:
    first, second = (restored(engine, given, {"model": "GFPGAN"}).digests for _ in range(2))
    assert first == second


def test_codeformer_is_told_its_weight(engine: Engine, given: str) -> None:
    spread = {}
    for weight in (0.0, 0.5, 1.0):
        done = restored(engine, given, {"model": "CodeFormer", "codeformer_weight": weight})
        spread[weight] = face_of(pixels_of(done.images[0])).std()
    assert spread[0.0] < 1
    assert abs(spread[0.5] - spread[1.0] / 2) < 3


def test_a_second_network_works_on_what_the_first_has_made(engine: Engine, given: str) -> None:
    both = {"model": "GFPGAN", "model_2": "CodeFormer", "visibility_2": 0.5, "codeformer_weight": 0.0}
    one, two = (pixels_of(restored(engine, given, faces).images[0]) for faces in ({"model": "GFPGAN"}, both))
    assert np.abs(face_of(two) - (face_of(one) + 127.5) / 2).max() < 8


def test_the_enlarged_picture_is_restored_and_keeps_its_transparency(engine: Engine, root: Path) -> None:
    image = astronaut()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    done = restored(engine, keep(root / "outputs", image), {"model": "GFPGAN"}, upscaler="Lanczos", scale=2.0)
    with Image.open(done.images[0].path) as saved:
        assert (saved.mode, saved.size) == ("RGBA", (448, 448))
        assert saved.getchannel("A").getextrema() == (0, 255)


def test_without_a_face_the_picture_stays_as_it_is_and_that_is_said(engine: Engine, root: Path) -> None:
    done = restored(engine, keep(root / "outputs", scene(96, 64)), {"model": "GFPGAN"})
    assert (pixels_of(done.images[0]) == as_numbers(scene(96, 64))).all()
    assert [warning.text for warning in done.warnings] == ["Face restoration had no effect: no face was found."]


def test_a_drawn_face_is_restored_and_inpainting_keeps_the_rest(engine: Engine, root: Path, given: str) -> None:
    """With a strength of 0 the embedded model gives the astronaut back, so that there is a face to restore."""
    drawn = {"init": {"image": given, "denoising_strength": 0.0}, "steps": 2, "width": 224, "height": 224}
    plain, red = (run(engine, **drawn, faces=faces) for faces in (None, {"model": "GFPGAN"}))
    change = (face_of(pixels_of(red.images[0])) - face_of(pixels_of(plain.images[0]))).mean(axis=(0, 1))
    assert change[0] > 30
    assert "Face restoration: GFPGANv1.4" in red.images[0].infotext
    assert not red.warnings
    mask = Image.new("L", (224, 224))
    mask.paste(255, (60, 60, 110, 150))  # one half of the face
    inpaint = {"mask": keep(root / "outputs", mask), "blur_x": 0, "blur_y": 0}
    half = pixels_of(run(engine, **drawn, inpaint=inpaint, faces={"model": "GFPGAN"}).images[0]).astype(np.int16)
    assert (half[:, 110:] == as_numbers(astronaut())[:, 110:]).all()
    assert (half[60:150, 60:110] - as_numbers(astronaut())[60:150, 60:110]).mean(axis=(0, 1))[0] > 20


def test_automatic_is_the_first_known_make_and_the_files_are_recorded(engine: Engine, given: str) -> None:
    done = restored(engine, given, {})
    assert "Face restoration: GFPGANv1.4" in done.images[0].infotext
    faces = make_params({"faces": {"model": "CodeFormer", "model_2": "Automatic", "visibility_2": 1.0}}).faces
    used = engine._tools.faces.used(faces)
    assert [(one.kind, one.name, len(one.sha256)) for one in used] == [
        ("face restorer", "codeformer.safetensors", 64),
        ("face restorer", "GFPGANv1.4.safetensors", 64),
    ]


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("no such", "ModelNotFound", "models/GFPGAN"),
        ("GFPGANv1.5", "ModelNotFound", 'Did you mean "GFPGANv1.4"'),
        ("not one", "UnsupportedModel", "does not restore faces"),
    ],
)
def test_a_model_that_cannot_restore_is_named(engine: Engine, given: str, model: str, error: str, words: str) -> None:
    told = restored(engine, given, {"model": model}).error
    assert told["error"] == error
    assert words in told["message"] + told["advice"]


def test_without_the_package_the_error_says_what_to_install(
    root: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)  # what Python has for a package that is not there
    engine = make_engine(root)
    told = restored(engine, given, {"model": "GFPGAN"}).error
    engine.close()
    assert told["error"] == "UnsupportedModel"
    assert "requirements-spandrel.txt" in told["advice"]
