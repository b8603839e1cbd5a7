"""A UNet and a text encoder of SD1's build, small and random, for the mathematics of networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from webui.engine.checkpoints.loader import import_libraries
from webui.engine.files.weights import Weights
from webui.engine.networks.lora import CheckpointAdapters
from webui.engine.networks.lora_file import LoraFile

WIDTH = 32  # of the prompt's vectors


def small_unet(dtype: torch.dtype = torch.float32) -> Any:
    import_libraries()
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    return unet.to(dtype).eval().requires_grad_(False)


def small_text_encoder(dtype: torch.dtype = torch.float32) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(2)
    config = CLIPTextConfig(
        vocab_size=64,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        projection_dim=WIDTH,
        bos_token_id=62,
        eos_token_id=63,
    )
    return CLIPTextModel(config).to(dtype).eval().requires_grad_(False)


def unet_output(unet: Any) -> Tensor:
    """What the UNet makes of one fixed input (1, 4, 8, 8)."""
    generator = torch.Generator().manual_seed(3)
    dtype = next(unet.parameters()).dtype
    x = torch.randn(1, 4, 8, 8, generator=generator).to(dtype)
    context = torch.randn(1, 5, WIDTH, generator=generator).to(dtype)
    with torch.no_grad():
        output: Tensor = unet(x, 500, encoder_hidden_states=context, return_dict=False)[0]
    return output.float()


def text_output(encoder: Any) -> Tensor:
    """What the text encoder makes of one fixed text (1, 8, 32)."""
    with torch.no_grad():
        output: Tensor = encoder(torch.tensor([[62, 5, 9, 14, 3, 63, 63, 63]])).last_hidden_state
    return output.float()


def adapters_of(unet: Any, encoder: Any) -> CheckpointAdapters:
    return CheckpointAdapters({"unet": unet, "te1": encoder}, torch.device("cpu"))


def lora_file(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> LoraFile:
    """Written and opened again, as a user's file is."""
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, path, metadata)
    return LoraFile(Weights(path))


def randomised(parameters: Callable[[], Any], scale: float = 0.05) -> None:
    """Give every trained tensor a value: fresh adapters begin at zero, which would hide every mistake."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


def fingerprint(module: Any) -> dict[str, tuple[int, bytes]]:
    """Every parameter's place in memory and its bytes."""
    return {
        name: (p.data_ptr(), p.data.contiguous().view(torch.uint8).numpy().tobytes())
        for name, p in module.named_parameters()
    }
