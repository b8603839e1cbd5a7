"""LoRA and its relatives: which naming scheme a file uses, and which family it was made for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from webui.catalog.families import Family

BUNDLE = "bundle_emb."  # names of embeddings inside of a LoRA: bundle_emb.NAME.string_to_param.*
# What follows NAME there; "_out" is for the vectors that OneTrainer puts behind the token table.
_TABLE = re.compile(r"(.+)\.((?:emb_params|clip_[lg]|text_encoders_[01])(?:_out)?|string_to_param\.[^.]*)", re.DOTALL)


class _Keys(Protocol):
    """The part of `detect.Keys` that is asked here."""

    metadata: dict[str, str]

    def starts(self, *prefixes: str) -> bool: ...
    def matching(self, pattern: str) -> str | None: ...
    def side(self, name: str | None, axis: int) -> int: ...


# Endings of tensor names by scheme; kohya's first, because a LyCORIS file may mix schemes.
_SCHEMES: tuple[tuple[str, str], ...] = (
    ("LoRA", r"\.lora_(down|up)\.weight$"),
    ("LoRA", r"[._]lora(\.down|\.up|_A|_B|_linear_layer\.down)(\.\w+)?(\.weight)?$"),
    ("LoHa", r"\.hada_w[12]_[ab]$"),
    ("LoKr", r"\.lokr_w[12](_[ab])?$"),
    ("OFT", r"\.(oft_blocks|oft_diag|oft_R\.weight)$"),
    ("BOFT", r"\.boft_R$"),
    ("IA3", r"\.(on_input|ia3_l)$"),
    ("GLoRA", r"^(lora_|lycoris_).*\.a1\.weight$"),
    ("full difference", r"^(lora_|lycoris_|diffusion_model\.).*\.diff(_b)?$"),
    ("norm", r"\.w_norm$"),
)

_ANY_SCHEME = "|".join(pattern for _, pattern in _SCHEMES)

# Parts of names that occur in the adapters of one family alone. A pattern that begins with plain letters is found
# ten times as fast as one that begins with a choice.
_MARKS: tuple[tuple[Family, str], ...] = (
    (Family.CHROMA, r"distilled_guidance_layer"),
    (Family.WAN, r"blocks[._]\d+[._](cross|self)_attn[._][qkvo](_img)?\."),
    (Family.HUNYUAN, r"double_blocks\.\d+\.img_attn_qkv"),
    (Family.FLUX, r"double_blocks[._]\d"),
    (Family.FLUX, r"single_blocks[._]\d"),
    (Family.FLUX, r"single_transformer_blocks[._]\d"),
    (Family.QWEN_IMAGE, r"transformer_blocks[._]\d+[._](img|txt)_(mod|mlp)"),
    (Family.SD3, r"joint_blocks[._]\d"),
    (Family.SD3, r"transformer_blocks[._]\d+[._]attn[._]add_k_proj"),
    (Family.CASCADE, r"lora_(prior_unet|prior_te)_"),
    (Family.Z_IMAGE, r"layers[._]\d+[._](attention|adaLN_modulation)"),
    (Family.SDXL, r"^(lora_te2_|text_encoder_2\.|text_encoders\.clip_g\.)"),
    (Family.SDXL, r"attentions[._]\d+[._]transformer_blocks[._][2-9]"),
    (Family.SDXL, r"_block[s_0-9]*_transformer_blocks_[2-9]"),
    (Family.SDXL, r"unet_(input_blocks_[78]|output_blocks_[012])_1_transformer_blocks_1_"),
)

_BASES: tuple[tuple[str, Family], ...] = (
    ("stable-diffusion-xl", Family.SDXL),
    ("sdxl", Family.SDXL),
    ("stable-diffusion-v1", Family.SD1),
    ("sd_v1", Family.SD1),
    ("sd_1", Family.SD1),
    ("stable-diffusion-v2", Family.SD2),
    ("sd_v2", Family.SD2),
    ("stable-diffusion-3", Family.SD3),
    ("sd3", Family.SD3),
    ("flux", Family.FLUX),
)


_ARCHITECTURES: dict[Family, Family] = {
    Family.SD1_INPAINTING: Family.SD1,
    Family.SD1_IP2P: Family.SD1,
    Family.SD2_INPAINTING: Family.SD2,
    Family.SD2_DEPTH: Family.SD2,
    Family.SD2_UNCLIP: Family.SD2,
    Family.SDXL_INPAINTING: Family.SDXL,
    Family.SDXL_IP2P: Family.SDXL,
    Family.PLAYGROUND: Family.SDXL,
    Family.SSD_1B: Family.SDXL,
    Family.SD35: Family.SD3,
    Family.FLUX_FILL: Family.FLUX,
    Family.FLUX_CONTROL: Family.FLUX,
}


def architecture(family: Family) -> Family:
    """The family whose networks go with a model of `family`: an inpainting model takes the LoRAs of its base."""
    return _ARCHITECTURES.get(family, family)


def lora_format(keys: _Keys) -> str | None:
    """The naming scheme, or None when the file is no adapter of this kind."""
    if keys.matching(_ANY_SCHEME) is None:
        return None
    return next((scheme for scheme, pattern in _SCHEMES if keys.matching(pattern)), None)


def bundled_tables(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The embeddings that a LoRA brings with it: name -> what a table is called in files of embeddings -> its tensor.

    A name may hold dots. `names`: of all tensors of the file.
    """
    found: dict[str, dict[str, str]] = {}
    for tensor in names:
        if tensor.startswith(BUNDLE):
            rest = tensor.removeprefix(BUNDLE)
            known = _TABLE.fullmatch(rest)
            name, table = (known[1], known[2]) if known else rest.partition(".")[::2]
            found.setdefault(name, {})[table] = tensor
    return found


