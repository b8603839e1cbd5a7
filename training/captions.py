"""What people might write for a scene. Many wordings for each; the same for the same random generator."""

from __future__ import annotations

import random
from collections.abc import Sequence

from training.concepts import Concept
from training.drawing import SETTINGS
from training.scenes import Scene

NUMBERS = ("no", "one", "two", "three", "four")

_SINGLE = (
    *["{n}"] * 4,
    *["{a}"] * 8,
    *["an emoji of {a}"] * 2,
    *["a photo of {a}"] * 2,
    "a picture of {a}",
    "a 3d render of {a}",
    "a cute {n}",
    "a drawing of {a}",
    "an icon of {a}",
    "an illustration of {a}",
    "a painting of {a}",
    "one {n}",
    "the {n}",
)
_QUALITY = (
    "masterpiece",
    "best quality",
    "highly detailed",
    "8k",
    "digital art",
    "high resolution",
    "sharp focus",
    "beautiful",
    "soft lighting",
    "3d render",
    "vibrant colors",
    "trending on artstation",
    "intricate",
    "cinematic lighting",
    "icon",
    "emoji",
    "high quality",
    "4k",
    "detailed",
)
_WHERE = {
    "grass": ("on the grass", "on green grass", "in a meadow", "in a field"),
    "night": ("in the night sky", "at night", "under the stars", "on a starry night"),
    "beach": ("on the beach", "on the sand", "at the seaside"),
    "sea": ("in the sea", "on the water", "in the ocean", "on the sea"),
    "snow": ("in the snow", "on the snow", "in winter"),
    "desert": ("in the desert", "on a sand dune"),
    "sunset": ("at sunset", "in front of a sunset", "in the evening"),
    "sky": ("in the sky", "in the clouds", "in a blue sky"),
    "forest": ("in the forest", "in the woods", "among the trees"),
    "city": ("in the city", "in front of a city", "downtown"),
    "room": ("in a room", "on a wooden floor", "at home"),
}
_EMPTY = {
    "grass": ("a green meadow", "a grass field", "green hills under a blue sky", "a landscape"),
    "night": ("a starry night", "the night sky", "stars in the night sky"),
    "beach": ("a beach", "a sandy beach", "the seaside"),
    "sea": ("the sea", "the ocean", "waves on the sea"),
    "snow": ("a snowy landscape", "winter", "snow"),
    "desert": ("a desert", "sand dunes"),
    "sunset": ("a sunset", "the sunset over the horizon"),
    "sky": ("a blue sky", "clouds in the sky"),
    "forest": ("a forest", "the woods", "trees in a forest"),
    "city": ("a city", "a city skyline", "buildings in a city"),
    "room": ("a room", "an empty room"),
}


def with_article(noun: str) -> str:
    """ "a cat", "an owl"; nothing before plurals and names that have theirs."""
    words = noun.split()
    plural = any(word.endswith("s") and not word.endswith(("ss", "bus")) for word in (words[0], words[-1]))
    if plural or words[0] in ("the", "a"):
        return noun
    return f"{'an' if noun[0] in 'aeiou' and not noun.startswith(('uni', 'ufo')) else 'a'} {noun}"


def plural(noun: str) -> str:
    """ "cats", "foxes", "puppies", "leaves"."""
    if noun.endswith(("leaf", "knife")):
        return f"{noun.removesuffix('f').removesuffix('fe')}ves"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    if noun.endswith(("x", "ch", "sh", "ss", "bus", "tato", "mato", "mango")):
        return f"{noun}es"
    return noun if noun.endswith("s") else f"{noun}s"


def caption(
    scene: Scene, concepts: Sequence[Concept], distinctive: Sequence[tuple[str, ...]], rng: random.Random
) -> str:
    """One wording for the scene. `distinctive`: for each concept the keywords that can stand for it alone."""
    text = _CAPTIONS[scene.kind](scene, concepts, distinctive, rng)
    if rng.random() < 0.12:
        text += ", " + ", ".join(rng.sample(_QUALITY, rng.choice((1, 2, 3))))
    return text


