"""Linear layers, convolutions and norms that do in one pass over memory what usually takes several.

On a processor that computes in bf16, a matrix product is so fast that half of a UNet's time goes into reading and
writing its results: for a bias, for the sum with what went around the layer, for an activation. oneDNN, which torch
computes with there, can do all of that while a result is still in the registers; it rounds once, then, instead of
after each. On a GPU the layers around a product do the same by kernels of our own, where there are any
(`webui.engine.compute.kernels`; `use_kernels` gives them to a network). Everywhere else these layers are torch's own.

Each overload is named: torch would else try one after the other, and read whole tensors as lists for it.

They have torch's names and parameters, so that weights, adapters and hooks find them as usual. Which
operation is taken follows from the shapes of a call and from what the call is given, never from earlier ones.

A weight may be stored in eight bits a number (`webui.engine.compute.storage`), with a scale for each of its rows beside
it; the layer then expands it for the time of a call.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.nn import functional

from webui.engine.compute.kernels import Kernels

SCALE = "weight_scale"  # the parameter beside a weight of eight bits: (rows, 1, ...)
EIGHT_BITS = (torch.int8, torch.float8_e4m3fn)


def dense_weight(layer: Any) -> Tensor:
    """A layer's weight in the number format that it computes in; the very parameter where it is stored so."""
    weight: Tensor = layer.weight
    if weight.dtype not in EIGHT_BITS:
        return weight
    scale: Tensor = getattr(layer, SCALE)
    return weight.to(scale.dtype).mul_(scale)


class Linear(torch.nn.Linear):
    """y = x W^T + b, and `plus` (shaped like y) added where it is given."""

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        weight = dense_weight(self)
        if _fused(x, weight):
            return _product(x, weight, self.bias, plus)
        y = functional.linear(x, weight, self.bias)
        return y if plus is None else y + plus


class UsesKernels:
    """A layer that does its work by kernels of our own where `use_kernels` gave it some."""

    kernels: Kernels | None = None


