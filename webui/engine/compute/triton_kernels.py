"""Kernels of our own for a GPU: what torch does in many passes over memory, in as few as there have to be.

A UNet's pictures lie with their channels last, as convolutions on a GPU want them. torch's group norm wants them first:
it turns the picture around, reads it twice, and the next convolution turns it back; the SiLU after it is one more pass.
On an H200 that took over a quarter of an SD1.5 step (docs/performance.md). Here are, for channels that lie last:

- `group_norm`: the norm (Wu & He 2018) and its SiLU, in one pass that reads and one that reads and writes;
- `layer_norm`: the norm (Ba et al. 2016) of short rows, for which torch's takes five times as long as memory would;
- `add`: a convolution's bias, the time and what went around the layer, in one pass;
- `gated`: GEGLU's gate (Shazeer 2020), in one pass;
- `doubled`: each cell four times, for which torch's takes ten times as long as memory would.

All compute in float32 and round once. They are written in Triton, which torch for CUDA brings along on Linux. Where it
is missing, or `kernels` finds that a result is wrong, `layers` do it torch's way (both in `webui.engine.compute`).
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _CHANNELS = 64, 64  # of the part of a picture that one program holds
_SHARES = 32  # of a picture's sums that are added up at a time
_ENOUGH = 512  # programs that keep a large GPU busy
_NUMBERS = 1024  # of a gate that one program holds
_ROW_NUMBERS = 2048  # of short rows that one program holds, at least one row


@triton.jit  # type: ignore[untyped-decorator]
def _sums(x, sums, rows, channels, each, ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of `each` rows of a picture (rows, channels), for each channel: the sum of what it is above its first row's
    value, and of the squares of that. `sums` (pictures, shares, 2, channels).
    """
    picture, share, shares = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    start = x + picture * rows * channels + channel
    pivot = tl.load(start, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((CHANNELS,), tl.float32)
    squares = tl.zeros((CHANNELS,), tl.float32)
    last = tl.minimum((share + 1) * each, rows)
    first = share * each
    while first < last:
        row = first + tl.arange(0, ROWS)
        there = (row < last)[:, None] & inside[None, :]
        values = tl.load(start[None, :] + row[:, None] * channels, mask=there, other=0.0).to(tl.float32)
        above = tl.where(there, values - pivot[None, :], 0.0)
        total += tl.sum(above, 0)
        squares += tl.sum(above * above, 0)
        first += ROWS
    place = sums + (picture * shares + share) * 2 * channels + channel
    tl.store(place, total, mask=inside)
    tl.store(place + channels, squares, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _factors(  # type: ignore[no-untyped-def]
    x, sums, weight, bias, scale, shift, rows, channels, width, shares, eps, SHARES: tl.constexpr, WIDTH: tl.constexpr
):
    """Of one group of one picture: what its channels are to be multiplied by, and what is to be added then."""
    picture, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    member = tl.arange(0, WIDTH)
    inside = member < width
    channel = group * width + member
    total = tl.zeros((WIDTH,), tl.float32)
    squares = tl.zeros((WIDTH,), tl.float32)
    first = 0
    while first < shares:
        share = first + tl.arange(0, SHARES)
        there = (share < shares)[:, None] & inside[None, :]
        place = sums + (picture * shares + share[:, None]) * 2 * channels + channel[None, :]
        total += tl.sum(tl.load(place, mask=there, other=0.0), 0)
        squares += tl.sum(tl.load(place + channels, mask=there, other=0.0), 0)
        first += SHARES
    pivot = tl.load(x + picture * rows * channels + channel, mask=inside, other=0.0).to(tl.float32)
    own = tl.where(inside, pivot + total / rows, 0.0)  # mean of each channel
    mean = tl.sum(own, 0) / width
    away = tl.where(inside, own - mean, 0.0)
    spread = tl.sum(tl.where(inside, squares - total * total / rows, 0.0), 0) + rows * tl.sum(away * away, 0)
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    factor = factor / tl.sqrt(spread / (rows * width) + eps)
    tl.store(scale + picture * channels + channel, factor, mask=inside)
    addend = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32) - mean * factor
    tl.store(shift + picture * channels + channel, addend, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _tile(rows, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """This program's part of (pictures, rows, channels): its picture, its channels and which of them there are, which
    of its numbers there are, and where those lie.
    """
    picture = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    there = (row < rows)[:, None] & inside[None, :]
    place = (picture * rows + row[:, None]) * channels + channel[None, :]
    return picture, channel, inside, there, place


@triton.jit  # type: ignore[untyped-decorator]
def _scaled(  # type: ignore[no-untyped-def]
    x, y, scale, shift, rows, channels, SILU: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    """y = x * scale + shift, and its SiLU if asked for; scale and shift (pictures, channels)."""
    picture, channel, inside, there, place = _tile(rows, channels, ROWS, CHANNELS)
    factor = tl.load(scale + picture * channels + channel, mask=inside, other=0.0)
    addend = tl.load(shift + picture * channels + channel, mask=inside, other=0.0)
    values = tl.load(x + place, mask=there, other=0.0).to(tl.float32) * factor[None, :] + addend[None, :]
    if SILU:
        values = values * tl.sigmoid(values)
    tl.store(y + place, values.to(y.dtype.element_ty), mask=there)


@triton.jit  # type: ignore[untyped-decorator]
def _added(  # type: ignore[no-untyped-def]
    y, bias, shift, plus, rows, channels,
    BIAS: tl.constexpr, SHIFT: tl.constexpr, PLUS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """In place: y + bias (channels) + shift (pictures, channels) + plus (like y), those that are asked for."""
    picture, channel, inside, there, place = _tile(rows, channels, ROWS, CHANNELS)
    values = tl.load(y + place, mask=there, other=0.0).to(tl.float32)
    if BIAS:
        values += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)[None, :]
    if SHIFT:
        values += tl.load(shift + picture * channels + channel, mask=inside, other=0.0).to(tl.float32)[None, :]
    if PLUS:
        values += tl.load(plus + place, mask=there, other=0.0).to(tl.float32)
    tl.store(y + place, values.to(y.dtype.element_ty), mask=there)


@triton.jit  # type: ignore[untyped-decorator]
def _gated(x, y, width, NUMBERS: tl.constexpr):  # type: ignore[no-untyped-def]
    """y (rows, width) = the first half of x (rows, 2 width) times the GELU of the second."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * NUMBERS + tl.arange(0, NUMBERS)
    inside = column < width
    value = tl.load(x + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    gate = 0.5 * gate * (1.0 + tl.math.erf(gate * 0.7071067811865476))
    tl.store(y + row * width + column, (value * gate).to(y.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _row_norm(x, y, weight, bias, rows, width, eps, ROWS: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """y = the layer norm of the rows of x (rows, width), times weight, plus bias (width)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = column < width
    there = (row < rows)[:, None] & inside[None, :]
    place = row[:, None] * width + column[None, :]
    values = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    away = tl.where(there, values - (tl.sum(values, 1) / width)[:, None], 0.0)
    values = away / tl.sqrt(tl.sum(away * away, 1) / width + eps)[:, None]
    factor = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    addend = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + place, (values * factor[None, :] + addend[None, :]).to(y.dtype.element_ty), mask=there)


@triton.jit  # type: ignore[untyped-decorator]
def _doubled(x, y, rows, columns, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """y (pictures, 2 lines, 2 columns, channels) = each cell of x (pictures, lines, columns, channels) four times.

    `rows`: lines times columns.
    """
    picture, channel, _, there, place = _tile(rows, channels, ROWS, CHANNELS)
    values = tl.load(x + place, mask=there, other=0.0)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    cell = picture * 4 * rows + row // columns * 4 * columns + row % columns * 2  # the upper left one
    target = y + cell[:, None] * channels + channel[None, :]
    tl.store(target, values, mask=there)
    tl.store(target + channels, values, mask=there)
    tl.store(target + 2 * columns * channels, values, mask=there)
    tl.store(target + (2 * columns + 1) * channels, values, mask=there)


def takes(x: Tensor) -> bool:
    """Whether the kernels are for such numbers: half precision on a GPU, and nobody wants gradients."""
    return x.is_cuda and x.dtype in (torch.float16, torch.bfloat16) and not torch.is_grad_enabled()


def is_channels_last(picture: Tensor) -> bool:
    """Whether (B, C, H, W) lies in memory as (B, H, W, C)."""
    return picture.ndim == 4 and picture.is_contiguous(memory_format=torch.channels_last)


def group_norm(x: Tensor, norm: torch.nn.GroupNorm, *, silu: bool) -> Tensor:
    """The group norm of x (B, C, H, W), channels last, and the SiLU of that if asked for."""
    pictures, channels, height, width = x.shape
    rows, tiles = height * width, triton.cdiv(channels, _CHANNELS)
    shares = min(triton.cdiv(rows, _ROWS), max(1, _ENOUGH // (pictures * tiles)))
    each = triton.cdiv(triton.cdiv(rows, shares), _ROWS) * _ROWS
    shares = triton.cdiv(rows, each)
    sums = torch.empty(pictures, shares, 2, channels, device=x.device, dtype=torch.float32)
    scale, shift = torch.empty(2, pictures, channels, device=x.device, dtype=torch.float32)
    out, members = torch.empty_like(x), channels // norm.num_groups
    with _on(x):
        _sums[(pictures, shares, tiles)](x, sums, rows, channels, each, ROWS=_ROWS, CHANNELS=_CHANNELS)
        _factors[(pictures, norm.num_groups)](
            x, sums, norm.weight, norm.bias, scale, shift, rows, channels, members, shares, norm.eps,
            SHARES=_SHARES, WIDTH=triton.next_power_of_2(members),
        )  # fmt: skip
        _scaled[(pictures, triton.cdiv(rows, _ROWS), tiles)](
            x, out, scale, shift, rows, channels, SILU=silu, ROWS=_ROWS, CHANNELS=_CHANNELS
        )
    return out


def add(y: Tensor, bias: Tensor | None, shift: Tensor | None, plus: Tensor | None) -> Tensor:
    """`bias` (C), `shift` (B, C) and `plus` (like y) are added to y (B, C, H, W) in its place; all channels last."""
    pictures, channels, height, width = y.shape
    rows = height * width
    with _on(y):
        _added[(pictures, triton.cdiv(rows, _ROWS), triton.cdiv(channels, _CHANNELS))](
            y, bias, shift, plus, rows, channels,
            BIAS=bias is not None, SHIFT=shift is not None, PLUS=plus is not None, ROWS=_ROWS, CHANNELS=_CHANNELS,
        )  # fmt: skip
    return y


def gated(x: Tensor) -> Tensor:
    """The first half of x (..., 2 D), contiguous, times the GELU of the second: (..., D)."""
    width = x.shape[-1] // 2
    out = x.new_empty(*x.shape[:-1], width)
    with _on(x):
        _gated[(x.numel() // (2 * width), triton.cdiv(width, _NUMBERS))](x, out, width, NUMBERS=_NUMBERS)
    return out


def layer_norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    """The layer norm of the rows of x (..., D), contiguous, with a weight and a bias."""
    width, out = x.shape[-1], torch.empty_like(x)
    rows, whole = x.numel() // width, triton.next_power_of_2(width)
    each = max(1, _ROW_NUMBERS // whole)
    with _on(x):
        _row_norm[(triton.cdiv(rows, each),)](
            x, out, norm.weight, norm.bias, rows, width, norm.eps, ROWS=each, WIDTH=whole
        )
    return out


def doubled(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, 2 H, 2 W), both channels last: each cell four times, the nearest neighbours."""
    pictures, channels, height, width = x.shape
    out = torch.empty(
        pictures, channels, 2 * height, 2 * width, device=x.device, dtype=x.dtype, memory_format=torch.channels_last
    )
    rows = height * width
    with _on(x):
        _doubled[(pictures, triton.cdiv(rows, _ROWS), triton.cdiv(channels, _CHANNELS))](
            x, out, rows, width, channels, ROWS=_ROWS, CHANNELS=_CHANNELS
        )
    return out


def _on(x: Tensor) -> AbstractContextManager[object]:
    """Triton starts its programs on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
