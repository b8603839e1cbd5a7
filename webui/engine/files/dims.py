"""The dimensions of the networks in a file, read off the tensors' own shapes.

Shapes are the truth: a small model and a full-size one take the same path, in the CompVis (LDM) and SGM layouts of
single files and in the diffusers layout of folders. What shapes cannot tell (heads, normalisation groups, activation)
comes from the sidecar (NAME.yaml, metadata, config.json) and is otherwise that of the published models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from webui.catalog.families import Family
from webui.catalog.sidecar import Sidecar
from webui.errors import BadModelFile

Shapes = Mapping[str, tuple[int, ...]]

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIXES = (
    "conditioner.embedders.0.transformer.text_model.",
    "cond_stage_model.transformer.text_model.",
    "cond_stage_model.transformer.",
    "text_model.",
    "",
)
OPEN_CLIP_PREFIXES = ("conditioner.embedders.1.model.", "conditioner.embedders.0.model.", "cond_stage_model.model.")
SDXL_FAMILIES = frozenset({Family.SDXL, Family.SDXL_INPAINTING, Family.SDXL_REFINER})
SD2_FAMILIES = frozenset({Family.SD2, Family.SD2_INPAINTING})

_SD1_HEADS = 8
_SD2_HEAD_CHANNELS = 64
_GROUPS = 32  # of every published SD model
_CLIP_HEAD_CHANNELS = 64
END = 49407  # the token that ends a prompt


@dataclass(frozen=True, slots=True)
class UnetDims:
    """A UNet of residual blocks and transformers. Per level, from full resolution down: channels, transformer depth
    (0: no attention) and heads. `ldm` says which of the two key layouts the file has.
    """

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    layers: int  # residual blocks a level
    mid_depth: int
    context_dim: int
    linear: bool  # linear projections around the transformers (SD2) instead of 1x1 convolutions
    groups: int
    ldm: bool
    vector_dim: int = 0  # SDXL: what is told besides the prompt, pooled prompt and sizes together; 0: nothing
    size_dim: int = 0  # SDXL: width of the embedding of each of the sizes
    guidance_dim: int = 0  # LCM: width of the embedding of the CFG scale, which the UNet is told; 0: it is not

    def diffusers_config(self) -> dict[str, Any]:
        """Arguments of diffusers' UNet2DConditionModel. Its `attention_head_dim` is, by an old slip, the head count."""
        kinds = ["CrossAttn" if depth else "" for depth in self.depths]
        depths = [depth or 1 for depth in self.depths[:-1]]
        added = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": self.size_dim,
            "projection_class_embeddings_input_dim": self.vector_dim,
        }
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "block_out_channels": self.channels,
            "layers_per_block": self.layers,
            "cross_attention_dim": self.context_dim,
            "attention_head_dim": self.heads,
            "down_block_types": tuple(f"{kind}DownBlock2D" for kind in kinds),
            "up_block_types": tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
            "transformer_layers_per_block": (*depths, self.mid_depth),  # the last entry also serves the middle block
            "use_linear_projection": self.linear,
            "norm_num_groups": self.groups,
            **(added if self.vector_dim else {}),
            **({"time_cond_proj_dim": self.guidance_dim} if self.guidance_dim else {}),
        }


@dataclass(frozen=True, slots=True)
class VaeDims:
    """A KL autoencoder; `prefix` is what stands before its keys."""

    in_channels: int
    out_channels: int
    latent_channels: int
    channels: tuple[int, ...]
    layers: int
    groups: int
    quant_convs: bool
    ldm: bool
    prefix: str

    def diffusers_config(self) -> dict[str, Any]:
        """Arguments of diffusers' AutoencoderKL."""
        levels = len(self.channels)
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "latent_channels": self.latent_channels,
            "block_out_channels": self.channels,
            "layers_per_block": self.layers,
            "norm_num_groups": self.groups,
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "use_quant_conv": self.quant_convs,
            "use_post_quant_conv": self.quant_convs,
        }


