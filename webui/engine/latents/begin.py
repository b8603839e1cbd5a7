"""What img2img and inpaint start from: the given picture as latents, its mask, and the pixels it comes back into."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from webui.engine.latents.inpainting import inpaint_channels
from webui.engine.latents.latent_mask import LatentMask, latent_mask
from webui.engine.latents.soft_inpainting import difference_mask
from webui.engine.latents.vae import SCALE, Vae
from webui.engine.sampling_plan import Start
from webui.events import Warning
from webui.inputs import InputStore
from webui.operations import Init, Inpaint
from webui.params import GenerationParams
from webui.pictures.canvas import Canvas, prepare
from webui.pictures.resizing import lanczos

LATENT_UPSCALE = "Just resize (latent upscale)"
Encode = Callable[[Image.Image], Tensor]


class Beginning:
    """The start of every batch of one job; the picture is prepared and encoded once."""

    def __init__(
        self,
        params: GenerationParams,
        inputs: InputStore,
        encode: Encode,
        device: torch.device,
        preprocess: Callable[[Image.Image], Image.Image] = lambda picture: picture,
    ) -> None:
        """`preprocess` has its say on the given picture before anything else.

        Raises `NotFound` and `BadPicture` for pictures that are not there or damaged.
        """
        if params.init is None or params.init.image is None or params.width is None or params.height is None:
            raise ValueError("the request names no picture and size to start from")
        self._init: Init = params.init
        self._inpaint: Inpaint | None = params.inpaint
        self._cells = (params.height // SCALE, params.width // SCALE)
        mask = params.inpaint and params.inpaint.mask
        self.canvas: Canvas = prepare(
            preprocess(inputs.open(params.init.image)),
            params.init,
            (params.width, params.height),
            params.inpaint,
            inputs.open(mask) if mask else None,
        )
        self._latents = self._encoded(encode).to(device)

    @property
    def notes(self) -> tuple[Warning, ...]:
        if not self.canvas.blank:
            return ()
        became = "the whole picture was drawn" if self.canvas.base is None else "the picture is as it was given"
        return (Warning("mask", f"The mask is black: there was nothing to inpaint, so {became}."),)

    def start(self, noise: Callable[[], Tensor]) -> Start:
        """For one batch. `noise` draws plain noise (B, C, h, w) of its pictures' seeds."""
        inpaint, picture = self._inpaint, self.canvas.mask
        if inpaint is None or picture is None:
            return Start(self._latents)
        soft = inpaint.soft
        drawn = latent_mask(picture, self._cells, rounded=inpaint.round_mask and soft is None).to(self._latents.device)
        latents = self._latents
        if inpaint.fill == "latent noise":
            latents = latents * (1 - drawn) + noise() * drawn
        elif inpaint.fill == "latent nothing":
            latents = latents * (1 - drawn)
        return Start(latents, LatentMask(1 - drawn, latents, soft))

    def channels(self, vae: Vae) -> Tensor:
        """What an inpainting checkpoint sees besides the latents; without a mask, all of the picture is to be drawn."""
        size = (self._cells[1] * SCALE, self._cells[0] * SCALE)
        image, mask = self.canvas.image, self.canvas.mask
        pixels = pixels_of(image if image.size == size else lanczos(image, size))
        if mask is None or self._inpaint is None:
            return inpaint_channels(vae, pixels, torch.ones_like(pixels[:, :1]))
        values = torch.from_numpy(np.asarray(mask, dtype=np.float32).copy())[None, None] / 255
        rounded = values.round() if self._inpaint.round_mask and self._inpaint.soft is None else values
        return inpaint_channels(vae, pixels, rounded, self._inpaint.conditioning_mask_strength)

    def finish(self, start: Start, made: Tensor, picture: Image.Image, number: int) -> Image.Image:
        """The picture to save: number `number` of a batch, decoded from its latents in `made` (B, C, h, w)."""
        mask = start.mask
        if mask is None or mask.soft is None:
            return self.canvas.finish(picture)
        given = mask.latents.expand_as(made)[number]
        cover = difference_mask(mask.soft, 1 - mask.kept, given, made[number], picture.size)
        return self.canvas.finish(picture, cover)

    def _encoded(self, encode: Encode) -> Tensor:
        image = self.canvas.image
        if self._init.resize_mode == LATENT_UPSCALE and self.canvas.box is None:
            cut = (image.width // SCALE * SCALE, image.height // SCALE * SCALE)
            latents = encode(image if image.size == cut else lanczos(image, (max(8, cut[0]), max(8, cut[1]))))
            return functional.interpolate(latents, self._cells, mode="bilinear")
        return encode(image)


def pixels_of(image: Image.Image) -> Tensor:
    """An RGB picture as (1, 3, H, W) in -1..1."""
    values = torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32).copy())
    return values.permute(2, 0, 1)[None] / 127.5 - 1
