"""Grids of pictures with legends, for scripts: what a sheet looks like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image, ImageDraw

from webui.extensions.lettering import Font, Lettering, lettering

PAPER, INK, FAINT, EMPTY, FAILED = "#ffffff", "#1d2126", "#5b6470", "#e7e9ec", "#f6dcda"
MAX_SIDE = 32_000  # pixels of a sheet; larger ones are drawn smaller
MAX_PIXELS = 200 * 10**6
MAX_LABEL = 300  # characters of a label that are drawn at most
_LEAST_FONT, _GAP = 11, 8  # pixels
_MAX_LINES = 6  # of the labels above the columns


@dataclass(frozen=True, slots=True)
class Square:
    """One place of a grid: its picture, or why there is none ("" while it is not made yet)."""

    picture: Image.Image | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """Squares row by row, all of one size in pixels, with a label for each column and row ("" for none)."""

    rows: Sequence[Sequence[Square]]
    size: tuple[int, int]
    column_labels: Sequence[str] = ()
    row_labels: Sequence[str] = ()
    title: str = ""
    margin: int = 0  # pixels between squares
    legend: bool = True

    def draw(self) -> Image.Image:
        """The sheet, RGB. Squares are made smaller where the whole would be too large to keep."""
        return _Drawing(self).draw()

    def place(self) -> Layout:
        """Where the squares are on the sheet."""
        return _Drawing(self).layout


@dataclass(frozen=True, slots=True)
class Layout:
    """Pixels of a sheet: the corner of the first square, the size of each, and the step from one to the next."""

    left: int
    top: int
    width: int
    height: int
    margin: int
    columns: int
    rows: int

    def text(self) -> str:
        """As a setting of the parameters text, so that a viewer finds the square under a pointer."""
        return (
            f"{self.columns}x{self.rows} of {self.width}x{self.height} at {self.left}+{self.top} margin {self.margin}"
        )


@dataclass
class _Drawing:
    grid: Grid
    layout: Layout = field(init=False)
    _lettering: Lettering = field(init=False)
    _font: Font = field(init=False)
    _title_height: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        grid = self.grid = self._legible(self.grid)
        columns, rows = max((len(row) for row in grid.rows), default=0), len(grid.rows)
        width, height = grid.size
        share = 1.0
        for _ in range(40):  # until the whole fits
            w, h = max(8, round(width * share)), max(8, round(height * share))
            self._font = self._lettering.font(max(_LEAST_FONT, min(28, w // 12)))
            left = self._labels_width(w) if grid.legend and any(grid.row_labels) else 0
            self._title_height = self._height(grid.title) if grid.legend and grid.title else 0
            top = self._title_height + (self._labels_height(w) if grid.legend and any(grid.column_labels) else 0)
            whole = (left + columns * (w + grid.margin) - grid.margin, top + rows * (h + grid.margin) - grid.margin)
            if max(whole) <= MAX_SIDE and whole[0] * whole[1] <= MAX_PIXELS:
                break
            share *= 0.85
        self.layout = Layout(left, top, w, h, grid.margin, columns, rows)
        self._whole = max(1, whole[0]), max(1, whole[1])

    def _legible(self, grid: Grid) -> Grid:
        """The grid with the words that are drawn: cut to what a label can show, and in letters that the font has."""

        def cut(text: str) -> str:
            return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1].rstrip() + "…"

        columns, rows = [[cut(label) for label in labels] for labels in (grid.column_labels, grid.row_labels)]
        title = cut(grid.title)
        squares = [[replace(square, error=cut(square.error)) for square in row] for row in grid.rows]
        errors = {square.error for row in squares for square in row}
        font = self._lettering = lettering([*columns, *rows, title, *errors])
        return replace(
            grid,
            rows=[[replace(square, error=font.readable(square.error)) for square in row] for row in squares],
            column_labels=[font.readable(label) for label in columns],
            row_labels=[font.readable(label) for label in rows],
            title=font.readable(title),
        )

    def draw(self) -> Image.Image:
        grid, at = self.grid, self.layout
        sheet = Image.new("RGB", self._whole, PAPER)
        pen = ImageDraw.Draw(sheet)
        if self._title_height:
            self._text(pen, grid.title, (0, 0, self._whole[0], self._title_height))
        for column, label in enumerate(grid.column_labels[: at.columns] if grid.legend else ()):
            x = at.left + column * (at.width + at.margin)
            self._text(pen, label, (x, self._title_height, x + at.width, at.top))
        for row, label in enumerate(grid.row_labels[: at.rows] if grid.legend else ()):
            y = at.top + row * (at.height + at.margin)
            self._text(pen, label, (0, y, at.left, y + at.height))
        for row, squares in enumerate(grid.rows):
            for column, square in enumerate(squares):
                self._square(
                    sheet,
                    pen,
                    square,
                    at.left + column * (at.width + at.margin),
                    at.top + row * (at.height + at.margin),
                )
        return sheet

    def _square(self, sheet: Image.Image, pen: ImageDraw.ImageDraw, square: Square, x: int, y: int) -> None:
        size = (self.layout.width, self.layout.height)
        if square.picture is not None:
            picture = square.picture.convert("RGB")
            if picture.size != size:  # inside, keeping its shape
                picture.thumbnail(size, Image.Resampling.LANCZOS)
            sheet.paste(picture, (x + (size[0] - picture.width) // 2, y + (size[1] - picture.height) // 2))
            return
        box = (x, y, x + size[0], y + size[1])
        pen.rectangle((x, y, box[2] - 1, box[3] - 1), fill=FAILED if square.error else EMPTY)
        if square.error:
            self._text(pen, square.error, box, FAINT)

    def _text(self, pen: ImageDraw.ImageDraw, text: str, box: tuple[int, int, int, int], ink: str = INK) -> None:
        """Centred in the box, wrapped, and cut with an ellipsis where it is too long."""
        room = max(1, (box[3] - box[1]) // self._line)
        lines = wrap(text, self._length, box[2] - box[0] - 2 * _GAP, room + 1)
        if len(lines) > room:
            lines = [*lines[: room - 1], lines[room - 1].rstrip() + "…"]
        y = box[1] + (box[3] - box[1] - len(lines) * self._line) // 2
        for line in lines:
            pen.text((box[0] + (box[2] - box[0] - self._length(line)) / 2, y), line, fill=ink, font=self._font)
            y += self._line

    @property
    def _line(self) -> int:
        return round(self._size * 1.3)

    @property
    def _size(self) -> float:
        return float(getattr(self._font, "size", _LEAST_FONT))

    def _length(self, text: str) -> float:
        return float(self._font.getlength(text))

    def _labels_width(self, width: int) -> int:
        longest = max((self._length(line) for label in self.grid.row_labels for line in label.split("\n")), default=0)
        return int(min(max(longest, 3 * self._size), max(width, 12 * self._size))) + 2 * _GAP

    def _labels_height(self, width: int) -> int:
        lines = (len(wrap(label, self._length, width - 2 * _GAP, _MAX_LINES)) for label in self.grid.column_labels)
        return max(lines) * self._line + 2 * _GAP

    def _height(self, text: str) -> int:
        return (text.count("\n") + 1) * self._line + 2 * _GAP


def wrap(text: str, length: Callable[[str], float], width: float, most: int | None = None) -> list[str]:
    """Lines of at most `width`, broken at spaces where possible and inside a word where not.

    With `most` it ends after so many lines; what would follow is left out.
    """
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if length(longer) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            while len(word) > 1 and length(word) > width and (most is None or len(lines) < most):
                cut = _cut(word, length, width)
                lines.append(word[:cut])
                word = word[cut:]
            line = word
            if most is not None and len(lines) >= most:
                return lines[:most]
        lines.append(line)
    return lines[:most]


def _cut(word: str, length: Callable[[str], float], width: float) -> int:
    """How many characters of a word that is too long fit, found by bisection; one at least, so that there is an end."""
    fits, too_many = 1, len(word)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if length(word[:middle]) <= width else (fits, middle)
    return fits
