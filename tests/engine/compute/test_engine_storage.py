"""The UNet's weights in eight bits: how near they are, what they take, and that all else works as it did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from embedded import install_embedded
from engine_runs import make_engine, pixels_of, run
from network_files import loaded, write_lora

from webui.engine import Engine
from webui.engine.compute.device import choose_device
from webui.engine.compute.layers import EIGHT_BITS, SCALE, Convolution, GatedLinear, Linear, dense_weight
from webui.engine.compute.storage import pack
from webui.engine.memory.bus import PlainBus
from webui.engine.memory.streaming import LayerStream
from webui.engine.memory.weights import network_bytes
from webui.settings import DeviceSettings, WeightStorage

CPU = torch.device("cpu")
KINDS = ["int8", "float8"]
FORMATS = {"int8": torch.int8, "float8": torch.float8_e4m3fn}


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that keeps weights as they are computed with, and has a LoRA named film."""
    folder = tmp_path_factory.mktemp("storage")
    install_embedded(folder)
    engine = make_engine(folder)
    write_lora(engine)
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=KINDS)
def small(request: Any, exact: Engine) -> Iterator[Engine]:
    """An engine that keeps weights in eight bits, beside `exact` on the same data folder."""
    engine = make_engine(exact._tools.paths.data_dir, device__weights=request.param)
    yield engine
    engine.close()


def packed(weight: torch.Tensor, kind: torch.dtype, of: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.empty_like(weight, dtype=kind)
    scale = torch.empty(weight.shape[0], *[1] * (weight.ndim - 1), dtype=of)
    pack(weight, values, scale)
    return values, scale


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize(("kind", "of_row", "of_number"), [("int8", 1 / 254, 0.0), ("float8", 2**-9 / 448, 1 / 16)])
@pytest.mark.parametrize("shape", [(6, 64), (6, 8, 3, 3)])
def test_a_weight_is_kept_as_nearly_as_its_format_says(
    kind: str, of_row: float, of_number: float, shape: tuple[int, ...]
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weight[1] *= 1e-4
    weight[2] = 0
    if weight.ndim == 4:
        weight = weight.to(memory_format=torch.channels_last)
    values, scale = packed(weight, FORMATS[kind], torch.float32)
    assert (values.dtype, values.stride()) == (FORMATS[kind], weight.stride())
    error = (values.float() * scale - weight).abs()
    largest = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
    assert bool((error <= (largest * of_row + weight.abs() * of_number) * 1.001).all())
    assert error[0].max() > 0
    assert not error[2].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_is_none_is_not_hidden(kind: str) -> None:
    weight = torch.ones(3, 4)
    weight[1, 2] = float("inf")
    weight[2, 0] = float("nan")
    values, scale = packed(weight, FORMATS[kind], torch.float16)
    assert (values.float() * scale).isnan().any(dim=1).tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("layer", "given"),
    [
        (Linear(64, 96), (2, 5, 64)),
        (GatedLinear(64, 96), (2, 5, 64)),
        (Convolution(64, 96, 3, padding=1), (2, 64, 6, 6)),
        (Convolution(64, 96, 1), (2, 64, 6, 6)),
        (Convolution(512, 64, 3, padding=1), (1, 512, 4, 4)),  # so small a picture is one product
    ],
)
def test_a_layer_computes_with_its_expanded_weight(layer: Any, given: tuple[int, ...], dtype: torch.dtype) -> None:
    small, full = type(layer).__new__(type(layer)), layer.to(dtype)
    small.__dict__ = {**layer.__dict__, "_parameters": dict(layer._parameters)}
    values, scale = packed(full.weight.detach(), torch.int8, dtype)
    small.weight = torch.nn.Parameter(values, requires_grad=False)
    small.register_parameter(SCALE, torch.nn.Parameter(scale, requires_grad=False))
    x = torch.randn(given, generator=torch.Generator().manual_seed(2)).to(dtype)
    with torch.inference_mode():
        got = small(x)
        full.weight.copy_(dense_weight(small))
        assert torch.equal(got, full(x))
    assert dense_weight(full) is full.weight


def test_the_unet_takes_a_quarter_of_fp32_and_draws_nearly_the_same(exact: Engine, small: Engine) -> None:
    kind = small.device.storage
    one, other = (pixels_of(run(engine, steps=8).images[0]) for engine in (exact, small))
    assert psnr(one, other) > {torch.int8: 28, torch.float8_e4m3fn: 18}[kind]
    assert not np.array_equal(one, other)
    unet, before = loaded(small).unet, loaded(exact).unet
    assert network_bytes(unet) < 0.3 * network_bytes(before)
    plain = {name for name, p in unet.named_parameters() if p.dtype not in EIGHT_BITS and name.endswith(".weight")}
    assert {"conv_in.weight", "conv_out.weight", "conv_norm_out.weight"} <= plain
    assert run(small, steps=8).digests == run(small, steps=8).digests
    texts = loaded(small).text_encoder.parameters()
    assert {parameter.dtype for parameter in texts} == {torch.float32}


def test_a_lora_acts_on_stored_weights_and_leaves_them_as_they_were(exact: Engine, small: Engine) -> None:
    prompt = "a red apple <lora:film:0.8>"
    plain = run(small).digests
    on = run(small, prompt=prompt)
    unet = loaded(small).unet
    assert sum(p.nbytes for p in unet.parameters()) < 0.3 * network_bytes(loaded(exact).unet)
    assert on.warnings == []
    assert on.digests != plain
    assert run(small).digests == plain
    wanted, without = (pixels_of(run(exact, **more).images[0]) for more in ({"prompt": prompt}, {}))
    assert psnr(pixels_of(on.images[0]), wanted) > psnr(wanted, without) + 3


def test_what_weights_are_kept_in_is_told(small: Engine) -> None:
    kind = {torch.int8: "int8", torch.float8_e4m3fn: "float8"}[small.device.storage]
    assert small.report().precision == f"fp32, weights in {kind}"
    assert small._tools.environment(loaded(small).baked).dtype.startswith("float32, weights ")


def test_stored_weights_come_to_a_device_layer_by_layer(small: Engine) -> None:
    run(small)
    unet = loaded(small).unet
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    prompt = torch.randn(1, 77, unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(4))

    def drawn() -> torch.Tensor:
        with torch.inference_mode():
            return unet(latents, torch.tensor([500]), prompt).sample

    before, stream = drawn(), LayerStream(PlainBus(CPU))
    stream.attach(unet)
    try:
        assert torch.equal(drawn(), before)
        assert 0 < stream.held < network_bytes(unet)
    finally:
        stream.detach()
    assert torch.equal(drawn(), before)


def test_a_device_without_the_format_keeps_weights_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = DeviceSettings(use_cpu=True, weights=WeightStorage.float8)
    assert choose_device(wanted).storage is torch.float8_e4m3fn
    monkeypatch.setattr("webui.engine.compute.device._expands", lambda *_: False)
    chosen = choose_device(wanted)
    assert chosen.storage is None
    assert "does not know float8" in chosen.reason
