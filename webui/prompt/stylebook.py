"""The styles as a program keeps them: read from their files, looked up by name, edited one at a time.

An edit changes one row of one file: rows that are commented out, columns of other programs and the order stay.
"""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from webui.errors import InvalidParams, NotFound, SaveError
from webui.params import MAX_PROMPT_LENGTH
from webui.paths import write_atomic
from webui.prompt.styles import MAX_FILE_SIZE, Style, apply_styles, find_styles, read_styles, recognise

MAX_NAME = 200  # characters
_COLUMNS = ["name", "prompt", "negative_prompt"]
_Stamp = tuple[tuple[str, int, int], ...]


class StyleBook:
    """All styles of some files. Safe to use from several threads; files that change meanwhile are read again."""

    def __init__(self, files: Callable[[], Sequence[Path]], new: Path) -> None:
        """`files` tells which files there are, in the order of reading; new styles are written to `new`."""
        self._files = files
        self._new = new
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None
        self._styles: tuple[Style, ...] = ()
        self._problems: tuple[str, ...] = ()

    def read(self) -> tuple[tuple[Style, ...], tuple[str, ...]]:
        """(the styles, a sentence for each thing that could not be read)."""
        with self._lock:
            return self._read()

    def _read(self) -> tuple[tuple[Style, ...], tuple[str, ...]]:
        files = self._files()
        stamp = tuple(_stamp(path) for path in files)
        if stamp != self._stamp:
            styles, problems = read_styles(files)
            self._styles, self._problems, self._stamp = tuple(styles), tuple(problems), stamp
        return self._styles, self._problems

    def apply(self, prompt: str, negative_prompt: str, names: Sequence[str]) -> tuple[str, str]:
        """Both prompts with the named styles merged in, in their order.

        A style that the prompts hold already, as a recalled prompt does, is not added again. Raises `InvalidParams`
        for a name that is not known.
        """
        chosen = find_styles(names, self.read()[0])
        held, _, _ = recognise(prompt, negative_prompt, chosen)
        return apply_styles(prompt, negative_prompt, [style for style in chosen if style.name not in held])

    def recognise(self, prompt: str, negative_prompt: str) -> tuple[list[str], str, str]:
        """(names, prompt, negative prompt): which styles the prompts were made with, and the prompts without them."""
        return recognise(prompt, negative_prompt, self.read()[0])

    def save(self, style: Style, before: str = "") -> None:
        """Write a style; `before` is the name it had until now ("" for a new one).

        Raises `InvalidParams` for a name that cannot be used or is taken, `NotFound` when `before` is gone,
        `SaveError` when the file cannot be written.
        """
        style = replace(style, name=_checked_name(style.name))
        if max(len(style.prompt), len(style.negative_prompt)) > MAX_PROMPT_LENGTH:
            raise InvalidParams(f"The style is longer than {MAX_PROMPT_LENGTH:,} characters.", "Shorten it.")
        with self._lock:
            known = {known.name: known for known in self._read()[0]}
            if before and before not in known:
                raise NotFound(f'There is no style "{before[:80]}" any more.', "Save it as a new one.")
            if style.name != before and style.name in known:
                raise InvalidParams(
                    f'There is a style "{style.name}" already.', "Choose another name, or edit that one."
                )
            path = Path(known[before].source) if before else self._new
            _edit(path, before or style.name, style)
            self._stamp = None

    def delete(self, name: str) -> Style:
        """Take a style out of its file; the answer is what it was. Raises `NotFound`, `SaveError`."""
        with self._lock:
            found = next((style for style in self._read()[0] if style.name == name), None)
            if found is None:
                raise NotFound(f'There is no style "{name[:80]}".', "It may have been deleted already.")
            _edit(Path(found.source), name, None)
            self._stamp = None
            return found


def _checked_name(name: str) -> str:
    """One line, not empty, no comment. Raises `InvalidParams`."""
    name = " ".join(name.split())
    if not name or len(name) > MAX_NAME or name.startswith("#"):
        raise InvalidParams(
            "A style needs a name.", f"Give it one of at most {MAX_NAME} characters that does not begin with #."
        )
    return name


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        info = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), info.st_mtime_ns, info.st_size


def _edit(path: Path, name: str, style: Style | None) -> None:
    """Replace the row of `name` by `style`, append it where there is none, or with None remove it. `SaveError`."""
    rows = _rows(path)
    header = [cell.strip().casefold() for cell in rows[0]] if rows else list(_COLUMNS)
    if "name" not in header:
        raise SaveError(f'{path.name} has no column "name".', "Repair the file, or move it away.")
    at = header.index("name")
    kept: list[list[str]] = [rows[0] if rows else list(_COLUMNS)]
    written = style is None
    for row in rows[1:]:
        if at < len(row) and row[at].strip() == name:
            if written or style is None:
                continue  # the style is removed, or this is its second row
            written = True
            row = _row(style, header, row)
        kept.append(row)
    if not written and style is not None:
        kept.append(_row(style, header, []))
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(kept)
    try:
        write_atomic(path, buffer.getvalue().encode("utf-8-sig", "replace"), backup=True)
    except OSError as error:
        raise SaveError(
            f"The styles could not be saved: {error.strerror or error}.",
            "Make room or give write access to the folder of the styles file; the old file is unchanged.",
        ) from error


def _row(style: Style, header: list[str], before: list[str]) -> list[str]:
    """The style in the columns of a file; cells of other columns are kept."""
    row = [*before, *[""] * (len(header) - len(before))]
    cells = {"name": style.name, "negative_prompt": style.negative_prompt}
    cells["prompt" if "prompt" in header else "text"] = style.prompt
    for column, text in cells.items():
        if column in header:
            row[header.index(column)] = text
        elif text:
            raise SaveError(f'The styles file has no column "{column}".', "Repair the file, or move it away.")
    return row


def _rows(path: Path) -> list[list[str]]:
    """Every row of a file, the header first; [] for a file that is not there. `SaveError` if any of it is unreadable:
    then it must not be written over."""
    try:
        if not path.exists():
            return []
        if path.stat().st_size > MAX_FILE_SIZE:
            raise SaveError(f"{path.name} is larger than {MAX_FILE_SIZE // 2**20} MB.", "Split it into several files.")
        text = path.read_bytes().decode("utf-8-sig")
        return [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SaveError(
            f"{path.name} could not be read in full ({error}), so it was not changed.", "Repair the file first."
        ) from error
