"""A worked example: one slider, one step hook. docs/extensions.md explains it line by line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.nn import functional

from webui.extensions import hookimpl
from webui.params import GenerationParams
from webui.sampling import GuidanceStep

START, END = 0.2, 0.9  # share of the sampling: before, the composition is made; after, nothing but the last bits


class Sharpen:
    """Unsharp masking of the clean picture that the model expects, while surfaces are made."""

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def before(self, step: GuidanceStep) -> None:
        """Nothing to do before the model is asked."""

    def after(self, step: GuidanceStep) -> None:
        """`step.denoised` is (B, 4, H/8, W/8): push it away from its own blur."""
        done = step.call / max(1, step.total_calls)
        if START <= done < END:
            edged = functional.pad(step.denoised, (1, 1, 1, 1), mode="replicate")
            blurred = functional.avg_pool2d(edged, kernel_size=3, stride=1)
            step.denoised = step.denoised + self.amount * (step.denoised - blurred)


@hookimpl
def step(request: GenerationParams, values: Mapping[str, Any]) -> Sharpen | None:  # noqa: ARG001
    """Asked before every batch of a job in which the panel is on."""
    return Sharpen(values["amount"]) if values["amount"] else None
