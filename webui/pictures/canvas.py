"""What img2img and inpaint do to pixels before the model draws, and after it has drawn.

`prepare` turns the given picture and mask into what is encoded; `Canvas.finish` turns what was decoded into the saved
picture: colours corrected, pasted back where only a part was drawn, the untouched pixels of the original over it.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from webui.operations import Init, Inpaint
from webui.pictures import colours, masks
from webui.pictures.resizing import Box, Size, cropped, cut, filled, framed, lanczos, resized, strips


@dataclass(frozen=True)
class Canvas:
    """A picture to draw on. All but `base` and `cover` have the size that is drawn at.

    `mask` is what the model draws (white), None without inpainting. `base` is the picture that is saved with the drawn
    part in it, and `cover` is white where the drawn part is seen; they have the size of the saved picture. `box` is
    the part of `base` that was drawn, None for all of it.
    """

    image: Image.Image
    mask: Image.Image | None = None
    base: Image.Image | None = None
    cover: Image.Image | None = None
    box: Box | None = None
    colours_of: Image.Image | None = None
    blank: bool = False  # the mask was black, so there was nothing to inpaint

    def finish(self, drawn: Image.Image, cover: Image.Image | None = None) -> Image.Image:
        """The picture to save. `cover` (the size that was drawn at) replaces the canvas's own, for gradual masks."""
        if self.colours_of is not None:
            drawn = colours.corrected(drawn, self.colours_of)
        if self.base is None or self.cover is None:
            return drawn
        if cover is not None:
            cover = self._placed(cover, Image.new("L", self.base.size))
        return masks.laid_over(self._placed(drawn, self.base.copy()), self.base, cover or self.cover)

    def _placed(self, part: Image.Image, whole: Image.Image) -> Image.Image:
        if self.box is None:
            return part
        left, top, right, bottom = self.box
        whole.paste(cropped(part, (right - left, bottom - top)), (left, top))
        return whole


def prepare(image: Image.Image, init: Init, size: Size, inpaint: Inpaint | None, mask: Image.Image | None) -> Canvas:
    """The canvas for a picture as it was stored. `mask` is the stored mask that `inpaint` names, None without one."""
    flat = flattened(image, init.background)
    drawn_part = None if inpaint is None else _mask_of(image, init, inpaint, mask)
    if init.frame is not None:
        flat = framed(flat, init.frame)
    blank = drawn_part is not None and drawn_part.getbbox() is None
    if inpaint is None or drawn_part is None or (blank and inpaint.only_masked):
        return _plain(flat, init, size, blank)
    if inpaint.only_masked:
        return _part(flat, init, size, inpaint, drawn_part)
    fitted = flat if init.resize_mode == "Just resize (latent upscale)" else resized(flat, size, init.resize_mode)
    drawn_part = resized(drawn_part, size, init.resize_mode)
    cover = masks.doubled(drawn_part)
    base = fitted if fitted.size == size else lanczos(fitted, size)
    cover = cover if cover.size == base.size else lanczos(cover, base.size)
    return Canvas(
        image=_under(fitted, drawn_part, inpaint),
        mask=drawn_part,
        base=base,
        cover=cover,
        colours_of=fitted if init.color_correction else None,
        blank=blank,
    )


def flattened(image: Image.Image, background: str) -> Image.Image:
    """RGB, on a background where the picture is transparent."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    whole = Image.new("RGB", image.size)
    for box in strips(image.size):
        layer = image.crop(box).convert("RGBA")  # what is transparent in a palette is kept in a crop
        whole.paste(Image.alpha_composite(Image.new("RGBA", layer.size, background), layer).convert("RGB"), box)
    return whole


def _plain(flat: Image.Image, init: Init, size: Size, blank: bool) -> Canvas:
    latent = init.resize_mode == "Just resize (latent upscale)"
    fitted = flat if latent else resized(flat, size, init.resize_mode)
    return Canvas(image=fitted, colours_of=fitted if init.color_correction else None, blank=blank)


def _part(flat: Image.Image, init: Init, size: Size, inpaint: Inpaint, drawn_part: Image.Image) -> Canvas:
    """Only the masked rectangle is drawn, at the full size."""
    box = masks.masked_box(drawn_part, inpaint.padding, size)
    if box is None:
        raise ValueError("a black mask has no rectangle")
    image, mask = filled(cut(flat, box), size), filled(cut(drawn_part, box), size)
    return Canvas(
        image=_under(image, mask, inpaint),
        mask=mask,
        base=flat,
        cover=drawn_part,
        box=box,
        colours_of=image if init.color_correction else None,
    )


def _under(image: Image.Image, mask: Image.Image, inpaint: Inpaint) -> Image.Image:
    """What stands under the mask at the start, as pixels. The two fills in latents begin from the same as "fill"."""
    if inpaint.fill == "original":
        return image
    return masks.fill_in(image, mask if mask.size == image.size else lanczos(mask, image.size))


def _mask_of(image: Image.Image, init: Init, inpaint: Inpaint, stored: Image.Image | None) -> Image.Image:
    """The mask over the framed picture, inverted and blurred as asked for; white is drawn."""
    rounded = inpaint.round_mask and inpaint.soft is None
    if stored is not None:
        mask = masks.from_picture(stored, rounded=rounded)
        mask = mask if mask.size == image.size else lanczos(mask, image.size)
    elif init.frame is not None:
        mask = Image.new("L", image.size)
    else:
        mask = masks.transparent_part(image)
    if inpaint.invert:
        mask = mask.point(lambda value: 255 - value)
    if init.frame is not None:
        mask = masks.with_frame(mask, init.frame)
    return masks.blurred(mask, inpaint.blur_x, inpaint.blur_y)
