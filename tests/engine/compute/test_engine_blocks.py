"""Our own layers and blocks: the mathematics of diffusers' at the same places, and fewer ways through memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from block_models import CPU, SMALL, ours, stock_unet, stock_vae, unet_call, with_weights
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.make_sd15 import UNET, VAE
from webui.engine.checkpoints.loader import meta_unet, meta_vae, use_attention
from webui.engine.compute.attention import Attention
from webui.engine.compute.blocks import Residual, SpatialTransformer, Upsampler
from webui.engine.compute.layers import Convolution, GatedLinear, Linear, fuses
from webui.engine.compute.seamless import seamless
from webui.engine.files.dims import UnetDims, VaeDims

BF16 = torch.bfloat16
needs_fusion = pytest.mark.skipif(not fuses(), reason="this processor or build of torch does not fuse in bf16")


def error(got: Tensor, wanted: Tensor) -> float:
    return float((got.float() - wanted.float()).norm() / wanted.float().norm())


@pytest.mark.parametrize("linear", [False, True])
def test_a_unet_of_our_blocks_gives_what_diffusers_gives(linear: bool) -> None:
    dims = UnetDims(**{**{f: getattr(SMALL, f) for f in SMALL.__slots__}, "linear": linear})
    own, stock = ours(dims), with_weights(stock_unet(dims))
    assert sum(isinstance(m, Residual) for m in own.modules()) == sum(
        type(m).__name__ == "ResnetBlock2D" for m in stock.modules()
    )
    assert any(isinstance(m, SpatialTransformer) for m in own.modules())
    torch.testing.assert_close(unet_call(own, torch.float32), unet_call(stock, torch.float32), atol=2e-5, rtol=2e-5)


@needs_fusion
def test_in_bf16_the_fused_unet_is_no_further_from_fp32_than_diffusers_in_bf16() -> None:
    exact = unet_call(with_weights(stock_unet(SMALL)), torch.float32)
    stock = error(unet_call(with_weights(stock_unet(SMALL), BF16), BF16), exact)
    own = ours(SMALL, BF16)
    assert 0 < error(unet_call(own, BF16), exact) < 1.1 * stock
    assert torch.equal(unet_call(own, BF16), unet_call(own, BF16)), "bit for bit the same again"


def test_a_vae_of_our_blocks_gives_what_diffusers_gives() -> None:
    dims = VaeDims(**{**{f: getattr(VAE, f) for f in VAE.__slots__}, "channels": (32, 64), "groups": 8, "layers": 1})
    own, stock = with_weights(meta_vae(dims)), with_weights(stock_vae(dims))
    kinds = Counter(type(m).__name__ for m in stock.modules())
    assert sum(isinstance(m, Residual) for m in own.modules()) == kinds["ResnetBlock2D"] > 0
    assert sum(isinstance(m, Upsampler) for m in own.modules()) == kinds["Upsample2D"] > 0
    use_attention(own, Attention(CPU, torch.float32))
    with torch.inference_mode():
        pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
        means = [vae.encode(pixels, return_dict=False)[0].mean for vae in (own, stock)]
        pictures = [vae.decode(means[1], return_dict=False)[0] for vae in (own, stock)]
    torch.testing.assert_close(*means, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(*pictures, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dims", [UNET, SMALL])
def test_parameters_keep_the_names_that_files_and_adapters_know(dims: UnetDims) -> None:
    own, stock = meta_unet(dims).state_dict(), stock_unet(dims).state_dict()
    assert {name: t.shape for name, t in own.items()} == {name: t.shape for name, t in stock.items()}


def test_our_blocks_learn_as_diffusers_do() -> None:
    """Training takes the same networks: the fused operations know no gradient, and are left out for it."""
    layers = (Linear(8, 6).bfloat16(), GatedLinear(8, 6).bfloat16(), Convolution(8, 6, 3, padding=1).bfloat16())
    for layer in layers:
        x = torch.randn(2, 8, 5, 5).bfloat16() if isinstance(layer, Convolution) else torch.randn(2, 8).bfloat16()
        layer(x).float().sum().backward()
        assert layer.weight.grad is not None
        assert float(layer.weight.grad.abs().sum()) > 0


def test_weights_in_fp32_serve_numbers_in_bf16_under_autocast() -> None:
    x = torch.randn(2, 8).bfloat16()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert Linear(8, 6)(x).dtype is GatedLinear(8, 6)(x).dtype is BF16


# One layer, in bf16 -------------------------------------------------------------------------------------------------


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(BF16)


def filled(layer: Any) -> Any:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(random(*parameter.shape) * (0.1 if parameter.ndim > 1 else 1.0))
    return layer.to(BF16).requires_grad_(False)


@needs_fusion
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_add_and_gate_in_one_go(bias: bool) -> None:
    x, plus = random(2, 9, 32), random(2, 9, 24, seed=1)
    linear, gated = filled(Linear(32, 24, bias)), filled(GatedLinear(32, 48, bias))
    with torch.inference_mode():
        exact = functional.linear(x.float(), linear.weight.float(), linear.bias.float() if bias else None)
        value, gate = functional.linear(x.float(), gated.weight.float(), gated.bias.float() if bias else None).chunk(
            2, -1
        )
        assert error(linear(x), exact) < 4e-3
        assert error(linear(x, plus), exact + plus.float()) < 4e-3
        assert error(gated(x), value * functional.gelu(gate)) < 8e-3


GEOMETRIES = {
    "as a convolution": (32, 24, 3, 1, 1, 12),
    "as a product": (256, 24, 3, 1, 1, 5),
    "of one cell": (32, 24, 1, 1, 0, 12),
    "with a stride": (32, 24, 3, 2, 1, 12),
    "without padding": (256, 24, 3, 1, 0, 6),
    "padded on one axis": (256, 24, 3, 1, (0, 1), 6),
}


@needs_fusion
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_convolutions_add_what_goes_around_them_and_the_time(geometry: tuple[Any, ...]) -> None:
    channels, out, kernel, stride, padding, side = geometry
    layer = filled(Convolution(channels, out, kernel, stride, padding)).to(memory_format=torch.channels_last)
    x = random(2, channels, side, side).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        exact = functional.conv2d(x.float(), layer.weight.float(), layer.bias.float(), stride, padding)
        plus, same = random(*exact.shape, seed=1), random(1, out, seed=2).expand(2, -1)
        each = random(2, out, seed=3)
        assert layer(x).is_contiguous(memory_format=torch.channels_last)
        assert error(layer(x), exact) < 4e-3
        assert error(layer(x, plus), exact + plus.float()) < 4e-3
        for shift in (same, each):
            shifted = exact + shift.float()[:, :, None, None]
            assert error(layer(x, None, shift), shifted) < 5e-3
            assert error(layer(x, plus, shift), shifted + plus.float()) < 6e-3


@needs_fusion
def test_a_seamless_convolution_is_padded_by_its_hook_whichever_way_it_is_computed() -> None:
    x = random(1, 256, 4, 4).contiguous(memory_format=torch.channels_last)
    network = torch.nn.Sequential(filled(Convolution(256, 8, 3, padding=1)).to(memory_format=torch.channels_last))
    with torch.inference_mode(), seamless(network, (True, False)):
        got = network(x)
    around = functional.pad(functional.pad(x.float(), (1, 1, 0, 0), mode="circular"), (0, 0, 1, 1))
    assert error(got, functional.conv2d(around, network[0].weight.float(), network[0].bias.float())) < 4e-3


@needs_fusion
def test_changed_weights_are_seen_at_once() -> None:
    """Adapters put other tensors in the place of a layer's own; nothing may be kept from before."""
    layer = filled(Convolution(256, 8, 3, padding=1)).to(memory_format=torch.channels_last)
    x = random(1, 256, 4, 4).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        before, own = layer(x), layer.weight.data
        layer.weight.data = torch.zeros_like(own)
        assert torch.equal(layer(x), layer.bias[None, :, None, None].expand_as(before))
        layer.weight.data = own
        assert torch.equal(layer(x), before)


