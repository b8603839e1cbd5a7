"""Command 1: fetch the packages, plan the scenes, draw them.

    .venv/bin/python -m training.prepare --work WORK [--concepts 300] [--times 1]

Writes WORK/scenes.json, WORK/images.npy (N, side, side, 3) uint8 and WORK/held_out.npy, the same for combinations that
training never sees.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.concepts import Concept, load_concepts
from training.scenes import Amounts, Scene, draw, held_out, plan_scenes

HELD_OUT_SCENES = 256
PART = 500  # scenes that a process draws at a time


def held_out_scenes(concepts: Sequence[Concept], count: int = HELD_OUT_SCENES) -> list[Scene]:
    """Scenes of every kind with seeds of their own, the held-out combinations among them first."""
    scenes = plan_scenes(concepts, Amounts(2, 2, 2, 1, 300, 150, 150, 100, 30), seed=2)
    more = [scene for scene in _all_pairs(len(concepts)) if held_out(scene)]
    return more[: count // 4] + scenes[: count - count // 4]


def _all_pairs(count: int) -> list[Scene]:
    return [Scene("pair", (i, (i * 7 + 3) % count), background="white", seed=i) for i in range(count)]


def load_scenes(work: Path) -> list[Scene]:
    """What `prepare` wrote."""
    rows: list[dict[str, Any]] = json.loads((work / "scenes.json").read_text("utf-8"))
    tuples = ("concepts", "colours", "shapes")
    for row in rows:
        row |= {key: tuple(value) for key, value in row.items() if key in tuples}
    return [Scene(**row) for row in rows]


def draw_all(scenes: Sequence[Scene], concepts: Sequence[Concept], side: int, target: Path, processes: int = 1) -> None:
    """Draw every scene into one .npy file. A file of that name is replaced only when all is drawn."""
    shape, partial = (len(scenes), side, side, 3), target.with_suffix(".partial")
    np.lib.format.open_memmap(partial, "w+", np.uint8, shape).flush()
    parts = [slice(start, start + PART) for start in range(0, len(scenes), PART)]
    tasks = [(partial, part.start, scenes[part], side) for part in parts]
    if processes == 1:
        _begin(concepts)
        for task in tasks:
            _draw_part(*task)
    else:
        with ProcessPoolExecutor(processes, initializer=_begin, initargs=(concepts,)) as pool:
            for _ in pool.map(_draw_part, *zip(*tasks, strict=True)):
                pass
    partial.replace(target)


_emoji: list[Image.Image] = []  # of this process


def _begin(concepts: Sequence[Concept]) -> None:
    _emoji[:] = [concept.image() for concept in concepts]


def _draw_part(file: Path, first: int, scenes: Sequence[Scene], side: int) -> None:
    pixels = np.lib.format.open_memmap(file, "r+")
    for row, scene in enumerate(scenes, first):
        pixels[row] = np.asarray(draw(scene, _emoji, side))
    pixels.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for all files of a training")
    parser.add_argument("--concepts", type=int, default=300, help="only the first so many")
    parser.add_argument("--times", type=int, default=1, help="so many times as many scenes")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    started = time.monotonic()
    concepts = load_concepts(args.work / "downloads", args.concepts)
    scenes = plan_scenes(concepts, Amounts().times(args.times))
    args.work.mkdir(parents=True, exist_ok=True)
    draw_all(scenes, concepts, args.side, args.work / "images.npy", args.processes)
    draw_all(held_out_scenes(concepts), concepts, args.side, args.work / "held_out.npy")
    text = json.dumps([asdict(scene) for scene in scenes])
    (args.work / "scenes.json").write_text(text, "utf-8")
    print(f"{len(concepts)} concepts, {len(scenes)} scenes, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
