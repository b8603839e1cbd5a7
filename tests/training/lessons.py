"""Concepts made up on the spot, so that no test needs the packages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from training.concepts import Concept

COLOURS = {"cat": (230, 150, 40), "frog": (40, 160, 60), "boat": (30, 60, 200)}


def made_up_concepts(folder: Path) -> list[Concept]:
    """Three concepts whose pictures are discs in different colours."""
    concepts = []
    for name, colour in COLOURS.items():
        picture = Image.new("RGBA", (64, 64))
        ImageDraw.Draw(picture).ellipse([6, 6, 58, 58], fill=(*colour, 255))
        picture.save(folder / f"{name}.png")
        concepts.append(Concept((name, f"my {name}"), ("animal", name), "animals-nature", True, folder / f"{name}.png"))
    return concepts


def disc(side: int, colour: tuple[int, int, int], x: float = 0.5, y: float = 0.5, radius: float = 0.3) -> np.ndarray:
    """A white picture with a disc, uint8 (side, side, 3)."""
    picture = Image.new("RGB", (side, side), "white")
    box = [(x - radius) * side, (y - radius) * side, (x + radius) * side, (y + radius) * side]
    ImageDraw.Draw(picture).ellipse(box, fill=colour)
    return np.asarray(picture)
