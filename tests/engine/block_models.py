"""A small UNet of our blocks and the same of diffusers', with weights that keep numbers at the size of 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from webui.engine.checkpoints.loader import import_libraries, meta_unet, use_attention
from webui.engine.compute.attention import Attention
from webui.engine.files.dims import UnetDims, VaeDims

CPU = torch.device("cpu")
SMALL = UnetDims(
    in_channels=4,
    out_channels=4,
    channels=(32, 64, 64),
    depths=(1, 2, 0),
    heads=(4, 4, 4),
    layers=1,
    mid_depth=1,
    context_dim=24,
    linear=False,
    groups=8,
    ldm=True,
)


def stock_unet(dims: UnetDims) -> Any:
    import_libraries()
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**dims.diffusers_config())


def stock_vae(dims: VaeDims) -> Any:
    import_libraries()
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.device("meta"):
        return AutoencoderKL(**dims.diffusers_config())


def with_weights(network: Any, dtype: torch.dtype = torch.float32) -> Any:
    """Random weights that keep what flows through at the size of 1, the same for equal names and shapes."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in sorted(network.state_dict().items()):
        values = torch.randn(tensor.shape, generator=generator)
        fan_in = max(1, tensor[0].numel()) if tensor.ndim > 1 else 1
        values = values / fan_in**0.5 if tensor.ndim > 1 else 0.1 * values + float(name.endswith("weight"))
        state[name] = values.to(dtype)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def unet_call(unet: Any, dtype: torch.dtype, side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, side, side, generator=generator).to(dtype, memory_format=torch.channels_last)
    context = torch.randn(2, 77, int(unet.config.cross_attention_dim), generator=generator).to(dtype)
    with torch.inference_mode():
        out: Tensor = unet(x, torch.tensor([500.0, 500.0]), encoder_hidden_states=context, return_dict=False)[0]
    return out


def ours(dims: UnetDims, dtype: torch.dtype = torch.float32) -> Any:
    unet = with_weights(meta_unet(dims), dtype)
    use_attention(unet, Attention(CPU, dtype))
    return unet
