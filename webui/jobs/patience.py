"""How long a job may be silent: the larger its pictures, the longer a step or a decode takes without a word."""

from __future__ import annotations

from webui.params import GenerationParams

REFERENCE_PIXELS = 512 * 512  # a job of that size is silent for no longer than the set time limit


def patience_scale(pixels: int) -> float:
    """How many times the usual a job may be silent that draws so many pixels at once."""
    return max(1.0, pixels / REFERENCE_PIXELS)


def largest_batch(params: GenerationParams) -> int:
    """Pixels of the largest batch that the request names; what follows from a picture's own size the worker tells."""
    if params.extras is not None:
        return params.extras.width * params.extras.height
    width, height = params.width or 0, params.height or 0
    sizes = [(width, height)]
    if params.hires is not None and width and height:
        sizes.extend(params.hires.sizes(width, height))
    return max(width * height for width, height in sizes) * params.batch_size
