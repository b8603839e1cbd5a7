"""All combinations of variants and wildcards."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from webui.errors import InvalidParams
from webui.extensions import Cell, Cells, Desk, Expansion, hookimpl
from webui.params import GenerationParams
from webui.prompt import every_expansion

_CHOICE = re.compile(r"\{[^{}]*\|[^{}]*\}|__\w[\w \-./]*?__")

Texts = tuple[str, str]  # of the picture, and of its second pass


@hookimpl
def expand(request: GenerationParams, values: Mapping[str, Any], desk: Desk) -> Expansion:
    """Each combination of prompt and negative prompt once. Raises `InvalidParams` when there are too many."""
    reader, hires = _Reader(desk, values["most"]), request.hires
    prompts = reader.both(request.prompt, hires.prompt if hires else "")
    negatives = reader.both(request.negative_prompt, hires.negative_prompt if hires else "")
    if len(prompts) * len(negatives) > values["most"]:
        raise reader.too_many()
    pairs = [(prompt, negative) for prompt in prompts for negative in negatives]
    notes = tuple(f"There is no wildcard __{name[:60]}__; it was left as it is." for name in reader.missing)
    return Expansion(_cells(request, pairs, values["different_seeds"]), len(pairs) * request.pictures, notes)


@dataclass
class _Reader:
    """`missing`: wildcards without lines, as keys, in their order."""

    desk: Desk
    most: int
    missing: dict[str, None] = field(default_factory=dict)

    def both(self, text: str, later: str) -> list[Texts]:
        """Every text with that of the second pass. The same choices in both are made alike: it is the same picture."""
        first, second = self._every(text), self._every(later)
        if len(first) == len(second) and _CHOICE.findall(text) == _CHOICE.findall(later):
            return list(zip(first, second, strict=True))
        if len(first) * len(second) > self.most:
            raise self.too_many()
        return [(one, other) for one in first for other in second]

    def too_many(self) -> InvalidParams:
        return InvalidParams(
            f"The prompts have more than {self.most:,} combinations.", 'Raise "At most", or shorten them.'
        )

    def _every(self, text: str) -> list[str]:
        found = every_expansion(text, self._lines, self.most)
        if found is None:
            raise self.too_many()
        return found

    def _lines(self, name: str) -> Sequence[str]:
        lines = self.desk.wildcard(name)
        if not lines:
            self.missing[name] = None
        return lines


def _cells(request: GenerationParams, pairs: Sequence[tuple[Texts, Texts]], different_seeds: bool) -> Cells:
    for number, ((prompt, later), (negative, later_negative)) in enumerate(pairs):
        seed = request.seed + number * request.pictures if different_seeds else request.seed
        fields: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative, "wildcards": False, "seed": seed}
        if request.hires is not None:
            fields["hires"] = {**request.hires.model_dump(), "prompt": later, "negative_prompt": later_negative}
        result = yield Cell(request.changed(**fields), prompt[:100])
        if result is None or result.interrupted:
            return
