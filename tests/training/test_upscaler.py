"""The embedded upscaler, and how it was converted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from training.upscaler import FLOAT16, TARGET, layers, parse, upscale
from webui.catalog.detect import detect
from webui.catalog.header import read_header

PARAM = """7767517
4 4
Input        in    0 1 data
Convolution  c0    1 1 data a 0=2 1=1 4=0 5=1 6=6
PReLU        p1    1 1 a b 0=2
Convolution  c2    1 1 b output 0=48 1=1 4=0 5=1 6=96
"""


def ncnn_bytes() -> bytes:
    """The numbers 0, 1, 2, ... in each part of the network above."""
    tag = FLOAT16.to_bytes(4, "little")
    first = tag + np.arange(6, dtype=np.float16).tobytes() + np.arange(2, dtype=np.float32).tobytes()
    last = tag + np.arange(96, dtype=np.float16).tobytes() + np.arange(48, dtype=np.float32).tobytes()
    return first + np.arange(2, dtype=np.float32).tobytes() + last


def test_layers_with_numbers_are_read_in_order() -> None:
    assert [kind for kind, _ in layers(PARAM)] == ["Convolution", "PReLU", "Convolution"]


def test_every_number_finds_its_place() -> None:
    tensors = parse(PARAM, ncnn_bytes())
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        "body.0.weight": (2, 3, 1, 1),
        "body.0.bias": (2,),
        "body.1.weight": (2,),
        "body.2.weight": (48, 2, 1, 1),
        "body.2.bias": (48,),
    }
    assert tensors["body.2.weight"].flatten()[95] == 95
    assert tensors["body.2.bias"][47] == 47


def test_files_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="left over"):
        parse(PARAM, ncnn_bytes() + b"1234")
    with pytest.raises(ValueError, match="float16"):
        parse(PARAM, b"\0" * 8 + ncnn_bytes()[8:])


def test_the_shipped_upscaler_is_recognised_and_enlarges_four_times() -> None:
    found = detect(read_header(TARGET))
    assert (found.kind, found.variant) == ("upscaler", "Compact")
    tensors = {name: tensor.float() for name, tensor in load_file(TARGET).items()}
    ramp = torch.linspace(0.2, 0.8, 16).expand(1, 3, 12, 16)
    with torch.inference_mode():
        large = upscale(tensors, ramp)
    assert large.shape == (1, 3, 48, 64)
    assert (torch.nn.functional.avg_pool2d(large, 4) - ramp).abs().mean() < 0.03  # the same picture, only larger
