"""X/Y/Z plot: every combination of the values of up to three axes, as grids that grow while they are made."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from webui.errors import InvalidParams
from webui.extensions import Cell, Cells, Desk, Draft, Expansion, Grid, Sheet, Square, hookimpl
from webui.params import RANDOM_SEED_LIMIT, GenerationParams

from . import axes
from .axes import AXES, NOTHING, Axis

MAX_CELLS = 2000
DRAFT_SECONDS = 1.0  # between two drafts; drawing a large one takes its time, too
LETTERS = "xyz"

Place = tuple[int, int, int]  # indices along x, y and z


@dataclass(frozen=True, slots=True)
class Line:
    """An axis with its values. Without a type it has one value, which changes nothing."""

    axis: Axis | None
    values: Sequence[Any]
    vary_seeds: bool

    def put(self, params: GenerationParams, index: int) -> GenerationParams:
        if self.axis is not None:
            params = self.axis.put(params, self.values[index])
        return params.changed(seed=params.seed + index) if self.vary_seeds else params

    def labels(self) -> list[str]:
        return [] if self.axis is None else [self.axis.label(value) for value in self.values]


@hookimpl
def expand(request: GenerationParams, values: Mapping[str, Any], desk: Desk) -> Expansion:
    """The plot. Raises `InvalidParams` for values that an axis cannot have, before anything is made."""
    lines = [_line(letter, request, values, desk) for letter in LETTERS]
    count = len(lines[0].values) * len(lines[1].values) * len(lines[2].values)
    if count > MAX_CELLS:
        raise InvalidParams(
            f"The plot would have {count:,} cells.", f"At most {MAX_CELLS:,} are made; shorten an axis."
        )
    plot = Plot(request, values, lines)
    plot.check()
    return Expansion(plot.run(), count * request.pictures)


def _line(letter: str, request: GenerationParams, values: Mapping[str, Any], desk: Desk) -> Line:
    chosen, vary = values[f"{letter}_type"], values[f"vary_seeds_{letter}"]
    if chosen == NOTHING:
        return Line(None, [None], vary)
    axis = next(axis for axis in AXES if axis.name == chosen)
    found = axis.read(_written(values, letter), request, desk)
    if not found:
        raise InvalidParams(f"{letter.upper()} axis: there are no values for {chosen}.", "Write some, with commas.")
    return Line(axis, found, vary)


def _written(values: Mapping[str, Any], letter: str) -> str:
    """An axis's values as they were written, in the text or, where that is empty, the list beside it."""
    text: str = values[f"{letter}_values"].strip() or values[f"{letter}_values_dropdown"].strip()
    return text


