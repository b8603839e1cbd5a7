"""The blocks of which the networks of Stable Diffusion are made, as the engine runs them.

Mathematics, children and parameters are those of diffusers' blocks of the same place, whose names are given. What
differs is the way of the numbers: a picture stays with its channels last from the first convolution to the last (in
diffusers' every transformer turns it around, and each layer after that turns it back), and sums, biases and gates are
done by the layer before them (`webui.engine.compute.layers`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from webui.engine.compute.attention import AttentionProcessor
from webui.engine.compute.layers import Convolution, Doubling, GatedLinear, GroupNorm, LayerNorm, Linear


class Residual(torch.nn.Module):
    """ResnetBlock2D: norm, SiLU and convolution twice, the time added in between, the input added at the end."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1 = block.norm1
        self.conv1 = block.conv1
        self.time_emb_proj = block.time_emb_proj
        self.norm2 = block.norm2
        self.conv2 = block.conv2
        self.conv_shortcut = block.conv_shortcut

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        """(B, C, H, W) and, in a UNet, the time (B, T)."""
        shift = None if temb is None else self.time_emb_proj(functional.silu(temb))
        h = self.conv1(self.norm1(x, silu=True), None, shift)
        around = x if self.conv_shortcut is None else self.conv_shortcut(x)
        out: Tensor = self.conv2(self.norm2(h, silu=True), around)
        return out


class SpatialTransformer(torch.nn.Module):
    """Transformer2DModel: every cell of the picture is a token."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm = block.norm
        self.proj_in = block.proj_in
        self.transformer_blocks = block.transformer_blocks
        self.proj_out = block.proj_out

    def forward(
        self,
        x: Tensor,
        encoder_hidden_states: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor]:
        """(B, C, H, W), and the prompt (B, tokens, D)."""
        height, width = x.shape[2:]
        if isinstance(self.proj_in, torch.nn.Linear):
            tokens = self.proj_in(_tokens(self.norm(x)))
        else:
            tokens = _tokens(self.proj_in(self.norm(x)))
        for block in self.transformer_blocks:
            tokens = block(
                tokens,
                attention_mask=attention_mask,
                encoder_hidden_states=encoder_hidden_states,
                encoder_attention_mask=encoder_attention_mask,
                cross_attention_kwargs=cross_attention_kwargs,
            )
        if isinstance(self.proj_out, torch.nn.Linear):
            return (_picture(self.proj_out(tokens, _tokens(x)), height, width),)
        return (self.proj_out(_picture(tokens, height, width), x),)


class TransformerBlock(torch.nn.Module):
    """BasicTransformerBlock: attention to the picture, attention to the prompt, and a feed-forward net."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1 = block.norm1
        self.attn1 = block.attn1
        self.norm2 = block.norm2
        self.attn2 = block.attn2
        self.norm3 = block.norm3
        self.ff = block.ff

    def forward(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        **_: Any,
    ) -> Tensor:
        """(B, tokens, C), and the prompt (B, tokens of it, D)."""
        more = cross_attention_kwargs or {}
        x = _attended(self.attn1, self.norm1(x), x, attention_mask=attention_mask, **more)
        x = _attended(
            self.attn2,
            self.norm2(x),
            x,
            encoder_hidden_states=encoder_hidden_states,
            attention_mask=encoder_attention_mask,
            **more,
        )
        out: Tensor = self.ff(self.norm3(x), x)
        return out


class GatedUnit(torch.nn.Module):
    """GEGLU."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.proj = _alike(GatedLinear, block.proj)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(x)
        return out


class FeedForward(torch.nn.Module):
    """FeedForward with GEGLU. The place between the two layers was for a dropout, which no model has."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.net = torch.nn.ModuleList([GatedUnit(block.net[0]), torch.nn.Identity(), block.net[2]])

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        out: Tensor = self.net[2](self.net[0](x), plus)
        return out