def lora_family(keys: _Keys) -> tuple[Family, int]:
    """(family, width of the prompt's vectors or 0): by block names, the cross-attention's width, the metadata."""
    for family, pattern in _MARKS:
        if keys.matching(pattern):
            return family, (_context_width(keys) or 2048) if family is Family.SDXL else 0
    context = _context_width(keys)
    if context in (1024, 2048):
        return (Family.SD2, context) if context == 1024 else (Family.SDXL, context)
    if context != 768 and keys.starts("lora_te1_"):  # SD1's only encoder has that name in some trainers' files, too
        return Family.SDXL, context or 2048
    if context or keys.matching(r"(^lora_unet_|^oft_unet_|^unet\.|^lycoris_)(down|mid|up|input|middle|output)_blocks?"):
        return _by_metadata(keys.metadata) or Family.SD1, context
    if keys.matching(r"^lora_te_text_model_encoder_layers_(1[2-9]|2\d)_"):
        return Family.SD2, 1024
    if keys.matching(r"^(lora_te_|text_encoder\.)"):
        return _by_metadata(keys.metadata) or Family.SD1, context
    return _by_metadata(keys.metadata) or Family.UNKNOWN, 0


def _context_width(keys: _Keys) -> int:
    """Inputs of the first cross-attention key projection: the width of the text encoder's output."""
    patterns: Iterable[tuple[str, int]] = (
        (r"attn2[._]to_k\.lora_down\.weight$", 1),
        (r"attn2[._](processor\.)?to_k(_lora)?[._]lora(\.down|_A)(\.\w+)?\.weight$", 1),
        (r"attn2[._](processor\.)?to_k_lora\.down\.weight$", 1),
        (r"attn2[._]to_k\.hada_w1_b$", 1),
        (r"attn2[._]to_k\.diff$", 1),
    )
    for pattern, axis in patterns:
        width = keys.side(keys.matching(pattern), axis)
        if width:
            return width
    return 0


def _by_metadata(metadata: dict[str, str]) -> Family | None:
    said = " ".join(metadata.get(key, "") for key in ("modelspec.architecture", "ss_base_model_version")).lower()[:400]
    return next((family for mark, family in _BASES if mark in said), None)
