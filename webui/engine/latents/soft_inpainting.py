"""Soft inpainting: gradual masks (AUTOMATIC1111's script of that name, by CodeHatchling).

While denoising, the mask's greys are raised to a power that falls with the noise level, so the given picture leads
early on as far as `schedule_bias` and `preservation_strength` let it. Afterwards the original is laid over the result
where the two hardly differ, measured in latents.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from webui.operations import SoftInpainting
from webui.pictures.resizing import Size, filled

KERNEL_REACH = 2  # latent cells
KERNEL_WIDTH = 1.5
SMOOTHING = 4.0  # pixels; against the steps of latent cells

Floats = NDArray[np.float64]


def mask_at_level(soft: SoftInpainting, drawn: Tensor, level: float) -> Tensor:
    """How much of the new picture is taken at this noise level; `drawn` is the mask, 1 where it is drawn."""
    return drawn.pow(level**soft.schedule_bias * soft.preservation_strength)


def blend_latents(a: Tensor, b: Tensor, share: Tensor, contrast: float) -> Tensor:
    """`a` (share 0) to `b` (share 1), both (B, C, h, w), with their lengths along C interpolated on their own.

    Interpolated as plain vectors, pictures that differ lose contrast in between; `contrast` above 1 favours the longer
    of the two: the lengths' power mean of that exponent is taken.
    """
    mixed = a * (1 - share) + b * share
    length = mixed.norm(dim=1, keepdim=True).double() + 1e-5
    power = [latents.norm(dim=1, keepdim=True).double() ** contrast for latents in (a, b)]
    wanted = (power[0] * (1 - share) + power[1] * share) ** (1 / contrast)
    blended: Tensor = mixed * (wanted / length)
    return blended.to(mixed.dtype)


def difference_mask(soft: SoftInpainting, drawn: Tensor, given: Tensor, made: Tensor, size: Size) -> Image.Image:
    """White ("L", `size`) where the result is to be seen: where it differs from the given picture.

    `drawn` is the latent mask (1, 1, h, w); `given` and `made` are latents (C, h, w).
    """
    mask = drawn[0, 0].double().clamp(0, 1).cpu().numpy()
    influence = soft.mask_influence
    weight = 0.5 * (1 - influence) + (1 - mask ** (soft.preservation_strength / 2)) * influence
    weight = weight / (1.00001 - weight)
    distance: Floats = (made - given).norm(dim=0).double().cpu().numpy()
    kernel = _kernel()
    distance = weighted_range(distance, kernel, 0.9, 1.0)  # nearly the greatest around
    distance = weighted_range(distance, kernel, 0.25, 0.75)  # the middle half
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = distance / (soft.difference_threshold * weight)
        kept = 1 / (1 + np.where(distance == 0, 0.0, ratio) ** soft.difference_contrast)
    seen = 255 * (1 - _smootherstep(np.nan_to_num(kept)))
    picture = filled(Image.fromarray(seen.astype(np.uint8)), size)
    return picture.filter(ImageFilter.GaussianBlur(SMOOTHING))


def weighted_range(values: Floats, kernel: Floats, low: float, high: float) -> Floats:
    """At each place the weighted mean of the neighbours between two quantiles: a blurred maximum, median, minimum.

    `kernel` (k, k) weighs the neighbours; the range is widened to a weight of 1, that of the centre alone.
    """
    reach = kernel.shape[0] // 2
    padded = np.pad(values, reach)
    there = np.pad(np.ones_like(values), reach)
    shape = kernel.shape
    windows = np.lib.stride_tricks.sliding_window_view(padded, shape).reshape(*values.shape, -1)
    weights = np.lib.stride_tricks.sliding_window_view(there, shape).reshape(*values.shape, -1) * kernel.ravel()
    order = np.argsort(windows, axis=-1, kind="stable")
    windows, weights = np.take_along_axis(windows, order, -1), np.take_along_axis(weights, order, -1)
    ends = np.cumsum(weights, axis=-1)
    total = ends[..., -1:]
    start, end = total * low, total * high
    narrow = end - start < 1
    centre = (start + end) / 2
    start, end = np.where(narrow, centre - 0.5, start), np.where(narrow, centre + 0.5, end)
    over = np.where(narrow, np.maximum(end - total, 0), 0)
    start, end = start - over, end - over
    under = np.where(narrow, np.maximum(-start, 0), 0)
    start, end = start + under, end + under
    share = np.clip(np.minimum(ends, end) - np.maximum(ends - weights, start), 0, None)
    summed: Floats = (windows * share).sum(-1) / np.maximum(share.sum(-1), 1e-12)
    return summed


def _kernel() -> Floats:
    """A Gaussian that is 1 in the middle and 0 at its reach."""

    def bell(square: Any) -> Any:
        return np.exp(-square / KERNEL_WIDTH**2)

    offsets = np.arange(-KERNEL_REACH, KERNEL_REACH + 1)
    rim = math.exp(-(KERNEL_REACH**2) / KERNEL_WIDTH**2)
    kernel: Floats = np.maximum(0.0, (bell(offsets[:, None] ** 2 + offsets**2) - rim) / (1 - rim))
    return kernel


def _smootherstep(x: Floats) -> Floats:
    """0 to 1 with its first two derivatives 0 at both ends (Perlin)."""
    result: Floats = x**3 * (x * (6 * x - 15) + 10)
    return result
