"""Command 1: fetch the packages, plan the scenes, draw them.

    python -m training.prepare --work WORK

Writes WORK/scenes.json, WORK/images.npy (N, side, side, 3) uint8 and WORK/held_out.npy, the same for combinations that
training never sees.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from training.concepts import Concept, load_concepts
from training.scenes import Amounts, Scene, draw, held_out, plan_scenes

HELD_OUT_SCENES = 256


def held_out_scenes(concepts: Sequence[Concept], count: int = HELD_OUT_SCENES) -> list[Scene]:
    """Scenes of every kind with seeds of their own, the held-out combinations among them first."""
    scenes = plan_scenes(concepts, Amounts(2, 2, 2, 1, 300, 150, 150, 100, 30), seed=2)
    more = [scene for scene in _all_pairs(len(concepts)) if held_out(scene)]
    return more[: count // 4] + scenes[: count - count // 4]


def _all_pairs(count: int) -> list[Scene]:
    return [Scene("pair", (i, (i * 7 + 3) % count), background="white", seed=i) for i in range(count)]


def load_scenes(work: Path) -> list[Scene]:
    """What `prepare` wrote."""
    rows = json.loads((work / "scenes.json").read_text("utf-8"))
    tuples = ("concepts", "colours", "shapes")
    return [Scene(**{key: tuple(value) if key in tuples else value for key, value in row.items()}) for row in rows]


def draw_all(scenes: Sequence[Scene], emoji: Sequence[Image.Image], side: int, target: Path) -> None:
    """Draw every scene into one .npy file. A file of that name is replaced only when all is drawn."""
    shape, partial = (len(scenes), side, side, 3), target.with_suffix(".partial")
    pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
    for row, scene in enumerate(scenes):
        pixels[row] = np.asarray(draw(scene, emoji, side))
    pixels.flush()
    partial.replace(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for all files of a training")
    parser.add_argument("--concepts", type=int, default=300, help="only the first so many")
    parser.add_argument("--side", type=int, default=128)
    args = parser.parse_args()
    started = time.monotonic()
    concepts = load_concepts(args.work / "downloads", args.concepts)
    scenes = plan_scenes(concepts, Amounts())
    args.work.mkdir(parents=True, exist_ok=True)
    emoji = [concept.image() for concept in concepts]
    draw_all(scenes, emoji, args.side, args.work / "images.npy")
    draw_all(held_out_scenes(concepts), emoji, args.side, args.work / "held_out.npy")
    text = json.dumps([asdict(scene) for scene in scenes])
    (args.work / "scenes.json").write_text(text, "utf-8")
    print(f"{len(concepts)} concepts, {len(scenes)} scenes, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