_Words = Sequence[tuple[str, ...]]


def _name(concept: Concept, rng: random.Random) -> str:
    return rng.choice((concept.name, concept.name, *concept.names))


def _single(scene: Scene, concepts: Sequence[Concept], distinctive: _Words, rng: random.Random) -> str:
    concept, words = concepts[scene.concepts[0]], distinctive[scene.concepts[0]]
    if words and rng.random() < 0.06:
        text = rng.choice(words)
    else:
        name = _name(concept, rng)
        text = rng.choice(_SINGLE).format(n=name, a=with_article(name))
    if scene.background in SETTINGS:
        return f"{text} {rng.choice(_WHERE[scene.background])}"
    if scene.background != "any":
        return text + _on(scene.background, rng)
    if concept.keywords and rng.random() < 0.12:
        text += ", " + ", ".join(rng.sample(concept.keywords, min(len(concept.keywords), rng.choice((1, 2)))))
    return text


def _on(colour: str, rng: random.Random) -> str:
    usual = f" on a {colour} background"
    return rng.choice((usual, usual, usual, f", {colour} background", f" in front of a {colour} wall"))


def _tint(scene: Scene, concepts: Sequence[Concept], _: _Words, rng: random.Random) -> str:
    name = f"{scene.colours[0]} {_name(concepts[scene.concepts[0]], rng)}"
    wordings = ("{a}", "{a}", "{n}", "an emoji of {a}", "a photo of {a}", "a picture of {a}")
    text = rng.choice(wordings).format(n=name, a=with_article(name))
    return text + (_on(scene.background, rng) if scene.background != "white" else "")


def _pair(scene: Scene, concepts: Sequence[Concept], _: _Words, rng: random.Random) -> str:
    a, b = (with_article(_name(concepts[i], rng)) for i in scene.concepts)
    return _together(a, b, scene.upright, rng) + (_on(scene.background, rng) if scene.background != "white" else "")


def _together(a: str, b: str, upright: bool, rng: random.Random) -> str:
    if upright:
        return rng.choice((f"{a} above {b}", f"{a} on top of {b}", f"{b} below {a}", f"{a} over {b}"))
    return rng.choice(
        (
            f"{a} and {b}",
            f"{a} and {b}",
            f"{a} next to {b}",
            f"{a} to the left of {b}",
            f"{b} to the right of {a}",
            f"{a} on the left and {b} on the right",
            f"{a} on the left, {b} on the right",
        )
    )


def _count(scene: Scene, concepts: Sequence[Concept], _: _Words, rng: random.Random) -> str:
    word = f"{NUMBERS[scene.number]} {plural(_name(concepts[scene.concepts[0]], rng))}"
    return rng.choice((word, word, f"a picture of {word}", f"a group of {word}", f"a photo of {word}"))


def _shape(scene: Scene, _: Sequence[Concept], __: _Words, rng: random.Random) -> str:
    words = " ".join(filter(None, (scene.size, scene.colours[0], scene.shapes[0])))
    text = rng.choice((with_article(words), with_article(words), words, f"a picture of {with_article(words)}"))
    plain = scene.background == "white" and rng.random() < 0.6
    return text if plain else text + _on(scene.background, rng)


def _shapes(scene: Scene, _: Sequence[Concept], __: _Words, rng: random.Random) -> str:
    a, b = (with_article(f"{c} {s}") for c, s in zip(scene.colours, scene.shapes, strict=True))
    plain = scene.background == "white"
    return _together(a, b, scene.upright, rng) + ("" if plain else _on(scene.background, rng))


def _setting(scene: Scene, _: Sequence[Concept], __: _Words, rng: random.Random) -> str:
    return rng.choice(_EMPTY[scene.background])


_CAPTIONS = {
    "single": _single,
    "tint": _tint,
    "pair": _pair,
    "count": _count,
    "shape": _shape,
    "shapes": _shapes,
    "setting": _setting,
}
