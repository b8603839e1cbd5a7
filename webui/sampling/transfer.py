"""Numbers on their way to the device, without anybody waiting for them."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor on `device` and in `dtype` (its own if not given); the very tensor where it is that already.

    A copy from ordinary memory to a GPU waits until the GPU has done all that it was given before. From memory that the
    system may not move ("pinned") it only joins the queue, and torch keeps the memory until the copy is done.
    """
    target = torch.device(device)
    if target.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.contiguous().pin_memory()  # an expanded one cannot be pinned
    return tensor.to(target, dtype or tensor.dtype, non_blocking=target.type != "mps")
