"""X/Y/Z plot: every combination of the values of up to three axes, as grids that grow while they are made."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
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
        return params if self.axis is None else self.axis.put(params, self.values[index])

    def labels(self) -> list[str]:
        return [] if self.axis is None else [self.axis.label(value) for value in self.values]


@hookimpl
def expand(request: GenerationParams, values: Mapping[str, Any], desk: Desk) -> Expansion:
    """The plot. Raises `InvalidParams` for values that an axis cannot have, before anything is made.

    Values that do not fit together cost the cells in which they meet.
    """
    lines = [_line(letter, request, values, desk) for letter in LETTERS]
    count = len(lines[0].values) * len(lines[1].values) * len(lines[2].values)
    if count > MAX_CELLS:
        raise InvalidParams(
            f"The plot would have {count:,} cells.", f"At most {MAX_CELLS:,} are made; shorten an axis."
        )
    plot = Plot(request, values, lines)
    misfits = plot.plan()
    notes = [
        f"{len(misfits)} of {count} cells are left out: their values do not fit together. {error}"
        for error in misfits[:1]
    ]
    return Expansion(plot.run(), (count - len(misfits)) * request.pictures, tuple(notes))


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
        self._cells: dict[Place, GenerationParams | InvalidParams] = {}
        self._size = (0, 0)  # the largest sides of the pictures that were made
        self._drawn = 0.0
        self._indices: dict[Place, int] = {}  # of the first picture of each cell among the job's
        self._shown = 0

    def plan(self) -> list[InvalidParams]:
        """Find the params of every cell; gives why some cells cannot be. Raises `InvalidParams` for a value that fits
        in none of its cells, which no other axis can be blamed for."""
        for place in self._order():
            try:
                self._cells[place] = self._params(place)
            except InvalidParams as error:
                self._cells[place] = error
        fitting = [place for place, cell in self._cells.items() if not isinstance(cell, InvalidParams)]
        for axis, line in enumerate(self._lines):
            missing = set(range(len(line.values))) - {place[axis] for place in fitting}
            if missing:
                raise next(
                    cell
                    for place, cell in self._cells.items()
                    if place[axis] in missing and isinstance(cell, InvalidParams)
                )
        return [cell for cell in self._cells.values() if isinstance(cell, InvalidParams)]

    def run(self) -> Cells:
        """The cells, with a draft after each, and the sheets at the end."""
        for place, params in self._cells.items():
            if isinstance(params, InvalidParams):
                self._squares[place] = Square(None, str(params))
                continue
            label = ", ".join(line.labels()[i] for line, i in zip(self._lines, place, strict=True) if line.axis)
            result = yield Cell(params, label, shown=self._values["include_lone_images"])
            if result is None or result.interrupted:
                break
            self._squares[place] = _square(result.pictures, result.error)
            if self._values["include_lone_images"] and result.pictures:
                self._indices[place] = self._shown
                self._shown += len(result.pictures)
            if (made := self._squares[place].picture) is not None:
                self._size = max(self._size[0], made.width), max(self._size[1], made.height)
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
        """The params of a cell. Raises `InvalidParams` for values that do not fit together in any order."""
        start = self._request
        if self._values["no_fixed_seeds"]:
            draw = random.Random(f"xyz-plot/{start.seed}/{place}")
            start = start.changed(seed=draw.randrange(RANDOM_SEED_LIMIT))
        values = [(line, index) for line, index in zip(self._lines, place, strict=True) if line.axis is not None]
        misfit: InvalidParams | None = None
        for ordered in permutations(values):  # a value may fit only once that of another axis is there
            params = start
            try:
                for line, index in ordered:
                    params = line.put(params, index)
                # last, or an axis of seeds would undo it
                more = sum(index for line, index in zip(self._lines, place, strict=True) if line.vary_seeds)
                return params.changed(seed=params.seed + more) if more else params
            except InvalidParams as error:
                misfit = misfit or error
        raise misfit or InvalidParams("The cell cannot be made.")

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
        size = self._size if all(self._size) else (self._request.width or 512, self._request.height or 512)
        return Grid(
            rows,
            size,
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
