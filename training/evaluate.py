"""Command 7: how good a finished checkpoint is. Everything is drawn from the file itself.

    .venv/bin/python -m training.evaluate --work WORK --checkpoint models/Stable-diffusion/NAME.safetensors

Four tests at 20 steps of DPM++ 2M Karras and CFG 5: single things named by the classifier, colours and shapes, counts,
and two things side by side. Held-out combinations are reported apart. The same judges on drawn scenes tell what a
perfect model would get.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from training.captions import NUMBERS, plural, with_article
from training.classifier import Classifier, load_classifier, seen
from training.concepts import Concept, load_concepts
from training.generate import Studio
from training.judge import colours_of, count_of, shape_of
from training.scenes import Kind, Scene, draw, held_out, random_shape

SINGLES, SHAPE_PROMPTS, COUNT_PROMPTS, PAIR_PROMPTS = 300, 200, 120, 120
GOALS = {"single": 0.85, "shape": 0.90, "count": 0.70, "pair": 0.70}
Judge = Callable[[Scene, np.ndarray], bool]


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt, and the scene that would answer it."""

    prompt: str
    scene: Scene


def single_tasks(concepts: Sequence[Concept], rng: random.Random, count: int = SINGLES) -> list[Task]:
    """Concepts in a random order, each before any comes again, under all their names and in two wordings."""
    tasks, order = [], rng.sample(range(len(concepts)), len(concepts))
    for i in range(count):
        number, turn = order[i % len(concepts)], i // len(concepts)
        names = concepts[number].names
        name = names[turn % len(names)] if turn else rng.choice(names)
        text = rng.choice(("{}", "an emoji of {}")).format(with_article(name))
        tasks.append(Task(text, Scene("single", (number,), seed=rng.randrange(2**31))))
    return tasks


def shape_tasks(rng: random.Random, count: int = SHAPE_PROMPTS) -> list[Task]:
    """One shape, in one colour, on another."""
    tasks: list[Task] = []
    while len(tasks) < count:
        scene = random_shape(rng)
        if scene.size == "small" or {"white", scene.background} == {scene.background, *scene.colours}:
            continue
        words = " ".join(filter(None, (scene.size, scene.colours[0], scene.shapes[0])))
        tasks.append(Task(f"{with_article(words)} on a {scene.background} background", scene))
    return tasks


def count_tasks(concepts: Sequence[Concept], rng: random.Random, count: int = COUNT_PROMPTS) -> list[Task]:
    """One to four of a thing."""
    solid = [i for i, concept in enumerate(concepts) if concept.solid]
    tasks = []
    for i in range(count):
        number, concept = i % 4 + 1, rng.choice(solid)
        name = concepts[concept].name
        text = f"{NUMBERS[number]} {plural(name) if number > 1 else name}"
        kind: Kind = "count" if number > 1 else "single"
        scene = Scene(kind, (concept,), background="white", number=number, seed=rng.randrange(2**31))
        tasks.append(Task(text, scene))
    return tasks


def pair_tasks(concepts: Sequence[Concept], rng: random.Random, count: int = PAIR_PROMPTS) -> list[Task]:
    """Two things side by side; a third of them never together in training."""
    solid = [i for i, concept in enumerate(concepts) if concept.solid]
    tasks: list[Task] = []
    wanted_apart = count // 3
    while len(tasks) < count:
        pair = tuple(rng.sample(solid, 2))
        scene = Scene("pair", pair, background="white", seed=rng.randrange(2**31))
        if held_out(scene) != (len(tasks) < wanted_apart):
            continue
        a, b = (with_article(concepts[i].name) for i in pair)
        text = rng.choice((f"{a} and {b}", f"{a} on the left and {b} on the right", f"{a} next to {b}"))
        tasks.append(Task(text, scene))
    return tasks


class Judges:
    """Whether a picture shows its scene."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    @torch.inference_mode()
    def name(self, pictures: np.ndarray) -> np.ndarray:
        """The most likely concept of each picture (N, H, W, 3)."""
        names: np.ndarray = self._classifier(seen(pictures)).argmax(1).numpy()
        return names

    def single(self, scene: Scene, picture: np.ndarray) -> bool:
        return bool(self.name(picture[None])[0] == scene.concepts[0])

    def pair(self, scene: Scene, picture: np.ndarray) -> bool:
        """Left and right half, each at the height where things stand."""
        side = picture.shape[0]
        middle = slice(side // 4, side - side // 4)
        halves = np.stack((picture[middle, : side // 2], picture[middle, side // 2 :]))
        return tuple(self.name(halves)) == scene.concepts

    def shape(self, scene: Scene, picture: np.ndarray) -> bool:
        return colours_of(picture) == (scene.colours[0], scene.background) and shape_of(picture) == scene.shapes[0]

    def count(self, scene: Scene, picture: np.ndarray) -> bool:
        return count_of(picture) == scene.number


def score(judge: Judge, tasks: Sequence[Task], pictures: np.ndarray) -> dict[str, float | int]:
    """Shares that are right: of all, and of the held-out ones."""
    right = np.array([judge(task.scene, picture) for task, picture in zip(tasks, pictures, strict=True)])
    apart = np.array([held_out(task.scene) for task in tasks])
    row: dict[str, float | int] = {"prompts": len(tasks), "right": round(float(right.mean()), 3)}
    if apart.any():
        row |= {"held out": int(apart.sum()), "of these right": round(float(right[apart].mean()), 3)}
    return row


def evaluate(work: Path, checkpoint: Path, concepts: Sequence[Concept], scale: float = 1.0) -> dict[str, object]:
    """All four tests; `scale` makes them smaller. Returns a table by test."""
    rng = random.Random(5)
    judges, studio = Judges(load_classifier(work)), Studio.open(checkpoint)
    emoji = [concept.image() for concept in concepts]
    suites: dict[str, tuple[Judge, list[Task]]] = {
        "single": (judges.single, single_tasks(concepts, rng, round(SINGLES * scale))),
        "shape": (judges.shape, shape_tasks(rng, round(SHAPE_PROMPTS * scale))),
        "count": (judges.count, count_tasks(concepts, rng, round(COUNT_PROMPTS * scale))),
        "pair": (judges.pair, pair_tasks(concepts, rng, round(PAIR_PROMPTS * scale))),
    }
    table: dict[str, object] = {}
    for name, (judge, tasks) in suites.items():
        started = time.monotonic()
        row = score(judge, tasks, studio.draw([task.prompt for task in tasks]))
        truth = np.stack([np.asarray(draw(task.scene, emoji, 128)) for task in tasks])
        row |= {"goal": GOALS[name], "judge on drawn scenes": score(judge, tasks, truth)["right"]}
        table[name] = row
        print(f"{name}: {json.dumps(row)} ({time.monotonic() - started:.0f} s)", flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--concepts", type=int, default=300, help="as in prepare")
    parser.add_argument("--scale", type=float, default=1.0, help="a share of the prompts, to be quicker")
    args = parser.parse_args()
    concepts = load_concepts(args.work / "downloads", args.concepts)
    table = evaluate(args.work, args.checkpoint, concepts, args.scale)
    (args.work / f"{args.checkpoint.stem}.evaluation.json").write_text(json.dumps(table, indent=1), "utf-8")


if __name__ == "__main__":
    main()
