"""The fields of what starts from a picture, enlarges or repairs one: from img2img to tiling.

A field of a group in `webui.operations` is named by its path, such as "init.denoising_strength"; `ui/operations.py`
says when a group is part of the request.
"""

from __future__ import annotations

from typing import get_args

from webui import names
from webui.names import SAMPLER_NAMES, SCHEDULE_NAMES
from webui.operations import Fill, ResizeMode, VaeTiling
from webui.ui.field import MODES, SAME, Field, Group, choice, flag, model, number, slider, switch

UPSCALERS = names.PIXEL_UPSCALERS  # and the networks that are found
LATENT_UPSCALERS = tuple(names.LATENT_UPSCALERS)

# Filled in by the page: what is done, and the pictures it starts from.
MODE_FIELD = Field("mode", "Mode", "mode", "What is done.", choices=MODES)
PICTURE_FIELDS = (
    Field("init.image", "Picture", "picture", "The picture to start from."),
    Field("inpaint.mask", "Mask", "picture", "What of it is drawn anew."),
    Field("sources", "Folder", "sources", "The pictures of a folder, one after the other."),
)

IMG2IMG = Group(
    "img2img",
    "Picture",
    (
        slider(
            "init.denoising_strength",
            "Denoising strength",
            (0, 1, 0.01),
            "How far the result may leave the picture: 0 keeps it, 1 forgets it. Usual: 0.3 to 0.75 (SDEdit).",
        ),
        choice(
            "init.resize_mode",
            "Resize mode",
            get_args(ResizeMode),
            "How a picture of another size becomes width x height: stretched, cut, filled at the edges, or as latents.",
        ),
        Field(
            "init.background",
            "Background",
            "text",
            "The colour behind a picture that is partly transparent, as #rrggbb.",
        ),
        number(
            "init.noise_multiplier",
            "Noise multiplier",
            (0, 1.5, 0.01),
            "Of the noise that is added at the start. Below 1 the result is smoother. Usual: 1.",
        ),
        number("init.extra_noise", "Extra noise", (0, 1, 0.01), "Added on top: more detail. Usual: 0, or below 0.1."),
        flag(
            "init.exact_steps",
            "Do exactly the steps",
            "Run as many steps as set. Off: the share of them that the denoising strength says.",
        ),
        flag("init.color_correction", "Colour correction", "Give the result the colours of the picture."),
    ),
)

INPAINT = Group(
    "inpaint",
    "Inpaint",
    (
        choice(
            "inpaint.fill",
            "Masked content",
            get_args(Fill),
            "What stands under the mask at the start: its surroundings, the picture itself, noise, or nothing.",
        ),
        number(
            "inpaint.padding",
            "Only masked padding, pixels",
            (0, 1024, 4),
            "How much around the mask is looked at, with Only masked. Usual: 32.",
        ),
        number("inpaint.blur_x", "Mask blur, across", (0, 256, 1), "How softly the mask ends, in pixels. Usual: 4."),
        number("inpaint.blur_y", "Mask blur, down", (0, 256, 1), "How softly the mask ends, in pixels. Usual: 4."),
        flag(
            "inpaint.only_masked",
            "Only masked",
            "Work on the masked part alone, at the full width and height: more detail. Off: on the whole picture.",
        ),
        flag("inpaint.invert", "Inpaint not masked", "Draw what is not masked."),
        number(
            "inpaint.conditioning_mask_strength",
            "Conditioning mask strength",
            (0, 1, 0.05),
            "How far inpainting checkpoints do not see what is masked. Usual: 1.",
        ),
        flag("inpaint.round_mask", "Hard mask on latents", "Off keeps the mask's greys on latents."),
    ),
)

SOFT = Group(
    "soft",
    "Soft inpainting",
    (
        switch("inpaint.soft", "Soft inpainting", "Blend gradually by the mask's greys, instead of at its edge."),
        number("inpaint.soft.schedule_bias", "Schedule bias", (0, 8, 0.1), "Above 1, the picture is held less early."),
        number(
            "inpaint.soft.preservation_strength",
            "Preservation strength",
            (0, 8, 0.05),
            "How much the picture is kept where the mask is grey. Usual: 0.5.",
        ),
        number(
            "inpaint.soft.transition_contrast_boost",
            "Transition contrast boost",
            (1, 32, 0.5),
            "Sharper transitions. Usual: 4.",
        ),
        number("inpaint.soft.mask_influence", "Mask influence", (0, 1, 0.05), "Of the mask on the final blend."),
        number(
            "inpaint.soft.difference_threshold",
            "Difference threshold",
            (0, 8, 0.25),
            "A change of this size is half shown. Usual: 0.5.",
        ),
        number(
            "inpaint.soft.difference_contrast",
            "Difference contrast",
            (0, 8, 0.25),
            "How sharply changes are shown or not. Usual: 2.",
        ),
    ),
    open=False,
)


