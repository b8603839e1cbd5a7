"""The scenes that the model learns from: which there are, and how each is drawn.

A `Scene` is data; its picture follows from it and from its seed. Some combinations (this animal on that colour, these
two side by side, that many of those) are never drawn for training, so that evaluation can ask for them.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from PIL import Image

from training.concepts import Concept
from training.drawing import (
    COLOURS,
    FLOATING,
    SETTINGS,
    SHAPES,
    TINTS,
    lit,
    paste_emoji,
    paste_shape,
    pastel,
    plain,
    setting,
    shaded,
    tinted,
)

Kind = Literal["single", "tint", "pair", "count", "shape", "shapes", "setting"]

BACKGROUNDS = tuple(colour for colour in COLOURS if colour != "white")
SIZES = {"small": 0.27, "": 0.55, "big": 0.85}  # of shapes, in shares of the side
HELD_OUT = 10  # one combination in so many is kept from training


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in a picture. `background` is a colour, a setting, "any" (white or a soft colour), or "white"."""

    kind: Kind
    concepts: tuple[int, ...] = ()
    colours: tuple[str, ...] = ()  # of the tint, or of the shapes
    shapes: tuple[str, ...] = ()
    background: str = "any"
    number: int = 1
    upright: bool = False  # the first of two above the second, not left of it
    size: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Amounts:
    """How many scenes of each kind: per concept for the first four, in all for the others."""

    anywhere: int = 8
    coloured: int = 3
    settings: int = 3
    tints: int = 2
    pairs: int = 2400
    counts: int = 1200
    shapes: int = 1000
    shape_pairs: int = 500
    backdrops: int = 100

    def times(self, factor: int) -> Amounts:
        """So many times as many of each."""
        return Amounts(**{name: amount * factor for name, amount in asdict(self).items()})


def held_out(scene: Scene) -> bool:
    """Whether this combination is kept from training. Single things anywhere, tints and backdrops never are."""
    if scene.kind == "pair":
        key: tuple[object, ...] = scene.concepts
    elif scene.kind == "count":
        key = (*scene.concepts, scene.number)
    elif scene.kind == "shape" and scene.background != "white":
        key = (scene.colours, scene.shapes, scene.background)
    elif scene.kind == "single" and scene.background not in ("any", "white"):
        key = (scene.concepts, scene.background)
    else:
        return False
    return zlib.crc32(repr((scene.kind, *key)).encode()) % HELD_OUT == 0


def plan_scenes(concepts: Sequence[Concept], amounts: Amounts, seed: int = 1) -> list[Scene]:
    """All training scenes, shuffled. The same for the same arguments."""
    rng = random.Random(seed)
    scenes: list[Scene] = []

    def add(scene: Scene) -> None:
        if not held_out(scene):
            scenes.append(scene)

    def number() -> int:
        return rng.randrange(2**31)

    for i, concept in enumerate(concepts):
        for _ in range(amounts.anywhere):
            add(Scene("single", (i,), seed=number()))
        for _ in range(amounts.coloured):
            add(Scene("single", (i,), background=rng.choice((*BACKGROUNDS, "white")), seed=number()))
        for _ in range(amounts.settings):
            add(Scene("single", (i,), background=rng.choice(SETTINGS), seed=number()))
        if tintable(concept):
            for _ in range(amounts.tints):
                add(Scene("tint", (i,), (rng.choice(TINTS),), background=_sometimes(rng), seed=number()))
    solid = [i for i, concept in enumerate(concepts) if concept.solid]
    for _ in range(amounts.pairs):
        both = tuple(rng.sample(solid, 2))
        add(Scene("pair", both, background=_sometimes(rng), upright=rng.random() < 0.25, seed=number()))
    for _ in range(amounts.counts):
        add(Scene("count", (rng.choice(solid),), background="white", number=rng.choice((2, 3, 4)), seed=number()))
    for _ in range(amounts.shapes):
        add(random_shape(rng))
    for _ in range(amounts.shape_pairs):
        add(random_shape_pair(rng))
    for _ in range(amounts.backdrops):
        add(Scene("setting", background=rng.choice(SETTINGS), seed=number()))
    rng.shuffle(scenes)
    return scenes


def random_shape(rng: random.Random) -> Scene:
    """One shape in one colour on a colour."""
    colour, background = rng.sample(list(COLOURS), 2)
    if colour != "white" and rng.random() < 0.4:
        background = "white"
    size = rng.choice(("", "", "", "small", "big"))
    return Scene("shape", (), (colour,), (rng.choice(SHAPES),), background, size=size, seed=rng.randrange(2**31))


