"""The numbers that SDXL is told about a picture's size and crop, beside the prompt."""

from __future__ import annotations

import torch

from webui.catalog.families import Family
from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.engine.conditioning.telling import Sizes
from webui.params import GenerationParams


def size_conditioning(params: GenerationParams, checkpoint: LoadedCheckpoint, width: int, height: int) -> Sizes | None:
    """What the UNet of `checkpoint` is told with a picture of `width` x `height` pixels; None outside of SDXL.

    Podell et al. 2023, section 2.2. Sizes of the request that are 0 are the picture's own.
    """
    if not checkpoint.is_sdxl:
        return None
    original = (params.original_height or height, params.original_width or width)
    crop = (params.crop_top, params.crop_left)
    if checkpoint.family is Family.SDXL_REFINER:
        scores = (params.aesthetic_score, params.negative_aesthetic_score)
        prompt, negative = (torch.tensor((*original, *crop, score)) for score in scores)
        return Sizes(prompt.float(), negative.float())
    target = (params.target_height or height, params.target_width or width)
    told = torch.tensor((*original, *crop, *target)).float()
    return Sizes(told, told)