def _side(side: str) -> Field:
    tip = "Pixels added at this edge and drawn; or drag the picture's edge."
    return number(f"init.frame.{side}", side.capitalize(), (0, 4096, 8), tip)


OUTPAINT = Group("outpaint", "Outpaint", tuple(_side(side) for side in ("left", "right", "top", "bottom")), open=False)

HIRES = Group(
    "hires",
    "Hires. fix",
    (
        switch("hires", "Hires. fix", "A second pass at a larger size, from the first one's picture."),
        model(
            "hires.upscaler",
            "Upscaler",
            "passes",
            "How the first picture is enlarged: as latents, by numbers alone, or by a network.",
        ),
        slider("hires.scale", "Upscale by", (1, 4, 0.05), "Times the first pass. Usual: 1.5 to 2."),
        slider(
            "hires.denoising_strength",
            "Hires denoising strength",
            (0, 1, 0.01),
            "How far the second pass may leave the first. Usual: 0.3 to 0.5, with Latent 0.55 to 0.7.",
        ),
        number("hires.steps", "Hires steps", (0, 1000, 1), "0: as many as the first pass."),
        number(
            "hires.cfg_scale",
            "Hires CFG scale",
            (0, 100, 0.5),
            "Of the second pass. Empty: the same.",
            optional=True,
        ),
        number("hires.width", "Resize width to", (0, 16384, 8), "Instead of a scale. 0: from the other side."),
        number("hires.height", "Resize height to", (0, 16384, 8), "Instead of a scale. 0: from the other side."),
        choice("hires.sampler", "Hires sampling method", (SAME, *SAMPLER_NAMES), "Of the second pass."),
        choice("hires.schedule", "Hires schedule type", (SAME, *SCHEDULE_NAMES), "Of the second pass."),
        model("hires.checkpoint", "Hires checkpoint", "checkpoints", "Of the second pass."),
        Field("hires.prompt", "Hires prompt", "text", "Of the second pass. Empty: the same."),
        Field("hires.negative_prompt", "Hires negative prompt", "text", "Of the second pass. Empty: the same."),
    ),
    open=False,
)

SD_UPSCALE = Group(
    "sd_upscale",
    "SD upscale",
    (
        switch("sd_upscale", "SD upscale", "Enlarge the picture, then draw it anew tile by tile at width x height."),
        model("sd_upscale.upscaler", "Tile upscaler", "upscalers", "How it is enlarged first."),
        slider("sd_upscale.scale", "Scale factor", (1, 8, 0.05), "Times the picture. Usual: 2."),
        slider("sd_upscale.overlap", "Tile overlap", (0, 512, 8), "Pixels between neighbours. Usual: 64."),
    ),
    open=False,
)

FACES = Group(
    "faces",
    "Face restoration",
    (
        switch("faces", "Restore faces", "Find the faces of the finished picture and have a network draw them anew."),
        model("faces.model", "Face model", "faces", "A GFPGAN, CodeFormer or RestoreFormer file in models/GFPGAN."),
        slider("faces.visibility", "Visibility", (0, 1, 0.05), "How much of the restored face is seen. Usual: 1."),
        slider(
            "faces.codeformer_weight",
            "CodeFormer weight",
            (0, 1, 0.05),
            "0 draws the best face, 1 keeps the likeness. Usual: 0.5. Other models do not know it.",
        ),
        model("faces.model_2", "Second face model", "second_faces", "Works on what the first one has made."),
        slider("faces.visibility_2", "Second visibility", (0, 1, 0.05), "Of the second model. Usual: 0."),
    ),
    open=False,
)

TILING = Group(
    "tiling",
    "Tiling",
    (
        flag("tiling_x", "Tile across", "The left edge goes on at the right one, for textures."),
        flag("tiling_y", "Tile down", "The top edge goes on at the bottom one, for textures."),
        choice(
            "vae_tiling",
            "VAE tiling",
            get_args(VaeTiling),
            "Whether the VAE works in tiles of 512 pixels, which bounds its memory: where it would not suffice, always "
            "or never. Usual: Automatic.",
        ),
    ),
    open=False,
)
