"""Whether the layers may use kernels of our own (`triton_kernels`) on a device: tried once, at start."""

from __future__ import annotations

import logging
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from webui.engine.compute.device import BackendStatus

NAME = "fused kernels"
OFF_BY = 2e-2  # of half-precision numbers of size 1 to 4: what rounding alone can make of them

_log = logging.getLogger(__name__)


class Kernels(Protocol):
    """Operations on pictures (B, C, H, W) whose channels lie last in memory."""

    def takes(self, x: Tensor) -> bool:
        """Whether they are for numbers of this format, on this device, at this time."""
        ...

    def is_channels_last(self, picture: Tensor) -> bool:
        """Whether (B, C, H, W) lies in memory as (B, H, W, C)."""
        ...

    def group_norm(self, x: Tensor, norm: torch.nn.GroupNorm, *, silu: bool) -> Tensor:
        """The norm, and the SiLU of that if asked for."""
        ...

    def layer_norm(self, x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
        """The norm of the rows of x (..., D), contiguous, with a weight and a bias."""
        ...

    def add(self, y: Tensor, bias: Tensor | None, shift: Tensor | None, plus: Tensor | None) -> Tensor:
        """y, to which `bias` (C), `shift` (B, C) and `plus` (like y) were added in its place."""
        ...

    def gated(self, x: Tensor) -> Tensor:
        """The first half of x (..., 2 D), contiguous, times the GELU of the second: (..., D)."""
        ...

    def doubled(self, x: Tensor) -> Tensor:
        """Each cell four times: (B, C, H, W) to (B, C, 2 H, 2 W)."""
        ...


def kernels_for(device: torch.device, dtype: torch.dtype, *, wanted: bool) -> tuple[Kernels | None, BackendStatus]:
    """The kernels, or None and why not."""
    if device.type != "cuda":
        return None, BackendStatus(NAME, False, "need a CUDA device")
    if not wanted:
        return None, BackendStatus(NAME, False, "switched off in the settings")
    if dtype not in (torch.float16, torch.bfloat16):
        return None, BackendStatus(NAME, False, "are for half precision")
    try:
        from webui.engine.compute import triton_kernels

        check(triton_kernels, device, dtype)
    except Exception as error:  # no Triton, no compiler for it, a driver that is too old: each fails in its own way
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:160].rstrip(".")
        _log.warning("The fused kernels cannot be used (%s); torch's own are.", first)
        return None, BackendStatus(NAME, False, first)
    return triton_kernels, BackendStatus(NAME, True)


@torch.inference_mode()
def check(kernels: Kernels, device: torch.device, dtype: torch.dtype) -> None:
    """Raise ArithmeticError unless they give what torch gives in float32."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    picture, around = (numbers(2, 96, 9, 7).contiguous(memory_format=torch.channels_last) for _ in range(2))
    bias, shift, halves = numbers(96), numbers(2, 96), numbers(3, 5, 80)
    norm = torch.nn.GroupNorm(32, 96, device=device, dtype=dtype)
    row_norm = torch.nn.LayerNorm(80, device=device, dtype=dtype)
    norm.weight.copy_(bias)
    row_norm.weight.copy_(halves[0, 0])
    expected = functional.group_norm(picture.float(), 32, bias.float(), norm.bias.float(), norm.eps)
    total = picture.float() + bias.float()[:, None, None] + shift.float()[:, :, None, None] + around.float()
    value, gate = halves.float().chunk(2, -1)
    rows = functional.layer_norm(halves.float(), (80,), row_norm.weight.float(), row_norm.bias.float(), row_norm.eps)
    answers = (
        ("group norm", kernels.group_norm(picture, norm, silu=False), expected),
        ("group norm with SiLU", kernels.group_norm(picture, norm, silu=True), functional.silu(expected)),
        ("sum", kernels.add(picture.clone(memory_format=torch.preserve_format), bias, shift, around), total),
        ("layer norm", kernels.layer_norm(halves, row_norm), rows),
        ("gate", kernels.gated(halves), value * functional.gelu(gate)),
        ("doubling", kernels.doubled(picture), functional.interpolate(picture.float(), scale_factor=2.0)),
    )
    for name, got, wanted in answers:
        worst = ((got.float() - wanted).abs() / wanted.abs().clamp(min=1)).max().item()
        if not worst < OFF_BY:
            raise ArithmeticError(f"{name}: wrong result (error {worst:.2g})")
