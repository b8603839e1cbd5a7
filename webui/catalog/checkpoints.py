"""Which whole model a file is: the UNets of the CompVis layout, and the other families by their marks.

The names are those by which AUTOMATIC1111's sd_models_config.py and diffusers' single_file_utils.py tell them apart.
"""

from __future__ import annotations

import re
from dataclasses import replace

from webui.catalog.families import FACTS, INPAINTING_FAMILIES, RUNNABLE_FAMILIES, Family
from webui.catalog.keys import TEXT, UNET, VAE, Detected, Keys


def ldm_checkpoint(keys: Keys) -> Detected | None:
    """A UNet of the openaimodel.py layout, with its text encoder and VAE or without."""
    prefix = UNET if keys.has(UNET + "input_blocks.0.0.weight") else ""
    first = prefix + "input_blocks.0.0.weight"
    if not keys.has(first) or not keys.has(prefix + "out.2.weight"):
        return None
    channels = keys.side(first, 1)
    family = _ldm_family(keys, prefix, channels)
    found = Detected(
        "checkpoint",
        family,
        in_channels=channels,
        latent_channels=keys.side(prefix + "out.2.weight", 0),
        context_dim=_context(keys, prefix),
        has_vae=keys.starts(VAE + "decoder."),
        guided=keys.has(prefix + "time_embed.cond_proj.weight"),
    )
    if not keys.starts(TEXT, "conditioner."):
        missing = "its text encoder is" if found.has_vae else "text encoder and VAE are"
        return replace(found, variant="UNet only", reason=f"It holds the UNet of {family}; {missing} missing.")
    if family not in RUNNABLE_FAMILIES:
        return replace(found, reason=_not_yet(family))
    if keys.has("edm_vpred.sigma_max"):
        reason = "It is a CosXL model, whose noise levels (those of EDM) this version does not run yet."
        return replace(found, variant="CosXL", reason=reason)
    return replace(found, reason=_faults(keys, found))


def _ldm_family(keys: Keys, prefix: str, channels: int) -> Family:
    xl = _xl_family(keys, prefix, channels)
    if xl is not None:
        return xl
    if keys.starts("depth_model."):
        return Family.SD2_DEPTH
    if keys.has("embedder.model.ln_final.weight") or (keys.starts("embedder.model.") and keys.starts(TEXT + "model.")):
        return Family.SD2_UNCLIP
    if keys.starts(TEXT + "roberta."):
        return Family.ALT_DIFFUSION
    open_clip = keys.has(TEXT + "model.transformer.resblocks.0.attn.in_proj_weight")
    stray = "conditioner.embedders.0.model."  # SD2.1 Turbo in the layout of SDXL's refiner
    # SD1's text encoder is 768 wide; a UNet of full size that takes 1024 is SD2, whatever its encoder's key names.
    wide = _context(keys, prefix) == 1024 and keys.side(prefix + "input_blocks.0.0.weight", 0) == 320
    if open_clip or keys.side(stray + "ln_final.weight", 0) == 1024 or wide:
        return Family.SD2_INPAINTING if channels == 9 else Family.SD2
    return {9: Family.SD1_INPAINTING, 8: Family.SD1_IP2P}.get(channels, Family.SD1)


def _xl_family(keys: Keys, prefix: str, channels: int) -> Family | None:
    """SDXL and its relatives: two text encoders, or a UNet that takes a vector besides the prompt."""
    both = keys.has("conditioner.embedders.1.model.ln_final.weight")
    one = keys.side("conditioner.embedders.0.model.ln_final.weight", 0)
    vector = keys.has(prefix + "label_emb.0.0.weight")
    context = _context(keys, prefix)
    if one not in (0, 1024) and not both:
        return Family.SDXL_REFINER
    if not both and not (vector and context not in (768, 1024)):
        return None
    if not both and context == 1280:
        return Family.SDXL_REFINER
    if keys.has("edm_mean"):
        return Family.PLAYGROUND
    if not keys.has(prefix + "middle_block.1.transformer_blocks.0.attn1.to_q.weight"):
        return Family.SSD_1B
    return {9: Family.SDXL_INPAINTING, 8: Family.SDXL_IP2P}.get(channels, Family.SDXL)


