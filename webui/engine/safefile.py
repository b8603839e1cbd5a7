"""Writing a .safetensors file tensor by tensor, so that no more than one of them is in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import IO

import torch

DTYPE_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
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
    specs: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    tensor: Callable[[str], torch.Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write header and tensors in the order of `specs` (name -> type and shape).

    `tensor(name)` is asked for each one when its turn comes. Raises OSError when the disk refuses.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, (dtype, shape) in specs.items():
        size = dtype.itemsize
        for side in shape:
            size *= side
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8, as torch wants them
    file.write(len(text).to_bytes(8, "little") + text)
    for name, (dtype, shape) in specs.items():
        values = tensor(name).detach().to("cpu").contiguous()
        if values.dtype is not dtype or tuple(values.shape) != shape:
            raise ValueError(f"{name} is {values.dtype} {tuple(values.shape)}, announced as {dtype} {shape}")
        file.write(values.reshape(-1).view(torch.uint8).numpy().data)
