"""The lessons: the same every time, never a held-out one, and worded as people write."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lessons import made_up_concepts

from training.captions import caption, plural, with_article
from training.concepts import CONCEPTS, distinctive_keywords
from training.drawing import SETTINGS, SHAPES, setting
from training.prepare import draw_all
from training.scenes import Amounts, Scene, draw, held_out, plan_scenes, tintable
from training.unet import SHARES, Pool

FEW = Amounts(2, 2, 2, 2, 60, 30, 60, 20, 8)


def test_a_plan_is_the_same_every_time_and_another_with_another_seed(tmp_path: Path) -> None:
    concepts = made_up_concepts(tmp_path)
    assert plan_scenes(concepts, FEW) == plan_scenes(concepts, FEW)
    assert plan_scenes(concepts, FEW) != plan_scenes(concepts, FEW, seed=9)


def test_held_out_combinations_are_never_planned(tmp_path: Path) -> None:
    scenes = plan_scenes(made_up_concepts(tmp_path), Amounts(1, 20, 20, 2, 400, 200, 400, 20, 8))
    assert not any(held_out(scene) for scene in scenes)
    every = [Scene("pair", (i, j)) for i in range(30) for j in range(30)]
    share = sum(map(held_out, every)) / len(every)
    assert 0.05 < share < 0.15


def test_every_kind_of_scene_is_drawn_and_follows_from_its_seed(tmp_path: Path) -> None:
    concepts = made_up_concepts(tmp_path)
    emoji = [concept.image() for concept in concepts]
    scenes = {scene.kind: scene for scene in plan_scenes(concepts, FEW)}
    assert set(scenes) == {"single", "tint", "pair", "count", "shape", "shapes", "setting"}
    for scene in scenes.values():
        picture = np.asarray(draw(scene, emoji, 48))
        assert picture.shape == (48, 48, 3)
        assert np.array_equal(picture, np.asarray(draw(scene, emoji, 48)))


def test_several_processes_draw_what_one_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    concepts = made_up_concepts(tmp_path)
    scenes = plan_scenes(concepts, FEW)[:7]
    monkeypatch.setattr("training.prepare.PART", 3)
    for processes in (1, 2):
        draw_all(scenes, concepts, 32, tmp_path / f"{processes}.npy", processes)
    one, two = (np.load(tmp_path / f"{processes}.npy") for processes in (1, 2))
    assert one.shape == (7, 32, 32, 3)
    assert np.array_equal(one, two)
    assert [picture.std() > 0 for picture in one] == [True] * 7


def test_more_scenes_are_more_of_each_kind() -> None:
    assert Amounts().times(3) == Amounts(24, 9, 9, 6, 7200, 3600, 3000, 1500, 300)


def test_other_seeds_put_a_thing_elsewhere_in_another_size(tmp_path: Path) -> None:
    emoji = [concept.image() for concept in made_up_concepts(tmp_path)]
    plain = Scene("single", (0,), background="white")
    pictures = [np.asarray(draw(replace(plain, seed=seed), emoji, 64)) for seed in range(6)]
    sizes = {int((picture.min(-1) < 200).sum()) for picture in pictures}
    assert len(sizes) == 6


def test_the_first_of_a_pair_stands_on_the_left(tmp_path: Path) -> None:
    emoji = [concept.image() for concept in made_up_concepts(tmp_path)]
    picture = np.asarray(draw(Scene("pair", (1, 2), background="white", seed=4), emoji, 64)).astype(int)
    left, right = picture[32, 16], picture[32, 48]
    assert left[1] > left[2]  # green
    assert right[2] > right[1]  # blue


def test_batches_are_drawn_by_kind_from_what_is_ready_and_due(tmp_path: Path) -> None:
    """First only scenes of the first concepts; each kind has its share, however many scenes of it there are."""
    scenes = [Scene("single", (i % 4,), seed=i) for i in range(40)] + [Scene("pair", (0, 1), seed=i) for i in range(4)]
    latents = np.arange(44, dtype=np.float16)[:, None, None, None] * np.ones((1, 4, 2, 2), np.float16)
    np.save(tmp_path / "latents.npy", latents)
    (tmp_path / "latents.ready").write_text("43")  # the last one is not encoded yet
    rows = np.arange(44 * 2, dtype=np.int16).reshape(44, 2, 1)
    pool = Pool(tmp_path, scenes, rows, first=2, full_at=0.5, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    early, captions = pool.draw(4000, 0.0, generator)
    numbers = early[:, 0, 0, 0].long()
    assert {int(n) % 4 for n in numbers if n < 40} == {0, 1}
    assert numbers.max() == 42
    assert torch.equal(captions[:, 0] // 2, numbers), "each with a caption of its own"
    assert set((captions[:, 0] % 2).tolist()) == {0, 1}
    pairs = (numbers >= 40).float().mean().item()
    assert pairs == pytest.approx(SHARES["pair"] / (SHARES["pair"] + SHARES["single"]), abs=0.03)
    late, _ = pool.draw(400, 0.6, generator)
    assert {int(n) % 4 for n in late[:, 0, 0, 0] if n < 40} == {0, 1, 2, 3}


def test_an_unknown_shape_or_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="setting"):
        setting("moon", 32, random.Random(0))
    with pytest.raises(ValueError, match="shape"):
        draw(Scene("shape", (), ("red",), ("blob",), "white"), [], 32)
    assert len(SETTINGS) == 11
    assert len(SHAPES) == 8


@pytest.mark.parametrize(
    ("noun", "with_one", "many"),
    [
        ("cat", "a cat", "cats"),
        ("owl", "an owl", "owls"),
        ("unicorn", "a unicorn", "unicorns"),
        ("glasses", "glasses", "glasses"),
        ("bus", "a bus", "buses"),
        ("puppy", "a puppy", "puppies"),
        ("maple leaf", "a maple leaf", "maple leaves"),
        ("fox", "a fox", "foxes"),
    ],
)
def test_articles_and_plurals(noun: str, with_one: str, many: str) -> None:
    assert with_article(noun) == with_one
    assert plural(noun) == many


def test_captions_say_what_is_in_the_scene(tmp_path: Path) -> None:
    concepts = made_up_concepts(tmp_path)
    words, rng = distinctive_keywords(concepts), random.Random(1)
    for scene in plan_scenes(concepts, FEW):
        text = caption(scene, concepts, words, rng)
        if scene.kind in ("pair", "count", "tint"):
            assert all(any(name in text for name in concepts[i].names) for i in scene.concepts)
        if scene.kind == "shape":
            assert scene.shapes[0] in text
            assert scene.colours[0] in text


def test_keywords_that_others_share_or_are_named_stand_for_nothing(tmp_path: Path) -> None:
    assert distinctive_keywords(made_up_concepts(tmp_path)) == [(), (), ()]


def test_tints_are_for_things_that_are_not_named_after_a_colour(tmp_path: Path) -> None:
    cat = made_up_concepts(tmp_path)[0]
    assert tintable(cat)
    assert not tintable(replace(cat, names=("red apple",)))
    assert not tintable(replace(cat, group="smileys-emotion"))


def test_the_list_of_concepts_has_no_name_twice() -> None:
    lines = [line for line in CONCEPTS.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    labels = [line.lstrip("*").split("|")[0].strip() for line in lines]
    assert len(labels) == len(set(labels))
    assert len(labels) >= 300
