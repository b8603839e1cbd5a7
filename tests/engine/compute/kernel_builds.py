"""The Triton kernels, compiled for GPUs that are not here: prints {kernel: [loads 16 bytes at once, stores so]}.

What the sizes of SD1.5 make of the arguments is told as Triton sees it: multiples of 16, and constants.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from webui.engine.compute import triton_kernels as kernels

HALF, FLOAT, WHOLE, FIXED = "*fp16", "*fp32", "i32", "constexpr"
TILE = {"ROWS": 64, "CHANNELS": 64}
PICTURE = {"rows": WHOLE, "channels": WHOLE}
SUMMANDS = {"y": HALF, "bias": HALF, "shift": HALF, "plus": HALF}
BUILDS: dict[str, tuple[Any, dict[str, str], dict[str, Any]]] = {
    "sums": (kernels._sums, {"x": HALF, "sums": FLOAT, **PICTURE, "each": WHOLE}, TILE),
    "factors": (
        kernels._factors,
        {"x": HALF, "sums": FLOAT, "weight": HALF, "bias": HALF, "scale": FLOAT, "shift": FLOAT, **PICTURE}
        | {"width": WHOLE, "shares": WHOLE, "eps": "fp32"},
        {"SHARES": 32, "WIDTH": 16},
    ),
    "scaled": (
        kernels._scaled,
        {"x": HALF, "y": HALF, "scale": FLOAT, "shift": FLOAT, **PICTURE},
        {"SILU": True, **TILE},
    ),
    "added": (kernels._added, {**SUMMANDS, **PICTURE}, {"BIAS": True, "SHIFT": True, "PLUS": True, **TILE}),
    "bias": (
        kernels._added,
        {"y": HALF, "bias": HALF, **PICTURE},
        {"shift": None, "plus": None, "BIAS": True, "SHIFT": False, "PLUS": False, **TILE},
    ),
    "row_norm": (
        kernels._row_norm,
        {"x": HALF, "y": HALF, "weight": HALF, "bias": HALF, "rows": WHOLE, "width": WHOLE, "eps": "fp32"},
        {"ROWS": 4, "WIDTH": 512},
    ),
    "doubled": (
        kernels._doubled,
        {"x": HALF, "y": HALF, "rows": WHOLE, "columns": WHOLE, "channels": WHOLE},
        TILE,
    ),
    "gated": (kernels._gated, {"x": HALF, "y": HALF, "width": WHOLE}, {"NUMBERS": 1024}),
}
ODD = {"factors": ("width", "shares", "eps"), "row_norm": ("eps",)}  # no multiples of 16


def build(name: str, capability: int) -> str:
    """The PTX."""
    kernel, given, constants = BUILDS[name]
    names = [parameter.name for parameter in kernel.params]
    signature = given | dict.fromkeys(constants, FIXED)
    even = [one for one in given if one not in ODD.get(name, ())]
    attributes = {(names.index(one),): [["tt.divisibility", 16]] for one in even}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    text: str = triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["ptx"]
    return text


if __name__ == "__main__":
    found = {}
    for name in BUILDS:
        ptx = build(name, int(sys.argv[1]))
        found[name] = ["ld.global.v4" in ptx, "st.global.v4" in ptx]
    print(json.dumps(found))
