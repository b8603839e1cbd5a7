"""Writing a .safetensors file tensor by tensor, or piece by piece, so that no more than one of them is in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import IO

import torch

Specs = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]  # name -> type and shape

DTYPE_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.float64: "F64",
}


def write_safetensors(
    file: IO[bytes],
    specs: Specs,
    tensor: Callable[[str], torch.Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write header and tensors in the order of `specs`.

    `tensor(name)` is asked for each one when its turn comes. Raises OSError when the disk refuses.
    """

    def whole(name: str) -> tuple[torch.Tensor]:
        found = tensor(name)
        if tuple(found.shape) != specs[name][1]:
            raise ValueError(f"{name} is {tuple(found.shape)}, announced as {specs[name][1]}")
        return (found,)

    write_pieces(file, specs, whole, metadata)


def write_pieces(
    file: IO[bytes],
    specs: Specs,
    pieces: Callable[[str], Iterable[torch.Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write header and tensors in the order of `specs`, each in pieces of its numbers that follow one another.

    A piece is written before the next one is asked for, so all of them may be in the same memory. Raises OSError when
    the disk refuses.
    """
    file.write(_header(specs, metadata))
    for name, (dtype, shape) in specs.items():
        count = 0
        for piece in pieces(name):
            values = piece.detach().to("cpu").contiguous()
            if values.dtype is not dtype:
                raise ValueError(f"{name} is {values.dtype}, announced as {dtype}")
            file.write(values.reshape(-1).view(torch.uint8).numpy().data)
            count += values.numel()
        if count != math.prod(shape):
            raise ValueError(f"{name} has {count} numbers, announced as {shape}")


def _header(specs: Specs, metadata: Mapping[str, str] | None) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, (dtype, shape) in specs.items():
        size = dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8, as torch wants them
    return len(text).to_bytes(8, "little") + text