class Plot:
    """One plot in the making."""

    def __init__(self, request: GenerationParams, values: Mapping[str, Any], lines: Sequence[Line]) -> None:
        self._request = request
        self._values = values
        self._lines = lines
        self._squares: dict[Place, Square] = {}
        self._size = (request.width or 512, request.height or 512)
        self._drawn = 0.0
        self._indices: dict[Place, int] = {}  # of the first picture of each cell among the job's
        self._shown = 0

    def check(self) -> None:
        """See that every value fits the request. Raises `InvalidParams`."""
        for line in self._lines:
            for index in range(len(line.values)):
                line.put(self._request, index)

    def run(self) -> Cells:
        """The cells, with a draft after each, and the sheets at the end."""
        for place in self._order():
            params = self._params(place)
            label = ", ".join(line.labels()[i] for line, i in zip(self._lines, place, strict=True) if line.axis)
            result = yield Cell(params, label, shown=self._values["include_lone_images"])
            if result is None or result.interrupted:
                break
            self._squares[place] = _square(result.pictures, result.error)
            if self._values["include_lone_images"] and result.pictures:
                self._indices[place] = self._shown
                self._shown += len(result.pictures)
            if result.pictures:
                self._size = max(self._size, self._squares[place].picture.size)  # type: ignore[union-attr]
            if time.monotonic() >= self._drawn:
                began = time.monotonic()
                yield Draft(self._whole().draw())
                self._drawn = time.monotonic() + max(DRAFT_SECONDS, 10 * (time.monotonic() - began))
        if not any(square.picture for square in self._squares.values()):
            return
        layers = range(len(self._lines[2].values))
        if len(layers) > 1 and self._values["include_sub_grids"]:
            for z in layers:
                yield self._sheet(self._grid([z]), [z])
        yield self._sheet(self._whole(), layers)

    def _order(self) -> Iterator[Place]:
        """All places; the axis that is costliest to change is the outermost loop, so that it changes least."""
        by_cost = sorted(range(3), key=self._cost, reverse=True)
        for indices in product(*(range(len(self._lines[i].values)) for i in by_cost)):
            place = [0, 0, 0]
            for axis, index in zip(by_cost, indices, strict=True):
                place[axis] = index
            yield place[0], place[1], place[2]

    def _cost(self, i: int) -> tuple[float, int]:
        axis = self._lines[i].axis
        return (axis.cost if axis else 0.0, i)  # of equal cost: z outside, x inside, as the grid is read

    def _params(self, place: Place) -> GenerationParams:
        params = self._request
        if self._values["no_fixed_seeds"]:
            draw = random.Random(f"xyz-plot/{params.seed}/{place}")
            params = params.changed(seed=draw.randrange(RANDOM_SEED_LIMIT))
        for line, index in zip(self._lines, place, strict=True):
            params = line.put(params, index)
        return params

    def _whole(self) -> Grid:
        return self._grid(range(len(self._lines[2].values)))

    def _grid(self, layers: Sequence[int]) -> Grid:
        """The grids of these z values, one below the other; their rows say which z they belong to."""
        x, y, z = self._lines
        rows, labels = [], []
        for k in layers:
            for j in range(len(y.values)):
                rows.append([self._squares.get((i, j, k), Square()) for i in range(len(x.values))])
                parts = [z.labels()[k]] if z.axis and len(layers) > 1 and j == 0 else []
                parts += [y.labels()[j]] if y.axis else []
                labels.append("\n".join(parts))
        title = z.labels()[layers[0]] if z.axis and len(layers) == 1 else ""
        return Grid(
            rows,
            self._size,
            x.labels(),
            labels,
            title,
            margin=self._values["margin_size"],
            legend=self._values["draw_legend"],
        )

    def _sheet(self, grid: Grid, layers: Sequence[int]) -> Sheet:
        notes = [("Script", "X/Y/Z plot")]
        for letter, line in zip("XYZ", self._lines, strict=True):
            if line.axis is None:
                continue
            written = _written(self._values, letter.lower())
            notes += [(f"{letter} Type", line.axis.name), (f"{letter} Values", written)]
            if line.axis.read is axes._seeds and any(word == "-1" for word in axes.lists.words(written)):
                notes.append((f"Fixed {letter} Values", ", ".join(str(value) for value in line.values)))
        x, y, _ = self._lines
        places = [(i, j, k) for k in layers for j in range(len(y.values)) for i in range(len(x.values))]
        cells = " ".join(str(self._indices.get(place, "-")) for place in places)
        return Sheet(grid.draw(), (*notes, ("Grid layout", grid.place().text()), ("Grid cells", cells)))


def _square(pictures: Sequence[Any], error: str) -> Square:
    """A cell of several pictures is a small grid of its own."""
    if len(pictures) <= 1:
        return Square(pictures[0] if pictures else None, error)
    columns = next(n for n in range(1, len(pictures) + 1) if n * n >= len(pictures))
    rows = [[Square(p) for p in pictures[i : i + columns]] for i in range(0, len(pictures), columns)]
    return Square(Grid(rows, pictures[0].size, legend=False).draw())
