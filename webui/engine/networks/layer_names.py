"""What the layers of a model are called in the files of adapters.

Trainers name a layer after its module: kohya's with underscores (`lora_unet_down_blocks_0_...`), in the names of
diffusers or of the CompVis code; diffusers' and peft's with dots (`unet.down_blocks.0...`). For each layer of a loaded
model its possible names are written down here, and a file's layer is found by looking its name up: nothing of what a
file says is ever followed as a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from webui.engine.files.dims import UNET_PREFIX, UnetDims
from webui.engine.files.keys import unet_names

UNET = "unet"
TEXT_ENCODERS = ("te1", "te2")

_TEXT_PREFIXES = {
    "te1": (
        *("lora_te_", "lora_te1_", "text_encoder.", "te.", "te1."),
        *("text_encoders.clip_l.transformer.", "text_encoders.clip_h.transformer."),  # ComfyUI's
    ),
    "te2": ("lora_te2_", "text_encoder_2.", "te2.", "text_encoders.clip_g.transformer."),
}
# What the first text encoder LoRAs of diffusers call the projections of an attention: as in the UNet.
_OLD_PROJECTIONS = {f"self_attn.{new}_proj": f"self_attn.to_{new}" for new in ("q", "k", "v", "out")}
_UNET_PREFIXES = ("unet.", "diffusion_model.", "base_model.model.", "base_model.model.unet.", "transformer.", "")
_UNET_UNDERSCORE_PREFIXES = ("lora_unet_", "oft_unet_", "lycoris_", "lycoris_unet_")


@dataclass(frozen=True, slots=True)
class LayerPlace:
    """A layer of a loaded model: which network ("unet", "te1", "te2"), and its module's path there."""

    network: str
    path: str


def layer_places(networks: Mapping[str, Any]) -> dict[str, LayerPlace]:
    """Every name that a file may use for a layer with weights, and which layer it means.

    `networks`: the modules of a checkpoint, "unet", "te1" and, with two text encoders, "te2".
    """
    places: dict[str, LayerPlace] = {}
    for network, module in networks.items():
        dims = _dims(module) if network == UNET else None
        for path, layer in module.named_modules():
            if path and getattr(layer, "weight", None) is not None:
                names = _unet_layer(path, dims) if dims is not None else _text_layer(path, network)
                for name in names:
                    places.setdefault(name, LayerPlace(network, path))
    return places


def _unet_layer(path: str, dims: UnetDims) -> list[str]:
    ldm = unet_names(f"{path}.weight", dims)[0].removeprefix(UNET_PREFIX).removesuffix(".weight")
    dotted = list(dict.fromkeys((path, ldm)))
    names = [prefix + name for prefix in _UNET_PREFIXES for name in dotted]
    names += [prefix + name.replace(".", "_") for prefix in _UNET_UNDERSCORE_PREFIXES for name in dotted]
    if path.endswith(".to_out.0"):  # the first attention processors of diffusers left the index out
        names += [name.removesuffix(".0") for name in names if name.endswith(".to_out.0")]
    return names


def _text_layer(path: str, network: str) -> list[str]:
    short = path.removeprefix("text_model.")
    names = []
    for prefix in _TEXT_PREFIXES[network]:
        for name in (f"text_model.{short}", short):
            names.append(prefix + (name.replace(".", "_") if prefix.endswith("_") else name))
    for new, old in _OLD_PROJECTIONS.items():
        names += [name.removesuffix(new) + old for name in names if name.endswith(new)]
    return names


def _dims(unet: Any) -> UnetDims:
    """What of a UNet's dimensions the names of the CompVis code depend on."""
    config = unet.config
    return UnetDims(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        channels=tuple(config.block_out_channels),
        depths=tuple(int("CrossAttn" in kind) for kind in config.down_block_types),
        heads=(),
        layers=config.layers_per_block,
        mid_depth=1,
        context_dim=config.cross_attention_dim,
        linear=config.use_linear_projection,
        groups=config.norm_num_groups,
        ldm=True,
    )