def random_shape_pair(rng: random.Random) -> Scene:
    """Two shapes side by side, or one above the other."""
    background = "white" if rng.random() < 0.6 else rng.choice(BACKGROUNDS)
    colours = tuple(rng.choice([c for c in COLOURS if c != background]) for _ in range(2))
    shapes = (rng.choice(SHAPES), rng.choice(SHAPES))
    return Scene("shapes", (), colours, shapes, background, upright=rng.random() < 0.5, seed=rng.randrange(2**31))


def tintable(concept: Concept) -> bool:
    """Whether "a blue X" makes sense: not for faces and symbols, nor for what is named after a colour."""
    coloured = any(name.split()[0] in COLOURS for name in concept.names)
    return concept.group not in ("smileys-emotion", "symbols", "people-body") and not coloured


def draw(scene: Scene, emoji: Sequence[Image.Image], side: int) -> Image.Image:
    """The picture of a scene: RGB, side x side. `emoji[i]` is the RGBA picture of concept i."""
    rng = random.Random(scene.seed)
    canvas = _background(scene, side, rng)
    if scene.kind in ("single", "tint"):
        _draw_single(canvas, scene, emoji[scene.concepts[0]], rng)
    elif scene.kind == "pair":
        _draw_pair(canvas, scene, emoji, rng)
    elif scene.kind == "count":
        _draw_count(canvas, scene, emoji[scene.concepts[0]], rng)
    elif scene.kind == "shape":
        centre = (0.5 + rng.uniform(-0.06, 0.06), 0.5 + rng.uniform(-0.06, 0.06))
        colour = shaded(COLOURS[scene.colours[0]], rng)
        paste_shape(canvas, scene.shapes[0], colour, centre, SIZES[scene.size] + rng.uniform(-0.04, 0.04))
    elif scene.kind == "shapes":
        for place, (colour_name, shape) in enumerate(zip(scene.colours, scene.shapes, strict=True)):
            along, across = 0.27 + 0.46 * place + rng.uniform(-0.02, 0.02), 0.5 + rng.uniform(-0.04, 0.04)
            centre = (across, along) if scene.upright else (along, across)
            paste_shape(canvas, shape, shaded(COLOURS[colour_name], rng), centre, 0.38 + rng.uniform(-0.03, 0.03))
    return canvas


def _sometimes(rng: random.Random) -> str:
    return rng.choice(BACKGROUNDS) if rng.random() < 0.2 else "white"


def _background(scene: Scene, side: int, rng: random.Random) -> Image.Image:
    if scene.background in SETTINGS:
        return setting(scene.background, side, rng)
    if scene.background == "any":
        return pastel(side, rng) if rng.random() < 0.45 else plain(side, COLOURS["white"])
    return plain(side, shaded(COLOURS[scene.background], rng))


def _draw_single(canvas: Image.Image, scene: Scene, emoji: Image.Image, rng: random.Random) -> None:
    emoji = tinted(emoji, COLOURS[scene.colours[0]]) if scene.kind == "tint" else lit(emoji, rng)
    standing = scene.background in SETTINGS and scene.background not in FLOATING
    size = rng.uniform(0.58, 0.74) if standing else rng.uniform(0.64, 0.92)
    room = (1 - size) / 2
    x = 0.5 + rng.uniform(-room, room) * 0.9
    y = 0.57 + rng.uniform(-0.04, 0.04) if standing else 0.5 + rng.uniform(-room, room) * 0.9
    turn = 0.0 if standing else rng.choice((0.0, rng.uniform(-16, 16)))
    paste_emoji(canvas, emoji, (x, y), size, turn=turn, flip=rng.random() < 0.5, shadow=standing)


def _draw_pair(canvas: Image.Image, scene: Scene, emoji: Sequence[Image.Image], rng: random.Random) -> None:
    for place, concept in enumerate(scene.concepts):
        along, across = 0.26 + 0.48 * place + rng.uniform(-0.02, 0.02), 0.5 + rng.uniform(-0.05, 0.05)
        centre = (across, along) if scene.upright else (along, across)
        paste_emoji(canvas, emoji[concept], centre, rng.uniform(0.44, 0.5), flip=rng.random() < 0.3)


def _draw_count(canvas: Image.Image, scene: Scene, emoji: Image.Image, rng: random.Random) -> None:
    layouts: dict[int, list[list[tuple[float, float]]]] = {
        2: [[(0.27, 0.5), (0.73, 0.5)], [(0.3, 0.3), (0.7, 0.7)]],
        3: [[(0.5, 0.27), (0.27, 0.72), (0.73, 0.72)], [(0.27, 0.28), (0.73, 0.28), (0.5, 0.73)]],
        4: [[(0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)]],
    }
    size = rng.uniform(0.39, 0.43)
    for x, y in rng.choice(layouts[scene.number]):
        paste_emoji(canvas, emoji, (x + rng.uniform(-0.02, 0.02), y + rng.uniform(-0.02, 0.02)), size)