@dataclass(frozen=True, slots=True)
class TextDims:
    """A CLIP text encoder; `prefix` is what stands before its keys.

    The last five say how its family uses it. Layers are counted from the end of the encoder as it was published.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    positions: int
    vocabulary: int
    activation: str
    prefix: str
    open_clip: bool = False  # the key layout of OpenCLIP instead of transformers'
    projection: int = 0  # width of the pooled vector; 0: none is made
    trained_skip: int = 1  # the UNet was trained with the output of this layer from the end
    dropped: int = 0  # layers at the end that are not there, for nothing reads them
    normed: bool = True  # the final layer norm follows, whichever layer is taken
    padding: int = END  # token after the one that ends the prompt

    @property
    def fixed(self) -> bool:
        """The layer is `trained_skip` whatever clip skip asks for: in SDXL, which alone takes it without the norm."""
        return not self.normed

    def transformers_config(self) -> dict[str, Any]:
        """Arguments of transformers' CLIPTextConfig."""
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "max_position_embeddings": self.positions,
            "vocab_size": self.vocabulary,
            "hidden_act": self.activation,
            "projection_dim": self.projection or self.hidden_size,
            "bos_token_id": 49406,
            "eos_token_id": END,
        }


def unet_dims(shapes: Shapes, sidecar: Sidecar | None, *, pooled: int = 0, sizes: int = 6) -> UnetDims:
    """The UNet in a file. Raises `BadModelFile` when there is none, or one of another architecture.

    `pooled` is the width of the text encoders' pooled vector, `sizes` how many numbers a UNet of SDXL is told with it.
    """
    ldm = f"{UNET_PREFIX}input_blocks.0.0.weight" in shapes
    said = sidecar.unet if sidecar else None
    levels = _ldm_levels(shapes) if ldm else _diffusers_levels(shapes)
    if not levels:
        raise _missing("a UNet that this engine knows")
    layers = {len(level) for level in levels}
    if len(layers) != 1:
        raise _odd("the UNet's levels have different numbers of blocks")
    conv_in = f"{UNET_PREFIX}input_blocks.0.0.weight" if ldm else "conv_in.weight"
    conv_out = f"{UNET_PREFIX}out.2.weight" if ldm else "conv_out.weight"
    middle = f"{UNET_PREFIX}middle_block.1" if ldm else "mid_block.attentions.0"
    channels = tuple(level[-1][0] for level in levels)
    linear = len(_side(shapes, f"{middle}.proj_in.weight")) == 2
    context = _side(shapes, f"{middle}.transformer_blocks.0.attn2.to_k.weight")[1]
    if said and said.num_heads:
        heads = (said.num_heads,) * len(channels)
    elif (said and said.num_head_channels) or linear:
        width = said.num_head_channels if said and said.num_head_channels else _SD2_HEAD_CHANNELS
        heads = tuple(max(1, c // width) for c in channels)
    else:
        heads = (_SD1_HEADS,) * len(channels)
    vector = f"{UNET_PREFIX}label_emb.0.0.weight" if ldm else "add_embedding.linear_1.weight"
    vector_dim = _side(shapes, vector)[1] if vector in shapes else 0
    guidance = f"{UNET_PREFIX}time_embed.cond_proj.weight" if ldm else "time_embedding.cond_proj.weight"
    size_dim = (vector_dim - pooled) // sizes if vector_dim else 0
    if size_dim * sizes != vector_dim - (pooled if vector_dim else 0) or size_dim < 0 or size_dim % 2:
        raise _odd(f"its UNet takes {vector_dim} numbers besides the prompt, of which {pooled} are the pooled prompt")
    return UnetDims(
        in_channels=_side(shapes, conv_in)[1],
        out_channels=_side(shapes, conv_out)[0],
        channels=channels,
        depths=tuple(level[-1][1] for level in levels),
        heads=heads,
        layers=layers.pop(),
        mid_depth=_count(shapes, f"{middle}.transformer_blocks", "norm1.weight"),
        context_dim=context,
        linear=linear,
        groups=(said.norm_num_groups if said else None) or _GROUPS,
        ldm=ldm,
        vector_dim=vector_dim,
        size_dim=size_dim,
        guidance_dim=_side(shapes, guidance)[1] if guidance in shapes else 0,
    )


def vae_dims(shapes: Shapes, sidecar: Sidecar | None, like: VaeDims | None = None) -> VaeDims:
    """The autoencoder in a file. `like`, where its channels are the same, tells what the file does not.

    Raises `BadModelFile` when there is none, or one of another architecture.
    """
    prefix = next((p for p in (VAE_PREFIX, "") if f"{p}decoder.conv_in.weight" in shapes), None)
    if prefix is None:
        raise _missing("a VAE that this engine knows")
    ldm = f"{prefix}encoder.down.0.block.0.conv1.weight" in shapes
    level, block = ("down", "block") if ldm else ("down_blocks", "resnets")
    channels, layers = [], set()
    for i in _indices(shapes, f"{prefix}encoder.{level}"):
        layers.add(_count(shapes, f"{prefix}encoder.{level}.{i}.{block}", "conv1.weight"))
        channels.append(_side(shapes, f"{prefix}encoder.{level}.{i}.{block}.0.conv1.weight")[0])
    if len(layers) != 1:
        raise _odd("the VAE's levels have different numbers of blocks")
    conv_in = _side(shapes, f"{prefix}decoder.conv_in.weight")
    same = like is not None and like.channels == tuple(channels)
    said = sidecar.vae.norm_num_groups if sidecar and sidecar.vae else None
    return VaeDims(
        in_channels=_side(shapes, f"{prefix}encoder.conv_in.weight")[1],
        out_channels=_side(shapes, f"{prefix}decoder.conv_out.weight")[0],
        latent_channels=conv_in[1],
        channels=tuple(channels),
        layers=layers.pop(),
        groups=said or (like.groups if same and like else _GROUPS),
        quant_convs=f"{prefix}quant_conv.weight" in shapes,
        ldm=ldm,
        prefix=prefix,
    )


def text_encoders(
    shapes: Shapes, sidecar: Sidecar | None, family: Family, *, second: bool = False
) -> tuple[TextDims, ...]:
    """The text encoders in a file, in the order in which their vectors are put side by side.

    `second`: the file is the `text_encoder_2` of a folder. Raises `BadModelFile` when there is none.
    """
    found = []
    clip = next((p for p in TEXT_PREFIXES if f"{p}embeddings.token_embedding.weight" in shapes), None)
    if clip is not None:
        found.append(_clip_dims(shapes, sidecar, family, clip, second=second))
    open_clip = next((p for p in OPEN_CLIP_PREFIXES if f"{p}token_embedding.weight" in shapes), None)
    if open_clip is not None:
        found.append(_open_clip_dims(shapes, sidecar, family, open_clip))
    if not found:
        raise _missing("a CLIP text encoder")
    return tuple(found)


def text_dims(shapes: Shapes, sidecar: Sidecar | None) -> TextDims:
    """The text encoder of SD1 in a file. Raises `BadModelFile` when there is none."""
    return text_encoders(shapes, sidecar, Family.SD1)[0]


def _clip_dims(shapes: Shapes, sidecar: Sidecar | None, family: Family, prefix: str, *, second: bool) -> TextDims:
    """In transformers' layout: SD1's, SDXL's first one, and any of a diffusers folder."""
    xl, sd2 = family in SDXL_FAMILIES, family in SD2_FAMILIES
    said = (sidecar.text_2 if second else sidecar.text) if sidecar else None
    vocabulary, hidden = _side(shapes, f"{prefix}embeddings.token_embedding.weight")
    projection = f"{prefix.removesuffix('text_model.')}text_projection.weight"
    return TextDims(
        hidden_size=hidden,
        intermediate_size=_side(shapes, f"{prefix}encoder.layers.0.mlp.fc1.weight")[0],
        layers=_count(shapes, f"{prefix}encoder.layers", "layer_norm1.weight"),
        heads=(said.num_attention_heads if said else None) or max(1, hidden // _CLIP_HEAD_CHANNELS),
        positions=_side(shapes, f"{prefix}embeddings.position_embedding.weight")[0],
        vocabulary=vocabulary,
        activation=(said.hidden_act if said else None) or ("gelu" if sd2 or second else "quick_gelu"),
        prefix=prefix,
        projection=_side(shapes, projection)[0] if second else 0,
        trained_skip=2 if xl or sd2 else 1,
        dropped=1 if sd2 else 0,
        normed=not xl,
        padding=0 if sd2 or second else END,
    )


def _open_clip_dims(shapes: Shapes, sidecar: Sidecar | None, family: Family, prefix: str) -> TextDims:
    """In OpenCLIP's layout: SD2's, which is used up to the last layer but one, and the one that SDXL pools with."""
    xl = family in SDXL_FAMILIES
    said = (sidecar.text_2 if xl else sidecar.text) if sidecar else None
    vocabulary, hidden = _side(shapes, f"{prefix}token_embedding.weight")
    dropped = 0 if xl else 1
    present = _count(shapes, f"{prefix}transformer.resblocks", "ln_1.weight")
    # diffusers' conversion to a single file leaves out the 24th layer of SD2's encoder, which no UNet reads.
    without_last = not xl and (hidden, present) == (1024, 23)
    return TextDims(
        hidden_size=hidden,
        intermediate_size=_side(shapes, f"{prefix}transformer.resblocks.0.mlp.c_fc.weight")[0],
        layers=present if without_last else max(1, present - dropped),
        heads=(said.num_attention_heads if said else None) or max(1, hidden // _CLIP_HEAD_CHANNELS),
        positions=_side(shapes, f"{prefix}positional_embedding")[0],
        vocabulary=vocabulary,
        activation=(said.hidden_act if said else None) or "gelu",
        prefix=prefix,
        open_clip=True,
        projection=_side(shapes, f"{prefix}text_projection")[1] if xl else 0,
        trained_skip=2,
        dropped=dropped,
        normed=not xl,
        padding=0,
    )


_Block = tuple[int, int]  # output channels, transformer depth


def _ldm_levels(shapes: Shapes) -> list[list[_Block]]:
    """input_blocks.1, .2, ... : residual blocks, and a downsampling convolution at the end of each level."""
    levels: list[list[_Block]] = [[]]
    for i in _indices(shapes, f"{UNET_PREFIX}input_blocks"):
        block = f"{UNET_PREFIX}input_blocks.{i}"
        if f"{block}.0.out_layers.3.weight" in shapes:
            depth = _count(shapes, f"{block}.1.transformer_blocks", "norm1.weight")
            levels[-1].append((_side(shapes, f"{block}.0.out_layers.3.weight")[0], depth))
        elif f"{block}.0.op.weight" in shapes:
            levels.append([])
    return levels if all(levels) else []


def _diffusers_levels(shapes: Shapes) -> list[list[_Block]]:
    levels: list[list[_Block]] = []
    for i in _indices(shapes, "down_blocks"):
        level = []
        for j in _indices(shapes, f"down_blocks.{i}.resnets"):
            depth = _count(shapes, f"down_blocks.{i}.attentions.{j}.transformer_blocks", "norm1.weight")
            level.append((_side(shapes, f"down_blocks.{i}.resnets.{j}.conv1.weight")[0], depth))
        levels.append(level)
    return levels if all(levels) else []


def _indices(shapes: Shapes, stem: str) -> Iterable[int]:
    """0, 1, 2, ... for as long as keys begin with `stem.N.`"""
    start = len(stem) + 1
    found = {key[start:].split(".", 1)[0] for key in shapes if key.startswith(stem + ".")}
    index = 0
    while str(index) in found:
        yield index
        index += 1


def _count(shapes: Shapes, stem: str, tail: str) -> int:
    """How many of stem.0.tail, stem.1.tail, ... there are without a gap."""
    count = 0
    while f"{stem}.{count}.{tail}" in shapes:
        count += 1
    return count


def _side(shapes: Shapes, name: str) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or len(shape) < 2 or 0 in shape:
        raise _missing(f'the tensor "{name}"')
    return shape


def _missing(what: str) -> BadModelFile:
    return BadModelFile(f"The file does not hold {what}.", "Choose another checkpoint, or download this one again.")


def _odd(what: str) -> BadModelFile:
    return BadModelFile(f"The model has an unknown shape: {what}.", "Choose another checkpoint.")
