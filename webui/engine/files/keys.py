"""What each parameter of a network is called in a file.

The networks are diffusers' and transformers'; single files carry the names of the CompVis code (LDM). For a parameter
the functions here give the names it may have, the likeliest first. Nothing is ever renamed in a file or looked up by a
name that a file chose.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

from webui.engine.files.dims import UNET_PREFIX, TextDims, UnetDims, VaeDims

_RESNET = (
    ("norm1.", "in_layers.0."),
    ("conv1.", "in_layers.2."),
    ("time_emb_proj.", "emb_layers.1."),
    ("norm2.", "out_layers.0."),
    ("conv2.", "out_layers.3."),
    ("conv_shortcut.", "skip_connection."),
)
_UNET_ENDS = (
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("time_embedding.cond_proj.", "time_embed.cond_proj."),
    ("conv_in.", "input_blocks.0.0."),
    ("conv_norm_out.", "out.0."),
    ("conv_out.", "out.2."),
    ("add_embedding.linear_1.", "label_emb.0.0."),
    ("add_embedding.linear_2.", "label_emb.0.2."),
)
_UNET_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_UNET_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")

_VAE_ATTENTION = (
    ("group_norm.", "norm."),
    ("to_q.", "q."),
    ("to_k.", "k."),
    ("to_v.", "v."),
    ("to_out.0.", "proj_out."),
)
_VAE_ATTENTION_OF_OLD = (("to_q.", "query."), ("to_k.", "key."), ("to_v.", "value."), ("to_out.0.", "proj_attn."))
_VAE_BLOCK = re.compile(r"(encoder|decoder)\.(down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)")
_VAE_MIDDLE = re.compile(r"(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+)")

_OPEN_CLIP = (
    ("embeddings.token_embedding.", "token_embedding."),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("final_layer_norm.", "ln_final."),
    ("text_projection.weight", "text_projection"),
)
_OPEN_CLIP_LAYER = (
    ("self_attn.q_proj.", "attn.in_proj_"),
    ("self_attn.k_proj.", "attn.in_proj_"),
    ("self_attn.v_proj.", "attn.in_proj_"),
    ("self_attn.out_proj.", "attn.out_proj."),
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
)
_TEXT_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
_IN_PROJ = re.compile(r"self_attn\.([qkv])_proj\.")


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a file's tensor a parameter is: all of it, one of three equal blocks of rows, or its transpose."""

    third: int | None = None
    transposed: bool = False

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """The part's shape, of a tensor of that shape."""
        if self.transposed:
            return whole[::-1]
        divisible = self.third is not None and whole and whole[0] % 3 == 0
        return (whole[0] // 3, *whole[1:]) if divisible else whole

    def of(self, whole: Tensor) -> Tensor:
        """The part; a view where that is possible."""
        if self.transposed:
            return whole.t().contiguous()
        return whole if self.third is None else whole.chunk(3)[self.third]


WHOLE = Part()


def unet_names(parameter: str, dims: UnetDims) -> tuple[str, ...]:
    """The names of a parameter of diffusers' UNet2DConditionModel in a file with these dimensions."""
    return (UNET_PREFIX + _ldm_unet(parameter, dims),) if dims.ldm else (parameter,)


def vae_names(parameter: str, dims: VaeDims) -> tuple[str, ...]:
    """The names of a parameter of diffusers' AutoencoderKL in a file with these dimensions."""
    if dims.ldm:
        return (dims.prefix + _ldm_vae(parameter, len(dims.channels)),)
    old = parameter
    if ".attentions." in parameter:
        old = _replaced(parameter, _VAE_ATTENTION_OF_OLD)
    return dims.prefix + parameter, dims.prefix + old


def text_names(parameter: str, dims: TextDims) -> tuple[str, ...]:
    """The names of a parameter of transformers' CLIPTextModel (or the same with projection) with these dimensions."""
    name = parameter.removeprefix("text_model.")
    if dims.open_clip:
        if match := _TEXT_LAYER.fullmatch(name):
            return (f"{dims.prefix}transformer.resblocks.{match[1]}.{_start(match[2], _OPEN_CLIP_LAYER)}",)
        return (dims.prefix + _start(name, _OPEN_CLIP),)
    if name.startswith("text_projection."):
        return (dims.prefix.removesuffix("text_model.") + name,)
    return (dims.prefix + name,)


def text_part(parameter: str, dims: TextDims) -> Part:
    """What of the tensor of that name the parameter is: OpenCLIP keeps q, k and v in one, and x P for P^T x."""
    if not dims.open_clip:
        return WHOLE
    if match := _IN_PROJ.search(parameter):
        return Part(third="qkv".index(match[1]))
    return Part(transposed=parameter.startswith("text_projection."))


def _ldm_unet(parameter: str, dims: UnetDims) -> str:
    for ours, theirs in _UNET_ENDS:
        if parameter.startswith(ours):
            return theirs + parameter[len(ours) :]
    if match := _UNET_MIDDLE.fullmatch(parameter):
        kind, index, rest = match[1], int(match[2]), match[3]
        return f"middle_block.1.{rest}" if kind == "attentions" else f"middle_block.{2 * index}.{_start(rest, _RESNET)}"
    match = _UNET_BLOCK.fullmatch(parameter)
    if match is None:
        raise KeyError(parameter)
    side, level, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    # A level has `layers` residual blocks and a downsampling on the way down, one block more on the way up.
    first = level * (dims.layers + 1)
    down = side == "down"
    blocks, first = ("input_blocks", first + 1) if down else ("output_blocks", first)
    if kind == "resnets":
        return f"{blocks}.{first + index}.0.{_start(rest, _RESNET)}"
    if kind == "attentions":
        return f"{blocks}.{first + index}.1.{rest}"
    if kind == "downsamplers":
        return f"{blocks}.{first + dims.layers}.0.{rest.replace('conv.', 'op.', 1)}"
    has_attention = dims.depths[len(dims.depths) - 1 - level] > 0
    return f"{blocks}.{first + dims.layers}.{2 if has_attention else 1}.{rest}"


def _ldm_vae(parameter: str, levels: int) -> str:
    if match := _VAE_MIDDLE.fullmatch(parameter):
        side, kind, rest = match[1], match[2], match[4]
        if kind == "attentions":
            return f"{side}.mid.attn_1.{_start(rest, _VAE_ATTENTION)}"
        return f"{side}.mid.block_{int(match[3]) + 1}.{_shortcut(rest)}"
    if match := _VAE_BLOCK.fullmatch(parameter):
        side, way, level, kind, index, rest = match[1], match[2], int(match[3]), match[4], match[5], match[6]
        if way == "up":
            level = levels - 1 - level  # LDM counts the decoder's levels from full resolution
        if kind == "resnets":
            return f"{side}.{way}.{level}.block.{index}.{_shortcut(rest)}"
        return f"{side}.{way}.{level}.{'downsample' if way == 'down' else 'upsample'}.{rest}"
    return parameter.replace("conv_norm_out.", "norm_out.")


def _shortcut(rest: str) -> str:
    return rest.replace("conv_shortcut.", "nin_shortcut.")


def _start(rest: str, table: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in table:
        if rest.startswith(ours):
            return theirs + rest[len(ours) :]
    return rest


def _replaced(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in table:
        name = name.replace("." + ours, "." + theirs)
    return name
