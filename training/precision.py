"""The number format that networks are trained and drawn in: bfloat16 where the device multiplies it itself.

A processor that has to emulate it takes several times as long as for float32.
"""

from __future__ import annotations

import functools

import torch

from webui.engine.compute.device import cpu_has_bf16


@functools.cache
def format_of(device: str) -> torch.dtype:
    """For a kind of device, "cpu" or "cuda"."""
    return torch.bfloat16 if device != "cpu" or cpu_has_bf16() else torch.float32


def mixed(device: torch.device) -> torch.autocast:
    """Within it, what can be is calculated in that format; weights and results of other operations stay float32."""
    dtype = format_of(device.type)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16)
