"""Files that are one part of a picture's making: VAE, text encoder, LoRA, embedding, ControlNet, upscaler, ..."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from webui.catalog.adapters import bundled_tables, lora_family, lora_format
from webui.catalog.families import KIND_NAMES, RUNNABLE_FAMILIES, Family, Kind
from webui.catalog.keys import TEXT, UNET, VAE, Detected, Keys

_NOT_ALONE = "It is a text encoder without a UNet; it is not used on its own."


def vae(keys: Keys) -> Detected | None:
    """An autoencoder on its own."""
    if keys.starts("decoder.up_blocks.", "decoder.up.", "decoder.mid") and keys.has("decoder.conv_in.weight"):
        return _vae_at(keys, "")
    if keys.has("taesd_decoder.1.weight", "decoder.layers.0.weight") or keys.all("1.weight", "3.conv.0.weight"):
        return Detected("vae", variant="TAESD", reason="It is a quick approximate decoder (TAESD), not a full VAE.")
    if keys.has("decoder.stages.1.op_list.0.main.conv.conv.bias", "encoder.project_in.conv.bias"):
        return Detected(
            "vae", variant="DC", reason="It is a deep-compression autoencoder (of Sana), not a VAE for SD1."
        )
    if keys.has("decoder.middle.0.residual.0.gamma"):
        return Detected(
            "vae", variant="video", reason="It is the VAE of a video family; this version does not run those."
        )
    return None


def _vae_at(keys: Keys, prefix: str) -> Detected:
    """An AutoencoderKL, in LDM's names or diffusers'. SD1, SD2 and SDXL share its layout: the family stays open."""
    shape = keys.shape(prefix + "decoder.conv_in.weight")
    channels = shape[1] if len(shape) > 1 else 0
    layout = "diffusers" if keys.starts(prefix + "decoder.up_blocks.") else "LDM"
    reason = ""
    if len(shape) == 5:
        reason = "It is the VAE of a video family; this version does not run those."
    elif len(shape) != 4:
        reason = "Its first layer has no shape that a VAE can have."
    elif channels != 4:
        reason = f"It has {channels} latent channels (4 are needed): it belongs to another family, SD3 or Flux perhaps."
    return Detected("vae", variant=layout, latent_channels=channels, reason=reason)


def text_encoder(keys: Keys) -> Detected | None:
    """A text encoder on its own: CLIP, T5 or a language model."""
    prefixes = ("", "text_model.", "encoder.", "transformer.text_model.")
    clip = any(keys.has(p + "embeddings.token_embedding.weight") for p in prefixes)
    t5 = keys.has("encoder.block.0.layer.0.SelfAttention.q.weight")
    language = keys.has(
        "model.layers.0.self_attn.q_proj.weight", "model.language_model.layers.0.self_attn.q_proj.weight"
    )
    open_clip = keys.has("transformer.resblocks.0.attn.in_proj_weight")
    vision = keys.starts("vision_model.")
    if not (clip or t5 or language or open_clip or vision):
        return None
    variant = "CLIP" if clip or open_clip else "T5" if t5 else "CLIP vision" if vision else "language model"
    return Detected("text_encoder", variant=variant, reason=_NOT_ALONE)


# Adapters ----------------------------------------------------------------------------------------------------------


def lora(keys: Keys) -> Detected | None:
    """A LoRA or one of its relatives (LoHa, LoKr, OFT, ...)."""
    layout = lora_format(keys)
    if layout is None:
        return None
    family, context = lora_family(keys)
    return Detected("lora", family, variant=layout, context_dim=context, reason=_of_no_use(family))


def _of_no_use(family: Family) -> str:
    """Why a network of that family can go with none of the checkpoints that run, "" when it can."""
    if family is Family.UNKNOWN or family in RUNNABLE_FAMILIES:
        return ""
    return f"It is made for {family}, which this version does not run."


MAX_VECTORS = 75  # an embedding is never split over two parts of a prompt
_WIDTHS = {768: Family.SD1, 1024: Family.SD2, 2048: Family.SDXL, 1280: Family.SDXL}


PAIRS = (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"))  # SDXL: one table for each text encoder


def embedding(keys: Keys) -> Detected | None:
    """A textual inversion: one table of vectors, or two for the two encoders of SDXL."""
    pair = next((pair for pair in PAIRS if keys.all(*pair)), None)
    if pair is not None:
        vectors = [shape[0] if len(shape) == 2 else 1 for shape in map(keys.shape, pair)]
        found = embedding_facts((vectors[0], 2048))
        if vectors[0] != vectors[1]:
            return replace(found, reason="Its two halves have different numbers of vectors.")
        return found
    names = [n for n in keys.names if n not in ("string_to_token", "name", "step")]
    if "emb_params" in names:
        table = "emb_params"
    elif len(names) == 1 and len(keys.shape(names[0])) in (1, 2) and not names[0].endswith((".weight", ".bias")):
        table = names[0]
        if keys.side(table, -1) not in _WIDTHS and not table.startswith(("<", "*")):
            return None
    else:
        return None
    shape = keys.shape(table)
    if len(shape) not in (1, 2) or 0 in shape:
        return Detected("embedding", reason="It holds no vectors.")
    found = embedding_facts(shape)
    if found.context_dim == 2048:
        return replace(found, reason="An embedding for SDXL has two tables, clip_l and clip_g; this file has one.")
    return found


def bundled_in(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    """The embeddings inside of a LoRA: name -> (vectors, width of the prompt's vectors). `shapes`: of all its tensors.

    Those that no prompt can use are left out.
    """
    found: dict[str, tuple[int, int]] = {}
    for name, tables in bundled_tables(shapes).items():
        pair = next((pair for pair in PAIRS if all(table in tables for table in pair)), None)
        table = pair[0] if pair else next((table for table in tables if not table.endswith("_out")), "")
        shape = shapes[tables[table]] if table else ()
        if len(shape) in (1, 2) and 0 not in shape:
            vectors = shape[0] if len(shape) == 2 else 1
            if vectors <= MAX_VECTORS:
                found[name] = vectors, 2048 if pair else shape[-1]
    return found


def embedding_facts(shape: tuple[int, ...]) -> Detected:
    """What follows from a table of vectors (n, width), or one vector (width,)."""
    width, vectors = shape[-1], shape[0] if len(shape) == 2 else 1
    family = _WIDTHS.get(width, Family.UNKNOWN)
    reason = _of_no_use(family)
    if vectors > MAX_VECTORS:
        reason = f"It has {vectors:,} vectors; a part of a prompt holds {MAX_VECTORS}."
    variant = "1 vector" if vectors == 1 else f"{vectors} vectors"
    return Detected("embedding", family, variant=variant, context_dim=width, reason=reason)


def control(keys: Keys) -> Detected | None:
    """ControlNets, control LoRAs, T2I adapters, IP adapters."""
    kind: Kind
    if keys.has("lora_controlnet") or keys.starts("lllite_unet"):
        kind, variant, probe = "controlnet", "control LoRA", r"attn2[._]to_k"
    elif keys.starts("control_model.") or keys.starts("zero_convs.") or keys.starts("input_hint_block."):
        kind, variant, probe = "controlnet", "LDM", r"attn2\.to_k\.weight"
    elif keys.starts("controlnet_cond_embedding.", "controlnet_down_blocks.", "controlnet_mid_block."):
        kind, variant, probe = "controlnet", "diffusers", r"attn2\.to_k\.weight"
    elif keys.starts(
        "control_all_x_embedder.",
        "control_layers.",
        "controlnet_x_embedder.",
        "controlnet_blocks.",
        "controlnet_single_blocks.",
    ):
        kind, variant, probe = "controlnet", "transformer", r"attn2\.to_k\.weight"
    elif keys.starts("body.0.resnets.", "adapter.body.", "body.0.in_conv.", "body.0.block1.") and keys.has(
        "conv_in.weight", "adapter.conv_in.weight"
    ):
        kind, variant, probe = "t2i_adapter", "", ""
    elif keys.starts("image_proj.", "ip_adapter."):
        kind, variant, probe = "ip_adapter", "", r"to_k_ip\.weight"
    else:
        return None
    context = keys.side(keys.matching(probe), 1) if probe else 0
    family = _WIDTHS.get(context, Family.UNKNOWN)
    return Detected(
        kind,
        family,
        variant=variant,
        context_dim=context,
        reason=f"It is {KIND_NAMES[kind]}; this version does not use those yet.",
    )


# Upscalers, hypernetworks ------------------------------------------------------------------------------------------


def upscaler(keys: Keys) -> Detected | None:
    """A network that enlarges finished pictures."""
    for wrapper in ("", "params_ema.", "params.", "module.", "generator."):
        found = _upscaler_at(keys, wrapper)
        if found:
            return Detected("upscaler", variant=found)
    return None


def _upscaler_at(keys: Keys, w: str) -> str | None:
    """The architecture's name; `w` is the wrapper that some trainers leave around the names."""
    if keys.has(w + "model.1.sub.0.RDB1.conv1.0.weight", w + "RRDB_trunk.0.RDB1.conv1.weight"):
        return "ESRGAN"
    if keys.all(w + "body.0.rdb1.conv1.weight", w + "conv_first.weight"):
        return "ESRGAN"
    if len(keys.shape(w + "body.0.weight")) == 4 and len(keys.shape(w + "body.1.weight")) == 1:
        return "Compact"
    if keys.has(w + "layers.0.residual_group.blocks.0.attn.relative_position_bias_table"):
        return "SwinIR"
    if keys.has(
        w + "relative_position_index_SA", w + "layers.0.residual_group.overlap_attn.relative_position_bias_table"
    ):
        return "HAT"
    if keys.has(w + "layers.0.blocks.0.attn.attns.0.rpe_biases", w + "layers.0.blocks.2.attn.attn_mask_0"):
        return "DAT"
    if keys.all(w + "to_feat.weight", w + "feats.0.safm.mfr.0.weight") or keys.has(w + "block_1.c1_r.sk.weight"):
        return "SPAN"
    return None


def face_restorer(keys: Keys) -> Detected | None:
    """A network that draws an aligned face anew. RestoreFormer has a VQ-VAE's layers and two norms in its middle."""
    for w in ("", "params_ema.", "params.", "state_dict.", "vqvae."):
        if keys.all(w + "toRGB.0.weight", w + "stylegan_decoder.style_mlp.1.weight"):
            return Detected("face_restorer", variant="GFPGAN")
        if keys.all(w + "position_emb", w + "idx_pred_layer.1.weight", w + "quantize.embedding.weight"):
            return Detected("face_restorer", variant="CodeFormer")
        if keys.all(w + "quantize.embedding.weight", w + "quant_conv.weight", w + "decoder.mid.attn_1.norm2.weight"):
            return Detected("face_restorer", variant="RestoreFormer")
    return None


def motion_module(keys: Keys) -> Detected | None:
    """AnimateDiff's layers for moving pictures."""
    if keys.starts("down_blocks.0.motion_modules.", "mid_block.motion_modules.", "up_blocks.1.motion_modules."):
        return Detected("unknown", variant="AnimateDiff", reason="It is a motion module; this version makes no videos.")
    return None


def hypernetwork(keys: Keys) -> Detected | None:
    """Small networks before the cross-attention, named by its width."""
    if keys.matching(r"^\d+\.[01]\.linear\d?\.(\d+\.)?weight$"):
        width = next((w for w in (768, 1024, 2048) if keys.starts(f"{w}.")), 0)
        family = _WIDTHS.get(width, Family.UNKNOWN)
        return Detected("hypernetwork", family, context_dim=width, reason=_of_no_use(family))
    return None


def lone_part(keys: Keys) -> Detected | None:
    """A part of a checkpoint that kept the checkpoint's names: its VAE or its text encoder."""
    if keys.starts(VAE + "decoder.") and not keys.starts(UNET):
        return _vae_at(keys, VAE)
    if keys.starts(TEXT + "transformer.", TEXT + "model.", "conditioner.embedders.") and not keys.starts(UNET):
        return Detected("text_encoder", reason=_NOT_ALONE)
    return None
