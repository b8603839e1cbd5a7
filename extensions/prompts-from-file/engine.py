"""Prompts from a text: one set of pictures a line."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from webui.errors import InvalidParams
from webui.extensions import Cell, Cells, Desk, Expansion, hookimpl
from webui.operations import FaceRestoration
from webui.params import RANDOM_SEED_LIMIT, GenerationParams

from .lines import read_line

MAX_LINES = 5000


@hookimpl
def expand(request: GenerationParams, values: Mapping[str, Any], desk: Desk) -> Expansion:
    """The lines as cells. A line whose flags cannot be read is a plain prompt, and that is said."""
    lines = [line.strip() for line in values["prompts"].splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise InvalidParams("There are no prompts in the list.", "Write one a line.")
    if len(lines) > MAX_LINES:
        raise InvalidParams(f"There are {len(lines):,} lines.", f"At most {MAX_LINES:,} are taken.")
    notes: list[str] = []
    cells = [_params(request, values, desk, number, line, notes) for number, line in enumerate(lines)]
    return Expansion(_run(cells, lines), sum(params.pictures for params in cells), tuple(notes))


def _run(cells: Sequence[GenerationParams], lines: Sequence[str]) -> Cells:
    for params, line in zip(cells, lines, strict=True):
        result = yield Cell(params, line[:100])
        if result is None or result.interrupted:
            return


def _params(
    request: GenerationParams, values: Mapping[str, Any], desk: Desk, number: int, line: str, notes: list[str]
) -> GenerationParams:
    try:
        fields = read_line(line)
    except InvalidParams as error:
        notes.append(f"Line {number + 1} was taken as a plain prompt. {error}")
        fields = {"prompt": line}
    styles = fields.pop("styles", "")
    tiling = fields.pop("tiling", None)
    if tiling is not None:
        fields |= {"tiling_x": tiling, "tiling_y": tiling}
    restored = fields.pop("restore_faces", None)
    if restored is not None:
        faces = request.faces or FaceRestoration()
        fields["faces"] = faces.model_dump() if restored else None
    for name, whole in (("prompt", request.prompt), ("negative_prompt", request.negative_prompt)):
        if name in fields and whole:
            position = values["prompt_position"]
            parts = {"none": [fields[name]], "start": [whole, fields[name]], "end": [fields[name], whole]}[position]
            fields[name] = " ".join(parts)
    drawn = values["seed_drawn"] and "seed" not in fields and not (values["same_seed"] or values["iterate_seed"])
    if drawn or fields.get("seed") == -1:
        draw = random.Random(f"prompts-from-file/{request.seed}/{0 if values['same_seed'] else number}")
        fields["seed"] = draw.randrange(RANDOM_SEED_LIMIT)
    elif "seed" not in fields and values["iterate_seed"]:
        fields["seed"] = request.seed + number * request.pictures
    try:
        params = request.changed(**fields)
        return (
            desk.with_styles(params, [name.strip() for name in styles.split(",") if name.strip()]) if styles else params
        )
    except InvalidParams as error:
        raise InvalidParams(f"Line {number + 1}: {error.message}", error.advice) from None
