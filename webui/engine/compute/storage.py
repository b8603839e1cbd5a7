"""The UNet's weights in eight bits a number: half the memory of fp16, for pictures that differ a little.

Each row of a weight (all that makes one output channel) has a scale of its own, so that its largest number is the
largest that eight bits hold:

    int8      w = scale * n, n from -127 to 127. The error is even: half a step, 1/254 of the row's largest number.
    float8    w = scale * f, f in e4m3 (four bits of exponent, three of mantissa): finer steps for small numbers,
              coarser ones for large.

A layer expands its weight for the time of a call and computes as it always does (`layers.dense_weight`). Biases, norms,
the first and the last convolution, text encoders and VAEs stay as they are: they are small, and an error in them shows.
docs/performance.md has memory, speed and difference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from webui.engine.compute.layers import SCALE, Convolution, GatedLinear, Linear

MIN_NUMBERS = 4096  # a smaller weight is not worth it
_BLOCK = 2**18  # numbers that are packed at a time
_ENDS = ("conv_in", "conv_out")  # what sees and what makes latents

_LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


def with_scales(network: Any) -> tuple[str, ...]:
    """Give each layer of a UNet (on the meta device) that is worth it a scale; the names of their weights."""
    names = []
    for path, layer in network.named_modules():
        if isinstance(layer, Linear | GatedLinear | Convolution) and path not in _ENDS:
            weight = layer.weight
            if weight.numel() >= MIN_NUMBERS:
                scale = weight.new_empty(weight.shape[0], *[1] * (weight.ndim - 1))
                layer.register_parameter(SCALE, torch.nn.Parameter(scale, requires_grad=False))
                names.append(f"{path}.weight")
    return tuple(names)


def scale_name(weight: str) -> str:
    """The name of the scale beside the weight of that name."""
    return f"{weight.removesuffix('weight')}{SCALE}"


def pack(weight: Tensor, values: Tensor, scale: Tensor) -> None:
    """Write a weight (rows, ...) in eight bits into `values`, shaped like it, and the scale of its rows into `scale`.

    A row with numbers that are not finite becomes NaN as a whole. Works in small blocks: large results that come and go
    between those that stay leave holes in a CPU's memory (measured on SD1.5: 4 GB).
    """
    largest, inner = _LARGEST[values.dtype], tuple(range(1, weight.ndim))
    rows = max(1, _BLOCK // max(1, weight[0].numel()))
    for start in range(0, len(weight), rows):
        block = slice(start, start + rows)
        exact = weight[block].to(values.device, torch.float32)
        found = (exact.abs().amax(inner, keepdim=True) / largest).to(scale.dtype)
        steps = exact / torch.where(found == 0, 1, found.float())  # by the scale as it is stored
        steps = steps.nan_to_num_(0.0).clamp_(-largest, largest)
        values[block] = steps.round_() if values.dtype is torch.int8 else steps
        scale[block] = torch.where(found.isfinite(), found, torch.nan)
