"""The Triton kernels, run by Triton's interpreter (TRITON_INTERPRET=1), against float64: prints the errors as JSON.

{case: [largest error, largest error of rounding the exact result to half precision]}, each relative to the number or
to 1, whichever is larger.
"""

from __future__ import annotations

import json

import torch
from torch import Tensor
from torch.nn import functional

from webui.engine.compute import triton_kernels as kernels

CASES = ((2, 64, 9, 7, 0), (1, 320, 16, 16, 0), (3, 96, 13, 11, 50), (2, 960, 3, 5, 0), (1, 128, 20, 20, 300))


def errors_of(got: Tensor, exact: Tensor) -> list[float]:
    size = exact.abs().clamp(min=1)
    return [((one.double() - exact).abs() / size).max().item() for one in (got, exact.to(got.dtype))]


def picture(*shape: int) -> Tensor:
    return torch.randn(*shape).half().contiguous(memory_format=torch.channels_last)


def main() -> None:
    torch.manual_seed(0)
    found = {}
    for pictures, channels, height, width, away in CASES:
        norm = torch.nn.GroupNorm(32, channels)
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
        norm.half()
        x = (picture(pictures, channels, height, width) + away + torch.randn(channels)[:, None, None]).half()
        name = f"{tuple(x.shape)} around {away}"
        exact = functional.group_norm(x.double(), 32, norm.weight.double(), norm.bias.double(), norm.eps)
        for silu in (False, True):
            got = kernels.group_norm(x, norm, silu=silu)
            assert kernels.is_channels_last(got)
            found[f"norm {name}, {silu}"] = errors_of(got, functional.silu(exact) if silu else exact)
        bias, shift, plus = torch.randn(channels).half(), torch.randn(pictures, channels).half(), torch.randn_like(x)
        total = x.double() + bias[:, None, None] + shift[:, :, None, None] + plus
        found[f"sum {name}"] = errors_of(kernels.add(x.clone(), bias, shift, plus), total)
        found[f"sum {name}, bias"] = errors_of(
            kernels.add(x.clone(), bias, None, None), x.double() + bias[:, None, None]
        )
        found[f"doubled {name}"] = errors_of(kernels.doubled(x), functional.interpolate(x.double(), scale_factor=2.0))
        assert kernels.is_channels_last(kernels.doubled(x))
    for width, away in ((40, 0), (320, 100), (1280, 0), (2100, 0)):
        row_norm = torch.nn.LayerNorm(width)
        torch.nn.init.normal_(row_norm.weight)
        torch.nn.init.normal_(row_norm.bias)
        row_norm.half()
        rows = (torch.randn(3, 7, width) + away).half()
        exact = functional.layer_norm(
            rows.double(), (width,), row_norm.weight.double(), row_norm.bias.double(), row_norm.eps
        )
        found[f"rows of {width}"] = errors_of(kernels.layer_norm(rows, row_norm), exact)
    for width in (40, 1280):
        halves = torch.randn(2, 33, 2 * width).half()
        value, gate = halves.double().chunk(2, -1)
        found[f"gate {width}"] = errors_of(kernels.gated(halves), value * functional.gelu(gate))
    print(json.dumps(found))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
