"""A VAE that begins as a working, blurry one: 8x8 averages on the way down, nearest neighbour on the way up.

Trained from a random start a small VAE spends most of its time learning to copy. Here the first twelve channels of
every layer copy from the start. They hold R, -R, 1, -1, G, -G, 1, -1, B, -B, 1, -1: silu(x) - silu(-x) = x brings a
colour through an activation, and the constants keep its level through a group norm.
"""

from __future__ import annotations

from typing import Any

import torch

COPIED = 12
RESIDUAL = 0.1  # what the residual branches start with


@torch.no_grad()
def warm_start(vae: Any) -> None:
    """Change a new `AutoencoderKL` in place."""
    for part, blocks in ((vae.encoder, vae.encoder.down_blocks), (vae.decoder, vae.decoder.up_blocks)):
        for resnet in (*part.mid_block.resnets, *(r for block in blocks for r in block.resnets)):
            resnet.conv2.weight *= RESIDUAL
            resnet.conv2.bias.zero_()
            if resnet.conv_shortcut is not None:
                _copy(resnet.conv_shortcut)
        part.mid_block.attentions[0].to_out[0].weight *= RESIDUAL
        for block in blocks:
            for sampler in (getattr(block, "downsamplers", None), getattr(block, "upsamplers", None)):
                if sampler is not None:
                    _copy(sampler[0].conv, average=part is vae.encoder)
        _from_colours(part.conv_in)
        _to_colours(part.conv_out, 1.0 if part is vae.encoder else 0.85)
    vae.encoder.conv_out.weight[3] *= 10  # the fourth channel of the mean is free for detail
    vae.quant_conv.weight.copy_(torch.eye(8)[:, :, None, None])
    vae.quant_conv.bias.zero_()
    vae.quant_conv.bias[4:] = -5  # a small variance
    vae.post_quant_conv.weight.copy_(torch.eye(4)[:, :, None, None])
    vae.post_quant_conv.bias.zero_()


def _copy(conv: Any, average: bool = False) -> None:
    """The first channels copy; `average`: over 2x2, for a convolution of stride 2."""
    weight = conv.weight
    weight[:COPIED] = 0
    weight[COPIED:, :COPIED] *= 0.5
    middle = weight.shape[2] // 2
    for channel in range(COPIED):
        if average:
            weight[channel, channel, :2, :2] = 0.25
        else:
            weight[channel, channel, middle, middle] = 1
    conv.bias[:COPIED] = 0


def _from_colours(conv: Any) -> None:
    conv.weight[:COPIED] = 0
    conv.bias[:COPIED] = 0
    for colour in range(3):
        first = 4 * colour
        conv.weight[first, colour, 1, 1] = 1
        conv.weight[first + 1, colour, 1, 1] = -1
        conv.bias[first + 2], conv.bias[first + 3] = 1, -1


def _to_colours(conv: Any, gain: float) -> None:
    conv.weight *= 0.1
    conv.bias.zero_()
    for colour in range(3):
        conv.weight[colour] = 0
        conv.weight[colour, 4 * colour, 1, 1] = gain
        conv.weight[colour, 4 * colour + 1, 1, 1] = -gain
