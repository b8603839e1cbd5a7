"""Kernels of our own: what they calculate, where layers use them, and when they are left out.

Triton's interpreter runs the kernels themselves on a CPU, and its compiler makes programs for GPUs of them. How quick
those are only a GPU can tell (test_engine_cuda.py, benchmarks/gpu.py).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from block_models import CPU, SMALL, ours, unet_call
from torch import Tensor
from torch.nn import functional

from webui.engine.compute.kernels import check, kernels_for
from webui.engine.compute.layers import Convolution, Doubling, GatedLinear, GroupNorm, LayerNorm, use_kernels
from webui.paths import REPO_ROOT
from webui.settings import Settings

BESIDE = Path(sys.prefix) / "triton"  # where `app.py test` puts it
HAS_TRITON = BESIDE.exists() or importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is for Linux on x86-64")


class TorchKernels:
    """The same operations by torch, on any device; counts them."""

    def __init__(self) -> None:
        self.calls = {"group_norm": 0, "layer_norm": 0, "add": 0, "gated": 0, "doubled": 0}

    def takes(self, x: Tensor) -> bool:
        return True

    def is_channels_last(self, picture: Tensor) -> bool:
        return picture.ndim == 4

    def group_norm(self, x: Tensor, norm: torch.nn.GroupNorm, *, silu: bool) -> Tensor:
        self.calls["group_norm"] += 1
        y = functional.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return functional.silu(y) if silu else y

    def layer_norm(self, x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
        self.calls["layer_norm"] += 1
        return functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)

    def add(self, y: Tensor, bias: Tensor | None, shift: Tensor | None, plus: Tensor | None) -> Tensor:
        self.calls["add"] += 1
        for part in (bias, shift):
            y = y if part is None else y + part[..., None, None]
        return y if plus is None else y + plus

    def gated(self, x: Tensor) -> Tensor:
        self.calls["gated"] += 1
        value, gate = x.chunk(2, -1)
        return value * functional.gelu(gate)

    def doubled(self, x: Tensor) -> Tensor:
        self.calls["doubled"] += 1
        return functional.interpolate(x, scale_factor=2.0)


class WrongSum(TorchKernels):
    def add(self, y: Tensor, bias: Tensor | None, shift: Tensor | None, plus: Tensor | None) -> Tensor:
        return super().add(y, None, shift, plus)


def told_by(script: str, *words: str, **environment: str) -> Any:
    """What a script of this folder says, run where Triton is."""
    paths = os.pathsep.join((str(REPO_ROOT), str(BESIDE)))
    surroundings = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, str(Path(__file__).with_name(script)), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_triton
@pytest.mark.parametrize("capability", ["75", "90"])
def test_the_kernels_compile_for_a_gpu_and_move_sixteen_bytes_at_once(capability: str, tmp_path: Path) -> None:
    found = told_by("kernel_builds.py", capability, TRITON_CACHE_DIR=str(tmp_path))
    assert [name for name, (_, stores) in found.items() if not stores] == ["sums", "factors"], (
        "they write next to nothing"
    )
    assert [name for name, (loads, _) in found.items() if not loads] == ["factors"]


@needs_triton
def test_the_kernels_calculate_what_torch_does_and_round_once() -> None:
    """Odd sizes, channels that fill no block, many parts to add up, and values far from zero, against float64."""
    errors = told_by("kernel_errors.py", TRITON_INTERPRET="1")
    assert len(errors) == 31
    for case, (error, rounding) in errors.items():
        assert error <= 1.01 * rounding + 1e-6, case


def test_a_unet_with_kernels_gives_what_it_gives_without() -> None:
    unet, kernels = ours(SMALL), TorchKernels()
    expected = unet_call(unet, torch.float32)
    use_kernels(unet, kernels)
    torch.testing.assert_close(unet_call(unet, torch.float32), expected, atol=2e-5, rtol=2e-5)
    kinds = {GroupNorm: "group_norm", LayerNorm: "layer_norm", Convolution: "add", GatedLinear: "gated"}
    kinds |= {Doubling: "doubled"}
    assert kernels.calls == {
        name: sum(isinstance(layer, kind) for layer in unet.modules()) for kind, name in kinds.items()
    }
    assert min(kernels.calls.values()) > 0
    use_kernels(unet, None)
    assert torch.equal(unet_call(unet, torch.float32), expected)


def test_a_convolution_without_anything_to_add_asks_no_kernel() -> None:
    layer, kernels = Convolution(4, 6, 3, bias=False), TorchKernels()
    use_kernels(layer, kernels)
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(layer(x), functional.conv2d(x, layer.weight))
    assert kernels.calls["add"] == 0


def test_a_picture_that_does_not_double_is_enlarged_by_torch() -> None:
    """At sizes that are no multiple of 64 pixels a level of the UNet is a cell less than twice the one below."""
    layer, kernels = Doubling(), TorchKernels()
    use_kernels(layer, kernels)
    x = torch.randn(1, 4, 5, 6)
    assert torch.equal(layer(x, (9, 12)), functional.interpolate(x, size=(9, 12)))
    assert kernels.calls["doubled"] == 0
    assert torch.equal(layer(x, (10, 12)), layer(x))
    assert kernels.calls["doubled"] == 2


def test_a_cpu_has_no_use_for_them() -> None:
    kernels, status = kernels_for(CPU, torch.bfloat16, wanted=True)
    assert kernels is None
    assert "CUDA" in status.reason


@pytest.mark.parametrize(
    ("dtype", "wanted", "reason"),
    [(torch.float32, True, "half precision"), (torch.float16, False, "settings")],
)
def test_it_is_said_why_a_gpu_does_without(dtype: torch.dtype, wanted: bool, reason: str) -> None:
    kernels, status = kernels_for(torch.device("cuda"), dtype, wanted=wanted)
    assert kernels is None
    assert not status.available
    assert reason in status.reason


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine's GPU may well be able to")
def test_where_they_fail_the_log_says_so_and_torch_does_it(caplog: pytest.LogCaptureFixture) -> None:
    kernels, status = kernels_for(torch.device("cuda"), torch.float16, wanted=True)
    assert kernels is None
    assert status.reason
    assert "torch's own are" in caplog.text


def test_a_wrong_result_is_found_at_the_start() -> None:
    check(TorchKernels(), CPU, torch.float32)
    with pytest.raises(ArithmeticError, match="sum: wrong result"):
        check(WrongSum(), CPU, torch.float32)


def test_they_are_on_unless_someone_says_otherwise() -> None:
    assert Settings().device.kernels
