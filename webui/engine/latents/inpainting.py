"""What inpainting checkpoints see besides the latents: the mask, and the picture with the masked part hidden.

Such a UNet takes 9 channels: 4 of the latents in the making, 1 of the mask (1: to be drawn), 4 of the hidden picture's
latents (Rombach et al. 2022, section 4.5, in the layout of the published checkpoints).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from webui.engine.latents.vae import SCALE, Vae


def inpaint_channels(vae: Vae, pixels: Tensor, mask: Tensor, strength: float = 1.0) -> Tensor:
    """The five channels (1, 5, H/8, W/8) for a picture and a mask.

    `pixels` (1, 3, H, W) in -1..1, `mask` (1, 1, H, W) in 0..1 with 1 where something new is drawn. `strength` is how
    far the masked part is hidden: at 0 the network sees the whole picture.
    """
    hidden = torch.lerp(pixels, pixels * (1 - mask), strength)
    latents = vae.encode_mean(hidden)
    small = functional.interpolate(mask, size=latents.shape[-2:])  # the nearest, as the checkpoints were trained
    return torch.cat((small.to(latents), latents), dim=1)


def blank_channels(vae: Vae, height: int, width: int) -> Tensor:
    """The five channels of a picture made from nothing, `height` x `width` latent cells: all of it is to be drawn."""
    pixels = torch.zeros(1, 3, height * SCALE, width * SCALE)
    return inpaint_channels(vae, pixels, torch.ones(1, 1, height * SCALE, width * SCALE))
