"""What of a request has no effect on its picture, as far as prompt, model and catalog show it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from webui.catalog import ModelFile
from webui.catalog.suggestions import TOO_STRONG, suggestion_for
from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.events import Warning
from webui.params import GenerationParams
from webui.prompt import PromptPlan


def notes_on(
    params: GenerationParams,
    plan: PromptPlan,
    checkpoint: LoadedCheckpoint,
    networks: Sequence[Warning],
    loras: Sequence[ModelFile] = (),
) -> list[Warning]:
    """Said under the picture, in this order: the prompt's own problems, what `networks` says, settings.

    `loras`: those that act on the UNet.
    """
    notes = [*plan.warnings, *networks]
    dims = [encoder.dims for encoder in checkpoint.text_encoders]
    layers = min(one.layers + one.dropped for one in dims)
    if all(one.fixed for one in dims):
        if params.clip_skip > 2:  # 1 and 2 are what everybody has in their settings
            text = f"Clip skip {params.clip_skip} had no effect: this model reads its text from one layer."
            notes.append(Warning("clip_skip", text))
    elif params.clip_skip > layers:
        text = f"Clip skip {params.clip_skip} is more than this model's {layers} layers; {layers} was used."
        notes.append(Warning("clip_skip", text))
    if params.negative_prompt.strip() and (checkpoint.guidance_dim or _negative_cancels(params, plan)):
        why = "at CFG scale 1 it cancels out. Use a CFG scale above 1."
        if checkpoint.guidance_dim:
            why = "this model is an LCM that was trained with its guidance, and reads none."
        notes.append(Warning("negative", f"The negative prompt had no effect: {why}"))
    too_strong = _too_strong(params, checkpoint, loras)
    return [*notes, too_strong] if too_strong is not None else notes


def _too_strong(params: GenerationParams, checkpoint: LoadedCheckpoint, loras: Sequence[ModelFile]) -> Warning | None:
    """A guidance that burns the pictures of models that were distilled to few steps."""
    for model, what in (*((lora, "LoRA") for lora in loras), (checkpoint.file, "checkpoint")):
        found = suggestion_for(model)
        if found is not None:
            if params.cfg_scale <= TOO_STRONG * found.cfg_scale:
                return None
            steps = f"{found.steps} {'step' if found.steps == 1 else 'steps'}"
            return Warning(
                "distilled",
                f'The {what} "{model.stem}" is made for few steps ({found.kind}): a CFG scale of {params.cfg_scale:g} '
                f"is too strong for it. {found.sampler}, {found.schedule}, {steps} and CFG scale {found.cfg_scale:g} "
                f"suit it.",
            )
    return None


def _negative_cancels(params: GenerationParams, plan: PromptPlan) -> bool:
    """u + 1 (c - u) = c; the samplers of CFG++ use u all the same."""
    weights = sum(part.weight for part in plan.parts)
    return math.isclose(params.cfg_scale, 1.0) and math.isclose(weights, 1.0) and "CFG++" not in params.sampler