class Upsampler(torch.nn.Module):
    """Upsample2D: the picture at twice its size, or at another, and a convolution."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv = block.conv
        self.enlarge = Doubling()

    def forward(self, x: Tensor, output_size: tuple[int, int] | None = None) -> Tensor:
        """(B, C, H, W) to (B, C, 2 H, 2 W), or to (B, C, *output_size)."""
        out: Tensor = self.conv(self.enlarge(x, output_size))
        return out


def with_own_blocks(network: Any) -> Any:
    """A network of diffusers, still without weights, with our layers and blocks in the places of its own.

    Blocks of a kind that Stable Diffusion does not use stay as they are. Returns the network.
    """
    for name, child in list(network.named_children()):
        setattr(network, name, _owned(with_own_blocks(child)))
    return network


def _owned(module: Any) -> Any:
    """Its replacement; the module itself where there is none."""
    kind = type(module).__name__
    if type(module) is torch.nn.Linear:
        return _alike(Linear, module)
    if type(module) is torch.nn.Conv2d:
        return _convolution(module)
    if type(module) is torch.nn.GroupNorm:
        return _group_norm(module)
    if type(module) is torch.nn.LayerNorm and module.elementwise_affine:
        return _layer_norm(module)
    if kind == "Upsample2D" and _is_plain_upsampler(module):
        return Upsampler(module)
    if kind == "ResnetBlock2D" and _is_plain_residual(module):
        return Residual(module)
    if kind == "FeedForward" and type(module.net[0]).__name__ == "GEGLU" and len(module.net) == 3:
        return FeedForward(module)
    if kind == "BasicTransformerBlock" and _is_plain_transformer(module):
        return TransformerBlock(module)
    if kind == "Transformer2DModel" and module.is_input_continuous and _all_own(module.transformer_blocks):
        return SpatialTransformer(module)
    return module


def _is_plain_residual(block: Any) -> bool:
    timeless = block.time_emb_proj is None and block.time_embedding_norm == "group"  # of a VAE's decoder
    return (
        block.upsample is None
        and block.downsample is None
        and block.output_scale_factor == 1.0
        and (block.time_embedding_norm == "default" or timeless)
        and not block.skip_time_act
        and isinstance(block.nonlinearity, torch.nn.SiLU)
    )


def _is_plain_upsampler(block: Any) -> bool:
    return (
        block.norm is None
        and block.use_conv
        and not block.use_conv_transpose
        and block.interpolate
        and block.name == "conv"
    )


def _is_plain_transformer(block: Any) -> bool:
    return (
        block.norm_type == "layer_norm"
        and block.attn2 is not None
        and not block.only_cross_attention
        and block.pos_embed is None
        and isinstance(block.ff, FeedForward)
    )


def _all_own(blocks: Any) -> bool:
    return all(isinstance(block, TransformerBlock) for block in blocks)


def _alike(kind: type[torch.nn.Linear], layer: Any) -> torch.nn.Linear:
    weight = layer.weight
    return kind(layer.in_features, layer.out_features, layer.bias is not None, device=weight.device, dtype=weight.dtype)


def _convolution(layer: Any) -> Convolution:
    return Convolution(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.bias is not None,
        layer.padding_mode,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )


def _group_norm(layer: Any) -> GroupNorm:
    place = layer.weight if layer.affine else torch.empty(0)
    return GroupNorm(
        layer.num_groups, layer.num_channels, layer.eps, layer.affine, device=place.device, dtype=place.dtype
    )


def _layer_norm(layer: Any) -> LayerNorm:
    place, bias = layer.weight, layer.bias is not None
    return LayerNorm(layer.normalized_shape, layer.eps, True, bias, device=place.device, dtype=place.dtype)


def _attended(attention: Any, x: Tensor, plus: Tensor, **named: Any) -> Tensor:
    """`plus` + attention(x); our own processor adds it on the way."""
    if isinstance(attention.processor, AttentionProcessor):
        out: Tensor = attention(x, plus=plus, **named)
        return out
    attended: Tensor = attention(x, **named)
    return attended + plus


def _tokens(picture: Tensor) -> Tensor:
    """(B, C, H, W) to (B, HW, C): the same memory, where the channels are last."""
    return picture.permute(0, 2, 3, 1).flatten(1, 2)


def _picture(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, HW, C) to (B, C, H, W), the channels last."""
    return tokens.reshape(tokens.shape[0], height, width, -1).permute(0, 3, 1, 2)
