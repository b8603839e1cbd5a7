"""SD upscale: an enlarged picture drawn anew in overlapping tiles (AUTOMATIC1111's script of that name)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from webui.engine.latents.vae import SCALE
from webui.pictures.resizing import Box, Size


@dataclass(frozen=True)
class Grid:
    """Tiles of one size over a picture, in rows; neighbours share `overlap` pixels or a few more."""

    size: Size
    tile: Size
    overlap: int

    @property
    def rows(self) -> list[list[Box]]:
        """The boxes, from top to bottom and left to right."""
        width, height = self.tile
        return [
            [(x, y, x + width, y + height) for x in _starts(self.size[0], width, self.overlap)]
            for y in _starts(self.size[1], height, self.overlap)
        ]

    def boxes(self) -> Iterator[Box]:
        for row in self.rows:
            yield from row

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    def joined(self, tiles: list[Image.Image]) -> Image.Image:
        """The tiles in the order of `boxes` as one picture, faded into each other over the overlap."""
        whole = Image.new("RGB", self.size)
        remaining = iter(tiles)
        for row in self.rows:
            top = row[0][1]
            strip = Image.new("RGB", (self.size[0], self.tile[1]))
            for box in row:
                _fade_in(strip, next(remaining), (box[0], 0), self.overlap if box[0] else 0, vertical=False)
            _fade_in(whole, strip, (0, top), self.overlap if top else 0, vertical=True)
        return whole


def whole_cells(length: float) -> int:
    """Pixels, rounded down to latent cells."""
    return max(SCALE, int(length) // SCALE * SCALE)


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where the tiles along one side begin: evenly spread, the last one ending with the picture."""
    if tile >= length:
        return [0]
    count = max(2, math.ceil((length - overlap) / (tile - overlap)))
    step = (length - tile) / (count - 1)
    return [min(int(i * step), length - tile) for i in range(count)]


def _fade_in(whole: Image.Image, part: Image.Image, at: tuple[int, int], fade: int, *, vertical: bool) -> None:
    """Paste, with the first `fade` rows or columns rising from nothing."""
    width, height = part.size
    length = height if vertical else width
    ramp = np.minimum(np.arange(length) / fade, 1.0) if fade else np.ones(length)
    values = np.rint(ramp * 255).astype(np.uint8)
    mask = np.repeat(values[:, None], width, 1) if vertical else np.repeat(values[None], height, 0)
    whole.paste(part, at, Image.fromarray(mask))
