"""Loopback: img2img on its own result, with a denoising strength that moves along a curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from webui.errors import InvalidParams
from webui.extensions import Cell, Cells, Desk, Draft, Expansion, Grid, Sheet, Square, hookimpl
from webui.operations import Init
from webui.params import GenerationParams

CURVES: dict[str, Callable[[float], float]] = {
    "Aggressive": lambda progress: math.sin(progress * math.pi / 2),
    "Linear": lambda progress: progress,
    "Lazy": lambda progress: 1 - math.cos(progress * math.pi / 2),
}


@hookimpl
def expand(request: GenerationParams, values: Mapping[str, Any], desk: Desk) -> Expansion:
    """One loop after the other, for each picture of the request. Raises `InvalidParams` for one that is to be enlarged
    at its sides: what is new there would be kept as it is from the second loop on."""
    if request.init is not None and request.init.frame is not None:
        raise InvalidParams("Loopback cannot enlarge a picture at its sides.", "Outpaint first, then loop the result.")
    return Expansion(_cells(request, values, desk), values["loops"] * request.pictures)


def strength(loop: int, loops: int, first: float, final: float, curve: str) -> float:
    """The denoising strength of a loop, counted from 0: from `first` to `final` along the curve."""
    progress = loop / (loops - 1) if loops > 1 else 0.0
    return min(1.0, max(0.0, first + (final - first) * CURVES[curve](progress)))


def _cells(request: GenerationParams, values: Mapping[str, Any], desk: Desk) -> Cells:
    loops, final, curve = values["loops"], values["final_denoising_strength"], values["denoising_curve"]
    rows: list[list[Square]] = []
    for index in range(request.pictures):
        single = request.single(index)
        rows.append([])
        last: Image.Image | None = None
        for loop in range(loops):
            result = yield Cell(_params(single, loop, strength, (loops, final, curve), last, desk), f"loop {loop + 1}")
            if result is None or result.interrupted or not result.pictures:
                break
            last = result.pictures[0]
            rows[-1].append(Square(last))
            yield Draft(_grid(rows).draw())
    if any(rows):
        grid = _grid(rows)
        yield Sheet(grid.draw(), (("Script", "Loopback"), ("Grid layout", grid.place().text())))


def _params(
    single: GenerationParams,
    loop: int,
    strength_of: Callable[[int, int, float, float, str], float],
    course: tuple[int, float, str],
    last: Image.Image | None,
    desk: Desk,
) -> GenerationParams:
    """The request of one loop. Its seed counts up, so that the same noise is not added again and again.

    What is done to a picture once, a second pass, an upscaling or a fill below a mask, is done in the first loop.
    """
    params = single.changed(seed=single.seed + loop)
    start = single.init or Init()
    if last is None and single.init is None:
        return params
    loops, final, curve = course
    wanted = strength_of(loop, loops, start.denoising_strength, final, curve)
    image = start.image if last is None else desk.keep(last)
    init = {**start.model_dump(), "image": image, "denoising_strength": wanted}
    if last is None:
        return params.changed(init=init)
    inpaint = None if params.inpaint is None else {**params.inpaint.model_dump(), "fill": "original"}
    return params.changed(init=init, hires=None, sd_upscale=None, inpaint=inpaint)


def _grid(rows: list[list[Square]]) -> Grid:
    pictures = [square.picture for row in rows for square in row if square.picture]
    return Grid(rows, pictures[0].size if pictures else (8, 8), legend=False)
