"""Enlarging a picture piece by piece: bounded memory at any size, and no seam.

Each tile is computed with a margin around it that is thrown away, so that its pixels see what they would see in the
whole picture; where that margin is smaller than the network's reach, neighbours also fade into each other. Rows of
tiles are finished one after the other, so that beside the result only one row is held as numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TILE = 192  # pixels of the input a side, without the margin
MAX_MARGIN = 32
FADE = 8  # pixels of the input over which neighbours fade

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Run = Callable[[Tensor], Tensor]
"""(1, 3, H, W) in 0..1 to (1, 3, scale H, scale W)."""


def enlarge_tiled(
    pixels: Bytes, run: Run, scale: int, *, reach: int, tile: int = TILE, check: Callable[[], None] = lambda: None
) -> Bytes:
    """(H, W, 3) to (scale H, scale W, 3). `check` is called before each tile and may raise to end the work."""
    height, width, _ = pixels.shape
    result, top = np.empty((height * scale, width * scale, 3), dtype=np.uint8), 0
    for rows in enlarged_rows(pixels, run, scale, reach=reach, tile=tile, check=check):
        result[top : top + len(rows)] = rows
        top += len(rows)
    return result


def enlarged_rows(
    pixels: Bytes, run: Run, scale: int, *, reach: int, tile: int = TILE, check: Callable[[], None] = lambda: None
) -> Iterator[Bytes]:
    """The same in pieces (rows, scale W, 3), from the top to the bottom."""
    height = len(pixels)
    margin = min(reach, MAX_MARGIN)
    fade = FADE * scale
    waiting: Floats | None = None  # the rows that the next strip fades into
    for top, bottom in spans(height, tile):
        strip = _strip(pixels, run, scale, (top, bottom), margin, tile, check)
        if waiting is not None:
            rise = _rise(fade)[:, None, None]
            strip[:fade] = waiting * (1 - rise) + strip[:fade] * rise
        last = bottom == height
        done = len(strip) if last else len(strip) - fade
        yield _bytes(strip[:done])
        waiting = None if last else strip[done:].copy()


def spans(length: int, tile: int) -> Iterator[tuple[int, int]]:
    """(start, end) of pieces that cover `length`, none above `tile`, each begun `FADE` before the last one ends."""
    start = 0
    while length - start > tile:
        yield start, start + tile
        start += tile - FADE
    yield start, length


def _strip(
    pixels: Bytes,
    run: Run,
    scale: int,
    rows: tuple[int, int],
    margin: int,
    tile: int,
    check: Callable[[], None],
) -> Floats:
    """One row of tiles, (rows, scale W, 3) in 0..1."""
    height, width, _ = pixels.shape
    above, below = max(0, rows[0] - margin), min(height, rows[1] + margin)
    strip = np.empty(((rows[1] - rows[0]) * scale, width * scale, 3), dtype=np.float32)
    fade = FADE * scale
    rise = _rise(fade)[None, :, None]
    for left, right in spans(width, tile):
        check()
        before, after = max(0, left - margin), min(width, right + margin)
        given = torch.from_numpy(pixels[above:below, before:after].astype(np.float32) / 255)
        made = run(given.permute(2, 0, 1)[None])[0].float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()
        made = made[(rows[0] - above) * scale : (rows[1] - above) * scale, (left - before) * scale :][
            :, : (right - left) * scale
        ]
        start = left * scale
        if left > 0:
            made = made.copy()
            made[:, :fade] = strip[:, start : start + fade] * (1 - rise) + made[:, :fade] * rise
        strip[:, start : start + made.shape[1]] = made
    return strip


def _rise(length: int) -> Floats:
    """From nearly 0 to nearly 1; with its mirror it adds up to 1."""
    return ((np.arange(length) + 0.5) / length).astype(np.float32)


def _bytes(values: NDArray[Any]) -> Bytes:
    result: Bytes = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return result
