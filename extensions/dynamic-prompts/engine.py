"""All combinations of variants and wildcards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from webui.errors import InvalidParams
from webui.extensions import Cell, Cells, Desk, Expansion, hookimpl
from webui.params import GenerationParams
from webui.prompt import every_expansion


@hookimpl
def expand(request: GenerationParams, values: Mapping[str, Any], desk: Desk) -> Expansion:
    """Each combination of prompt and negative prompt once. Raises `InvalidParams` when there are too many."""
    most = values["most"]
    prompts = every_expansion(request.prompt, desk.wildcard, most)
    negatives = every_expansion(request.negative_prompt, desk.wildcard, most)
    if prompts is None or negatives is None or len(prompts) * len(negatives) > most:
        raise InvalidParams(f"The prompts have more than {most:,} combinations.", 'Raise "At most", or shorten them.')
    pairs = [(prompt, negative) for prompt in prompts for negative in negatives]
    return Expansion(_cells(request, pairs, values["different_seeds"]), len(pairs) * request.pictures)


def _cells(request: GenerationParams, pairs: Sequence[tuple[str, str]], different_seeds: bool) -> Cells:
    for number, (prompt, negative) in enumerate(pairs):
        seed = request.seed + number * request.pictures if different_seeds else request.seed
        params = request.changed(prompt=prompt, negative_prompt=negative, wildcards=False, seed=seed)
        result = yield Cell(params, prompt[:100])
        if result is None or result.interrupted:
            return
