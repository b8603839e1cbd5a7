"""Styles: named pieces of prompt, kept in the CSV files that users already have (name, prompt, negative_prompt).

A style with `{prompt}` in it wraps the prompt; any other is appended after a comma. Several files can be read; the
style of a name that comes later wins and keeps the place of the first.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from webui.errors import InvalidParams, SaveError, near_matches
from webui.params import MAX_PROMPT_LENGTH
from webui.paths import write_atomic

PLACEHOLDER = "{prompt}"
MAX_FILE_SIZE = 16 * 2**20  # bytes
MAX_STYLES = 50_000  # of one file
MAX_COLUMNS = 100
MAX_CHOSEN = 1000  # styles applied to one prompt
_COLUMNS = ("name", "prompt", "negative_prompt")


@dataclass(frozen=True, slots=True)
class Style:
    """`source` is the file it came from, and the one it is saved to ("" for a new one)."""

    name: str
    prompt: str = ""
    negative_prompt: str = ""
    source: str = ""


def read_styles(files: Iterable[Path]) -> tuple[list[Style], list[str]]:
    """The styles of all files, and a sentence for each thing that could not be read. Never raises for a bad file.

    A missing file is no problem: it is where new styles will go.
    """
    styles: dict[str, Style] = {}
    problems: list[str] = []
    for path in files:
        for style in _read_file(path, problems):
            styles[style.name] = style
    return list(styles.values()), problems


def shown_name(file: Path) -> str:
    """The file's name as any answer can carry it; what is no UTF-8 in it is escaped."""
    return file.name.encode("utf-8", "backslashreplace").decode()


def save_styles(path: Path, styles: Iterable[Style]) -> None:
    """Write one styles file in one step; what it held before stays beside it as `NAME.bak`. Raises `SaveError`."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(_COLUMNS)
    for style in styles:
        writer.writerow((style.name, style.prompt, style.negative_prompt))
    try:
        write_atomic(path, buffer.getvalue().encode("utf-8-sig", "replace"), backup=True)
    except OSError as error:
        raise SaveError(
            f"The styles could not be saved: {error.strerror or error}.",
            "Make room or give write access to the folder of the styles file; the old file is unchanged.",
        ) from error


def apply_styles(prompt: str, negative_prompt: str, chosen: Sequence[Style]) -> tuple[str, str]:
    """Prompt and negative prompt with the chosen styles merged in, in their order.

    Raises `InvalidParams` when the result grows past the length of a prompt.
    """
    if len(chosen) > MAX_CHOSEN:
        raise InvalidParams(f"More than {MAX_CHOSEN} styles were chosen.", "Choose fewer.")
    for style in chosen:
        prompt = merge(style.prompt, prompt)
        negative_prompt = merge(style.negative_prompt, negative_prompt)
    return prompt, negative_prompt


def merge(style_text: str, prompt: str) -> str:
    """One style's text around or after a prompt."""
    uses = style_text.count(PLACEHOLDER)
    length = len(style_text) - uses * len(PLACEHOLDER) + max(uses, 1) * len(prompt)  # known before it is made
    if length > MAX_PROMPT_LENGTH:
        raise InvalidParams(
            f"With the styles the prompt would be longer than {MAX_PROMPT_LENGTH:,} characters.", "Choose fewer styles."
        )
    if uses:
        return style_text.replace(PLACEHOLDER, prompt)
    return ", ".join(part for part in (prompt.strip(), style_text.strip()) if part)


def find_styles(names: Sequence[str], styles: Sequence[Style]) -> list[Style]:
    """The styles of these names, in this order. Raises `InvalidParams` with near matches for an unknown one."""
    by_name = {style.name: style for style in styles}
    found = []
    for name in names[: MAX_CHOSEN + 1]:
        if name not in by_name:
            raise InvalidParams(f'There is no style "{name[:80]}".', near_matches(name, by_name))
        found.append(by_name[name])
    return found


def recognise(prompt: str, negative_prompt: str, styles: Sequence[Style]) -> tuple[list[str], str, str]:
    """(names, prompt, negative prompt): the styles a pasted prompt was made with, and the prompts without them.

    A style is recognised when both its texts are there, at the end or around. The last applied is found first, so the
    names come out in the order of application.
    """
    names: list[str] = []
    left = [style for style in styles if style.prompt.strip() or style.negative_prompt.strip()]
    while len(names) < MAX_CHOSEN:
        stripped, negative_stripped = prompt.strip(), negative_prompt.strip()
        for index, style in enumerate(left):
            positive = _without(style.prompt.strip(), stripped)
            negative = _without(style.negative_prompt.strip(), negative_stripped) if positive is not None else None
            if positive is not None and negative is not None:
                prompt, negative_prompt = positive, negative
                names.append(left.pop(index).name)
                break
        else:
            break
    return names[::-1], prompt, negative_prompt


def _without(style_text: str, prompt: str) -> str | None:
    """The prompt before this style was merged into it; None when it was not. Both texts are stripped."""
    if PLACEHOLDER in style_text:
        left, _, right = style_text.partition(PLACEHOLDER)
        fits = len(prompt) >= len(left) + len(right) and prompt.startswith(left) and prompt.endswith(right)
        return prompt[len(left) : len(prompt) - len(right)] if fits else None
    if not style_text or prompt == style_text:
        return "" if style_text else prompt
    return prompt.removesuffix(", " + style_text) if prompt.endswith(", " + style_text) else None


def _read_file(path: Path, problems: list[str]) -> list[Style]:
    try:
        if not path.is_file():
            return []
        if path.stat().st_size > MAX_FILE_SIZE:
            problems.append(f"{shown_name(path)} is larger than {MAX_FILE_SIZE // 2**20} MB; its styles were not read.")
            return []
        text = path.read_bytes().decode("utf-8-sig", "replace").replace("\0", "")
    except OSError as error:
        problems.append(f"{shown_name(path)} could not be read: {error.strerror or error}.")
        return []
    rows = csv.reader(io.StringIO(text, newline=""))
    header: dict[str, int] | None = None
    styles: list[Style] = []
    while len(styles) < MAX_STYLES:
        try:
            row = next(rows, None)
        except csv.Error as error:
            problems.append(f"{shown_name(path)}, line {rows.line_num}: {error}; the row was left out.")
            continue
        if row is None:
            break
        if header is None:
            header = {name.strip().casefold(): index for index, name in enumerate(row[:MAX_COLUMNS])}
            if "name" not in header:
                problems.append(f'{shown_name(path)} has no column "name"; its styles were not read.')
                break
            continue
        style = _style(row, header, path)
        if style is not None:
            styles.append(style)
    return styles


def _style(row: list[str], header: dict[str, int], path: Path) -> Style | None:
    """The style of a row; None for an empty row and for one that was commented out."""

    def cell(column: str) -> str:
        index = header.get(column)
        return row[index][:MAX_PROMPT_LENGTH] if index is not None and index < len(row) else ""

    name = cell("name").strip()
    if not name or name.startswith("#"):
        return None
    return Style(name, cell("prompt" if "prompt" in header else "text"), cell("negative_prompt"), str(path))