# What a step costs, counted ------------------------------------------------------------------------------------------


class Counting(TorchDispatchMode):
    """Counts what torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[function.__name__.split(".")[0]] += 1
        return function(*args, **(kwargs or {}))


COPIES = ("clone", "copy_", "contiguous")


def counted(unet: Any, dtype: torch.dtype) -> Counter[str]:
    with Counting() as counting:
        unet_call(unet, dtype)
    return counting.calls


def test_no_step_turns_the_picture_around() -> None:
    """The guard of the UNet's speed: counts, which no machine's load changes."""
    stock, own = counted(with_weights(stock_unet(SMALL)), torch.float32), counted(ours(SMALL), torch.float32)
    assert sum(stock[name] for name in COPIES) > 5, "diffusers turns it around in every transformer"
    assert sum(own[name] for name in COPIES) <= 2 * sum(
        isinstance(m, SpatialTransformer) for m in ours(SMALL).modules()
    )


@needs_fusion
def test_a_fused_step_passes_over_memory_a_third_as_often() -> None:
    stock, own = counted(with_weights(stock_unet(SMALL), BF16), BF16), counted(ours(SMALL, BF16), BF16)
    passes = ("add", "mul", "div", "gelu", *COPIES)
    assert sum(own[name] for name in passes) * 3 <= sum(stock[name] for name in passes)
    assert own["unbind"] == 0, "no tensor is read as a list, which is how torch looks for an overload"