def _context(keys: Keys, prefix: str) -> int:
    """The width of the prompt's vectors, from the first cross-attention of the UNet."""
    blocks = re.escape(prefix) + r"(input_blocks|middle_block)\.[\d.]+"
    return keys.side(keys.matching(blocks + r"transformer_blocks\.0\.attn2\.to_k\.weight"), 1)


def _faults(keys: Keys, found: Detected) -> str:
    """Why a file with the key names of a family that runs cannot be of it, in a sentence."""
    family = found.family
    if len(keys.shape(UNET + "input_blocks.0.0.weight")) != 4 or len(keys.shape(UNET + "out.2.weight")) != 4:
        return f"Its UNet has the key names of {family}, but tensors of other shapes."
    channels = 9 if family in INPAINTING_FAMILIES else 4
    if found.in_channels != channels or found.latent_channels != 4:
        has = f"Its UNet takes {found.in_channels} channels and gives {found.latent_channels}"
        return f"{has}; {family} has {channels} and 4."
    width = _text_width(keys)
    if not width:
        return f"Its text encoder is missing or not the CLIP of {family}."
    if width != found.context_dim:
        return f"Its text encoder is {width} wide, its UNet expects {found.context_dim}: they do not belong together."
    if found.has_vae and keys.side(VAE + "decoder.conv_in.weight", 1) != 4:
        return "The VAE inside is damaged or not one of 4 latent channels."
    return ""


def _text_width(keys: Keys) -> int:
    """Numbers a token that all text encoders together give; 0 when there is none."""
    first = "conditioner.embedders.0.transformer."
    clip = (f"{first}text_model.", f"{first}", TEXT + "transformer.text_model.", TEXT + "transformer.")
    width = next((w for p in clip if (w := keys.side(p + "embeddings.token_embedding.weight", 1))), 0)
    for prefix in ("conditioner.embedders.1.model.", "conditioner.embedders.0.model.", TEXT + "model."):
        block = keys.side(prefix + "transformer.resblocks.0.attn.in_proj_weight", 1)
        width += keys.side(prefix + "ln_final.weight", 0) or block
    return width


def _not_yet(family: Family) -> str:
    """The reason that users read."""
    return f"It belongs to the family {family}, which this version does not run yet."


# The first rule whose names are all there decides. Names are without the prefixes below.
_NAMED: tuple[tuple[Family, tuple[str, ...]], ...] = (
    (Family.CHROMA, ("distilled_guidance_layer.in_proj.bias",)),
    (Family.FLUX3, ("early_stream_modulations.image.lin.weight",)),
    (Family.FLUX2, ("single_stream_modulation.lin.weight",)),
    (Family.FLUX2, ("double_stream_modulation_img.lin.weight",)),
    (Family.HUNYUAN, ("double_blocks.0.img_attn_qkv.weight",)),
    (Family.HUNYUAN, ("txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.weight",)),
    (Family.HUNYUAN, ("mlp_t5.0.weight", "text_embedding_padding")),
    (Family.FLUX, ("double_blocks.0.img_attn.norm.key_norm.scale",)),
    (Family.FLUX, ("double_blocks.0.img_attn.norm.key_norm.weight",)),
    (Family.FLUX, ("single_transformer_blocks.0.proj_mlp.weight", "x_embedder.weight")),
    (Family.AURA_FLOW, ("double_layers.0.attn.w1q.weight",)),
    (Family.AURA_FLOW, ("joint_transformer_blocks.0.ff_context.linear_2.weight",)),
    (Family.CASCADE, ("clip_txt_mapper.weight",)),
    (Family.CASCADE, ("clip_mapper.weight",)),
    (Family.CASCADE, ("down_blocks.1.0.channelwise.0.weight",)),
    (Family.HIDREAM, ("double_stream_blocks.0.block.adaLN_modulation.1.bias",)),
    (Family.HIDREAM, ("double_stream_blocks.0.block.norm1_context.linear.weight",)),
    (Family.SANA, ("transformer_blocks.0.ff.conv_inverted.weight",)),
    (Family.SANA, ("blocks.0.mlp.inverted_conv.conv.weight",)),
    (Family.PIXART, ("transformer_blocks.0.scale_shift_table", "adaln_single.linear.weight", "pos_embed.proj.weight")),
    (Family.PIXART, ("blocks.0.scale_shift_table", "t_block.1.weight", "y_embedder.y_proj.fc1.weight")),
    (Family.QWEN_IMAGE, ("transformer_blocks.0.img_mod.1.weight", "txt_norm.weight")),
    (Family.QWEN_IMAGE, ("txt_in.text_norm.weight",)),
    (Family.KREA2, ("txtfusion.projector.weight",)),
    (Family.LTX, ("patchify_proj.weight",)),
    (Family.MOCHI, ("blocks.0.attn.qkv_x.weight",)),
    (Family.COSMOS, ("net.blocks.0.self_attn.q_proj.weight", "net.x_embedder.proj.1.weight")),
    (Family.COSMOS, ("net.blocks.block1.blocks.0.block.attn.to_q.0.weight",)),
    (Family.WAN, ("head.modulation", "blocks.0.cross_attn.k.weight")),
    (Family.Z_IMAGE, ("layers.0.adaLN_modulation.0.weight", "cap_embedder.0.weight")),
    (Family.Z_IMAGE, ("layers.0.adaLN_modulation.0.weight",)),
    (Family.LUMINA2, ("cap_embedder.0.weight",)),
    (Family.SD3, ("joint_blocks.0.context_block.adaLN_modulation.1.bias",)),
    (Family.SD3, ("x_embedder.proj.weight", "pos_embed")),
    (Family.SD3, ("transformer_blocks.0.norm1_context.linear.weight", "pos_embed.pos_embed")),
)
_PREFIXES = (UNET, "", "transformer.")