class GatedLinear(UsesKernels, torch.nn.Linear):
    """GEGLU (Shazeer 2020): the first half of the outputs times the GELU of the second, (..., in) to (..., out / 2)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = dense_weight(self)
        if not _fused(x, weight):
            halves = functional.linear(x, weight, self.bias)
            if _in_use(self.kernels, halves) and halves.is_contiguous():
                return self.kernels.gated(halves)
            value, gate = halves.chunk(2, dim=-1)
            return value * functional.gelu(gate)
        (value_weight, gate_weight), (value_bias, gate_bias) = weight.chunk(2), _halves(self.bias)
        gate = torch.ops.mkldnn._linear_pointwise.default(x, gate_weight, gate_bias, "gelu", [], "none")
        gated: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, gate, value_weight, value_bias, "mul")
        return gated


class Convolution(UsesKernels, torch.nn.Conv2d):
    """A convolution (B, C, H, W) to (B, O, h, w), with `plus` (shaped like the result) and `shift` (B, O) added."""

    def forward(self, x: Tensor, plus: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        weight = dense_weight(self)
        if (
            _fused(x, weight)
            and self.groups == 1
            and self.padding_mode == "zeros"
            and not isinstance(self.padding, str)
        ):
            return self._fused(x.contiguous(memory_format=torch.channels_last), weight, plus, shift)
        if _in_use(self.kernels, x):
            return self._added(self._conv_forward(x, weight, None), plus, shift, self.kernels)
        y: Tensor = self._conv_forward(x, weight, self.bias)
        if shift is not None:
            y = y + shift[:, :, None, None]
        return y if plus is None else y + plus

    def _added(self, y: Tensor, plus: Tensor | None, shift: Tensor | None, kernels: Kernels) -> Tensor:
        """`y`, a new tensor, with the bias and the rest: torch's convolution adds the bias in a pass of its own."""
        if self.bias is None and plus is None and shift is None:
            return y
        y = y.contiguous(memory_format=torch.channels_last)
        if plus is not None:
            plus = plus.contiguous(memory_format=torch.channels_last)
        return kernels.add(y, self.bias, None if shift is None else shift.contiguous(), plus)

    def _fused(self, x: Tensor, weight: Tensor, plus: Tensor | None, shift: Tensor | None) -> Tensor:
        bias, after = self.bias, None
        if shift is not None and bias is not None and bool((shift == shift[:1]).all()):
            bias = bias + shift[0]  # all pictures of a call are at the same noise level
        elif shift is not None:
            after, plus = plus, shift[:, :, None, None].expand(-1, -1, *self._size(x))
        if plus is not None:
            plus = plus.contiguous(memory_format=torch.channels_last)
        way = self._as_product if self._is_product(x, weight) else self._convolved
        y = way(x, weight, bias, plus)
        return y if after is None else y + after

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None, plus: Tensor | None) -> Tensor:
        ops = torch.ops.mkldnn
        geometry = (list(self.padding), list(self.stride), list(self.dilation), self.groups)
        if plus is None:
            y: Tensor = ops._convolution_pointwise.default(x, weight, bias, *geometry, "none", [], "")
        else:
            y = ops._convolution_pointwise.binary(x, plus, weight, bias, *geometry, "add", 1.0, None, [], None)
        return y

    def _is_product(self, x: Tensor, weight: Tensor) -> bool:
        """Whether to do it as one matrix product over the patches of the picture.

        A small picture with many channels is bound by its weights, and oneDNN puts a convolution's weights into an
        order of its own at each call, which a product does without (measured on SD1.5's two lowest levels at 512x512:
        1.2 and 1.7 times as fast, on the levels above slower).
        """
        if any(side != 1 for side in (*self.stride, *self.dilation)):
            return False
        if self.kernel_size == (1, 1):
            return not any(self.padding)
        height, width = self._size(x)
        pixels = x.shape[0] * height * width
        return 2 * pixels <= self.in_channels and weight.is_contiguous(memory_format=torch.channels_last)

    def _as_product(self, x: Tensor, weight: Tensor, bias: Tensor | None, plus: Tensor | None) -> Tensor:
        (down, across), (height, width) = self.kernel_size, self._size(x)
        rows = x.permute(0, 2, 3, 1)
        if (down, across) != (1, 1):
            y_pad, x_pad = (int(side) for side in self.padding)
            padded = functional.pad(rows, (0, 0, x_pad, x_pad, y_pad, y_pad))
            picture, line, cell, _ = padded.stride()
            shape = (x.shape[0], height, width, down, across * self.in_channels)
            rows = padded.as_strided(shape, (picture, line, cell, line, 1)).flatten(3)
        columns = weight.permute(0, 2, 3, 1).flatten(1)
        return _product(rows, columns, bias, None if plus is None else plus.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _size(self, x: Tensor) -> tuple[int, int]:
        """(height, width) of the result."""
        height, width = (
            (x.shape[2 + i] + 2 * int(self.padding[i]) - self.dilation[i] * (self.kernel_size[i] - 1) - 1)
            // self.stride[i]
            + 1
            for i in range(2)
        )
        return height, width


class GroupNorm(UsesKernels, torch.nn.GroupNorm):
    """The group norm of (B, C, ...), and its SiLU if asked for."""

    def forward(self, x: Tensor, silu: bool = False) -> Tensor:
        if self.affine and _in_use(self.kernels, x) and self.kernels.is_channels_last(x):
            return self.kernels.group_norm(x, self, silu=silu)
        y = super().forward(x)
        return functional.silu(y, inplace=not torch.is_grad_enabled()) if silu else y


class LayerNorm(UsesKernels, torch.nn.LayerNorm):
    """The layer norm of the rows of (..., D)."""

    def forward(self, x: Tensor) -> Tensor:
        whole = self.bias is not None and len(self.normalized_shape) == 1
        if whole and _in_use(self.kernels, x) and x.is_contiguous():
            return self.kernels.layer_norm(x, self)
        return super().forward(x)


class Doubling(UsesKernels, torch.nn.Module):
    """Each cell four times: (B, C, H, W) to (B, C, 2 H, 2 W), or to another size by the nearest neighbours."""

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        twice = (2 * x.shape[-2], 2 * x.shape[-1])
        size = twice if size is None else (size[0], size[1])
        if size == twice and _in_use(self.kernels, x) and self.kernels.is_channels_last(x):
            return self.kernels.doubled(x)
        return functional.interpolate(x, size=size, mode="nearest")


def use_kernels(network: torch.nn.Module, kernels: Kernels | None) -> None:
    """Let the layers of a network use kernels of our own; None: torch's."""
    for layer in network.modules():
        if isinstance(layer, UsesKernels):
            layer.kernels = kernels


def _in_use(kernels: Kernels | None, x: Tensor) -> TypeGuard[Kernels]:
    """torch.compile makes its own, and fuses more, of torch's operations."""
    return kernels is not None and kernels.takes(x) and not torch.compiler.is_compiling()


@lru_cache(maxsize=1)
def fuses() -> bool:
    """Whether oneDNN's fused operations are there and right, on this machine, in bf16."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        x, w, plus = (torch.randn(4, n, generator=generator).bfloat16() for n in (8, 8, 4))
        try:
            if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
                return False
            got = _product(x, w, None, plus)
        except (RuntimeError, AttributeError):  # another build of torch
            return False
        return torch.allclose(got.float(), x.float() @ w.float().T + plus.float(), atol=0.1, rtol=0.02)


def _fused(x: Tensor, weight: Tensor) -> bool:
    on_cpu = x.device.type == "cpu" and x.dtype is torch.bfloat16 and weight.dtype is torch.bfloat16
    return on_cpu and not torch.is_grad_enabled() and fuses()


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, plus: Tensor | None) -> Tensor:
    """x (..., K) times weight (N, K), transposed, in one pass with bias and sum."""
    ops: Any = torch.ops.mkldnn
    if plus is None:
        y: Tensor = ops._linear_pointwise.default(x, weight, bias, "none", [], "")
    else:
        y = ops._linear_pointwise.binary(x, plus.contiguous(), weight, bias, "add")
    return y


def _halves(bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    if bias is None:
        return None, None
    value, gate = bias.chunk(2)
    return value, gate
