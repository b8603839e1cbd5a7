"""Judges of pictures that need no network: which colours, which shape, how many things.

Each is measured on drawn scenes, too, where the truth is known: `evaluate` prints how often it is right there, for no
model can score above its judge.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import ndimage

from training.drawing import COLOURS, SHAPES, shape_mask

BORDER = 5  # pixels at the edge that tell the background
DIFFERENT = 48  # distance in RGB from the background that makes a pixel foreground
MASK_SIDE = 40
SMALLEST = 0.25  # of the largest thing: what is smaller is a crumb


def nearest_colour(rgb: np.ndarray) -> str:
    """The name whose colour is nearest, in a space where brightness counts less than hue."""

    def opponent(colour: np.ndarray) -> np.ndarray:
        red, green, blue = colour.astype(float)
        return np.array([0.6 * (red + green + blue) / 3, red - green, 0.8 * (0.5 * (red + green) - blue)])

    distances = {name: np.linalg.norm(opponent(np.array(c)) - opponent(rgb)) for name, c in COLOURS.items()}
    return min(distances, key=lambda name: float(distances[name]))


def background_of(picture: np.ndarray) -> np.ndarray:
    """The median colour of the border, (3,)."""
    edges = (picture[:BORDER], picture[-BORDER:], picture[:, :BORDER], picture[:, -BORDER:])
    median: np.ndarray = np.median(np.concatenate([edge.reshape(-1, 3) for edge in edges]), axis=0)
    return median


def foreground(picture: np.ndarray) -> np.ndarray:
    """A mask (H, W) of what is not background, without specks and small holes."""
    away = np.linalg.norm(picture.astype(float) - background_of(picture), axis=-1) > DIFFERENT
    opened = ndimage.binary_opening(away, iterations=1)
    closed: np.ndarray = ndimage.binary_closing(np.pad(opened, 4), iterations=2)[4:-4, 4:-4]
    return closed


def colours_of(picture: np.ndarray) -> tuple[str, str]:
    """(of the foreground, of the background)."""
    mask = foreground(picture)
    inner = ndimage.binary_erosion(mask, iterations=2)
    pixels = picture[inner if inner.sum() > 20 else mask]
    front = np.median(pixels, axis=0) if len(pixels) else background_of(picture)
    return nearest_colour(front), nearest_colour(background_of(picture))


def shape_of(picture: np.ndarray) -> str:
    """The shape whose mask overlaps best with the largest thing, both filling their boxes."""
    labels, count = ndimage.label(foreground(picture))
    if count == 0:
        return ""
    largest = 1 + int(np.argmax(ndimage.sum_labels(np.ones_like(labels), labels, range(1, count + 1))))
    box = ndimage.find_objects(labels)[largest - 1]
    found = _boxed(labels[box] == largest)
    overlaps = {kind: (found & mask).sum() / max(1, (found | mask).sum()) for kind, mask in _shape_masks().items()}
    return max(overlaps, key=lambda kind: float(overlaps[kind]))


def count_of(picture: np.ndarray) -> int:
    """How many separate things of similar size there are."""
    labels, count = ndimage.label(ndimage.binary_dilation(foreground(picture), iterations=1))
    if count == 0:
        return 0
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, range(1, count + 1))
    return int((sizes >= SMALLEST * sizes.max()).sum())


def _boxed(mask: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(mask.astype(np.uint8) * 255).resize((MASK_SIDE, MASK_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(picture) > 127


@lru_cache(maxsize=1)
def _shape_masks() -> dict[str, np.ndarray]:
    masks = {}
    for kind in SHAPES:
        drawn = np.asarray(shape_mask(kind, 128)) > 127
        rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
        masks[kind] = _boxed(drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return masks