def named_family(keys: Keys) -> Detected | None:
    """A model of a family that is known by name; whatever else the file holds, it does not run yet."""
    for prefix in _PREFIXES:
        for family, names in _NAMED:
            if keys.all(*(prefix + name for name in names)):
                return _named(keys, prefix, family)
    return None


def _named(keys: Keys, prefix: str, family: Family) -> Detected:
    variant, channels = "", 0
    if family is Family.FLUX:
        channels = keys.side(prefix + "img_in.weight", 1) or keys.side(prefix + "x_embedder.weight", 1)
        guided = keys.has(
            prefix + "guidance_in.in_layer.bias", prefix + "time_text_embed.guidance_embedder.linear_1.bias"
        )
        variant = "dev" if guided else "schnell"
        family = {384: Family.FLUX_FILL, 128: Family.FLUX_CONTROL}.get(channels, family)
    elif family is Family.SD3:
        positions = keys.side(prefix + "pos_embed", 1) or keys.side(prefix + "pos_embed.pos_embed", 1)
        large = keys.has(
            prefix + "joint_blocks.37.x_block.mlp.fc1.weight", prefix + "transformer_blocks.37.ff.net.0.proj.weight"
        )
        if large or positions == 147_456:
            family, variant = Family.SD35, "large" if large else "medium"
        else:
            variant = "medium"
    whole = keys.starts(VAE, "vae.") and keys.starts("text_encoders.", TEXT, "conditioner.", "text_encoder")
    return Detected(
        "checkpoint",
        family,
        variant=variant or ("" if whole else "transformer only"),
        in_channels=channels,
        latent_channels=FACTS[family].latent_channels,
        has_vae=keys.starts(VAE, "vae."),
        reason=_not_yet(family),
    )


def diffusers_unet(keys: Keys) -> Detected | None:
    """A lone UNet file of a diffusers folder."""
    if not keys.all("conv_in.weight", "conv_out.weight", "time_embedding.linear_1.weight"):
        return None
    context = keys.side(keys.matching(r"attentions\.0\.transformer_blocks\.0\.attn2\.to_k\.weight"), 1)
    added = keys.has("add_embedding.linear_1.weight")
    family = Family.SDXL if added else Family.SD2 if context == 1024 else Family.SD1
    return Detected(
        "checkpoint",
        family,
        variant="UNet only",
        in_channels=keys.side("conv_in.weight", 1),
        latent_channels=keys.side("conv_out.weight", 0),
        context_dim=context,
        has_vae=False,
        reason="It holds only the UNet of a diffusers model: text encoder and VAE are missing.",
    )
