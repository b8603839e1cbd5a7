"""The same request again and again, with seeds that follow from the first one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from webui.extensions import Cell, Cells, Expansion, hookimpl
from webui.params import RANDOM_SEED_LIMIT, GenerationParams

ENDLESS = 10_000  # rounds


@hookimpl
def expand(request: GenerationParams, values: Mapping[str, Any]) -> Expansion:
    """Rounds without an end that anybody waits for."""
    return Expansion(_cells(request, values["most"] or ENDLESS), values["most"] * request.pictures)


def _cells(request: GenerationParams, most: int) -> Cells:
    draw = random.Random(f"generate-forever/{request.seed}")
    params = request
    for number in range(most):
        result = yield Cell(params, f"round {number + 1}")
        if result is None or result.interrupted:
            return
        params = request.changed(seed=draw.randrange(RANDOM_SEED_LIMIT))
