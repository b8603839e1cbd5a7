"""What of a request has no effect on its picture, as far as prompt, model and catalog show it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from webui.engine.models import LoadedCheckpoint
from webui.events import Warning
from webui.params import GenerationParams
from webui.prompt import PromptPlan


def notes_on(
    params: GenerationParams, plan: PromptPlan, checkpoint: LoadedCheckpoint, networks: Sequence[Warning]
) -> list[Warning]:
    """Said under the picture, in this order: the prompt's own problems, what `networks` says, settings."""
    notes = [*plan.warnings, *networks]
    layers = min(encoder.dims.layers + encoder.dims.dropped for encoder in checkpoint.text_encoders)
    if params.clip_skip > layers:
        text = f"Clip skip {params.clip_skip} is more than this model's {layers} layers; {layers} was used."
        notes.append(Warning("clip_skip", text))
    if params.negative_prompt.strip() and (checkpoint.guidance_dim or _negative_cancels(params, plan)):
        why = "at CFG scale 1 it cancels out. Use a CFG scale above 1."
        if checkpoint.guidance_dim:
            why = "this model is an LCM that was trained with its guidance, and reads none."
        notes.append(Warning("negative", f"The negative prompt had no effect: {why}"))
    return notes


def _negative_cancels(params: GenerationParams, plan: PromptPlan) -> bool:
    """u + 1 (c - u) = c; the samplers of CFG++ use u all the same."""
    weights = sum(part.weight for part in plan.parts)
    return math.isclose(params.cfg_scale, 1.0) and math.isclose(weights, 1.0) and "CFG++" not in params.sampler
