"""The judges that need no network are right about drawn scenes; so are the tasks and the classifier's view."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from lessons import made_up_concepts

from training.classifier import SIDE, Classifier, seen, varied
from training.evaluate import Judges, count_tasks, pair_tasks, score, shape_tasks, single_tasks
from training.judge import colours_of, count_of, shape_of
from training.scenes import Scene, draw, held_out


def test_colours_and_shapes_of_drawn_scenes_are_recognised() -> None:
    tasks = shape_tasks(random.Random(0), 60)
    pictures = [np.asarray(draw(task.scene, [], 128)) for task in tasks]
    shapes = [shape_of(picture) == task.scene.shapes[0] for task, picture in zip(tasks, pictures, strict=True)]
    assert np.mean(shapes) > 0.95
    scenes = [task.scene for task in tasks]
    found = [colours_of(p) == (s.colours[0], s.background) for s, p in zip(scenes, pictures, strict=True)]
    assert np.mean(found) > 0.95


def test_things_are_counted(tmp_path: Path) -> None:
    concepts = made_up_concepts(tmp_path)
    emoji = [concept.image() for concept in concepts]
    tasks = count_tasks(concepts, random.Random(0), 16)
    assert [task.scene.number for task in tasks] == [1, 2, 3, 4] * 4
    right = [count_of(np.asarray(draw(task.scene, emoji, 128))) == task.scene.number for task in tasks]
    assert all(right)
    assert count_of(np.full((64, 64, 3), 255, np.uint8)) == 0


def test_tasks_ask_for_every_concept_and_for_held_out_pairs(tmp_path: Path) -> None:
    concepts = made_up_concepts(tmp_path) * 8
    tasks = single_tasks(concepts, random.Random(0), 48)
    assert {task.scene.concepts[0] for task in tasks} == set(range(24))
    pairs = pair_tasks(concepts, random.Random(0), 9)
    assert sum(held_out(task.scene) for task in pairs) == 3


def test_a_score_tells_held_out_combinations_apart() -> None:
    tasks = shape_tasks(random.Random(0), 40)
    row = score(lambda scene, _: not held_out(scene), tasks, np.zeros((40, 8, 8, 3), np.uint8))
    assert row["prompts"] == 40
    assert row["of these right"] == 0.0
    assert row["right"] == round(1 - row["held out"] / 40, 3)


def test_the_classifier_sees_pictures_of_any_size_and_names_halves() -> None:
    torch.manual_seed(0)
    classifier = Classifier(5).eval()
    picture = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    assert seen(picture[None]).shape == (1, 3, SIDE, SIDE)
    assert varied(seen(picture[None])).shape == (1, 3, SIDE, SIDE)
    judges = Judges(classifier)
    best = int(judges.name(picture[None])[0])
    assert judges.single(Scene("single", (best,)), picture)
    assert not judges.single(Scene("single", ((best + 1) % 5,)), picture)
    assert judges.pair(Scene("pair", (9, 9)), picture) is False
