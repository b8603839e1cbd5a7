"""Command 5: what was trained as the files that the web UI reads.

    .venv/bin/python -m training.export --work WORK --out models/Stable-diffusion/NAME.safetensors
    .venv/bin/python -m training.export --work WORK --vae-out models/VAE/NAME.safetensors

A checkpoint is one .safetensors in the key layout of the CompVis code, float16, with a .yaml beside it. Its metadata
hold the dimensions, the native size and the matrix for quick previews. The token table, two thirds of which are one
and the same row, is stored as float8: a quarter of the file otherwise.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from training.model import (
    SCALE_FACTOR,
    TEXT,
    TOKEN_ROWS,
    TOKENS,
    UNET,
    VOCABULARY,
    Vocabulary,
    alphas_cumprod,
    open_checkpoint,
)
from training.vae import load_vae, to_tensor
from webui.engine.files.dims import VAE_PREFIX, TextDims, UnetDims, VaeDims
from webui.engine.files.keys import text_names, unet_names, vae_names

TEXT_PREFIX = "cond_stage_model.transformer.text_model."
PREVIEW_PICTURES = 128
LICENCE = "MIT (weights); see NOTICE for what they were trained on"

UNET_LAYOUT = UnetDims(
    in_channels=4,
    out_channels=4,
    channels=UNET["block_out_channels"],
    depths=(0, 1, 1),
    heads=(UNET["attention_head_dim"],) * 3,
    layers=UNET["layers_per_block"],
    mid_depth=1,
    context_dim=UNET["cross_attention_dim"],
    linear=False,
    groups=32,
    ldm=True,
)
TEXT_LAYOUT = TextDims(
    hidden_size=TEXT["hidden_size"],
    intermediate_size=TEXT["intermediate_size"],
    layers=TEXT["num_hidden_layers"],
    heads=TEXT["num_attention_heads"],
    positions=TOKENS,
    vocabulary=VOCABULARY,
    activation=TEXT["hidden_act"],
    prefix=TEXT_PREFIX,
)


@dataclass(frozen=True, slots=True)
class Preview:
    """latents (as the UNet sees them) @ factors + bias = RGB in -1..1."""

    factors: list[list[float]]
    bias: list[float]


def vae_layout(vae: AutoencoderKL, prefix: str) -> VaeDims:
    """The dimensions of a VAE that is to be written in the CompVis layout."""
    config = vae.config
    return VaeDims(
        in_channels=3,
        out_channels=3,
        latent_channels=config.latent_channels,
        channels=tuple(config.block_out_channels),
        layers=config.layers_per_block,
        groups=config.norm_num_groups,
        quant_convs=True,
        ldm=True,
        prefix=prefix,
    )


def vae_tensors(vae: AutoencoderKL, prefix: str = "") -> dict[str, Tensor]:
    """A VAE's tensors under their CompVis names, float16."""
    layout = vae_layout(vae, prefix)
    named = {}
    for parameter, value in vae.state_dict().items():
        attention = ".attentions." in parameter and value.ndim == 2
        named[vae_names(parameter, layout)[0]] = (
            value[:, :, None, None] if attention else value
        )  # 1x1 convolutions there
    return {name: value.half().contiguous() for name, value in named.items()}


def token_table(rows: Tensor, vocabulary: Vocabulary) -> Tensor:
    """(49408, width) in float8: each known token's row, and row 0 for all others."""
    table = rows[0].expand(VOCABULARY, -1).clone()
    table[torch.from_numpy(vocabulary.tokens)] = rows[1:]
    return table.to(torch.float8_e4m3fn)


def checkpoint_tensors(weights: Mapping[str, Tensor], vocabulary: Vocabulary, vae: AutoencoderKL) -> dict[str, Tensor]:
    """All tensors of a checkpoint. `weights`: those of `Denoiser` by name."""
    tensors: dict[str, Tensor] = {}
    for name, value in weights.items():
        part, _, parameter = name.partition(".")
        if part == "unet":
            tensors[unet_names(parameter, UNET_LAYOUT)[0]] = value.half().contiguous()
        elif parameter.endswith(TOKEN_ROWS):
            tensors[text_names(parameter, TEXT_LAYOUT)[0]] = token_table(value, vocabulary)
        else:
            tensors[text_names(parameter, TEXT_LAYOUT)[0]] = value.half().contiguous()
    tensors |= vae_tensors(vae, VAE_PREFIX)
    tensors[f"{TEXT_PREFIX}embeddings.position_ids"] = torch.arange(TOKENS)[None]
    tensors["alphas_cumprod"] = alphas_cumprod()
    return tensors


@torch.no_grad()
def fit_preview(vae: AutoencoderKL, images: np.ndarray) -> Preview:
    """The linear map from latents to colours that is best on these uint8 pictures (N, H, W, 3), by least squares."""
    pixels = to_tensor(images)
    latents = torch.cat([vae.encode(part).latent_dist.mean * SCALE_FACTOR for part in torch.split(pixels, 16)])
    known = latents.movedim(1, -1).flatten(0, 2)
    known = torch.cat((known, torch.ones(len(known), 1)), 1).double()
    wanted = functional.avg_pool2d(pixels, 8).movedim(1, -1).flatten(0, 2).double()
    rows = [[round(v, 4) for v in row] for row in torch.linalg.lstsq(known, wanted).solution.tolist()]
    return Preview(rows[:-1], rows[-1])


def metadata(title: str, side: int, vae: AutoencoderKL, preview: Preview, facts: Mapping[str, str]) -> dict[str, str]:
    """The header's texts: what a loader may want to know without a .yaml."""
    text = {**TEXT, "vocab_size": VOCABULARY, "bos_token_id": 49406, "eos_token_id": 49407}
    return {
        "format": "pt",
        "title": title,
        "license": LICENCE,
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.title": title,
        "prediction_type": "v_prediction",
        "native_resolution": str(side),
        "unet_config": json.dumps(UNET | {"sample_size": side // 8}),
        "text_config": json.dumps(text),
        "vae_config": json.dumps(vae_config(vae, side)),
        "latent_rgb_factors": json.dumps(preview.factors),
        "latent_rgb_bias": json.dumps(preview.bias),
        **facts,
    }


def vae_config(vae: AutoencoderKL, side: int) -> dict[str, Any]:
    """The entries of a diffusers VAE config that tell one from another."""
    keys = ("in_channels", "out_channels", "latent_channels", "layers_per_block", "block_out_channels")
    config = {key: vae.config[key] for key in (*keys, "norm_num_groups", "down_block_types", "up_block_types")}
    return config | {"sample_size": side, "scaling_factor": SCALE_FACTOR}


def yaml_text(side: int, vae: AutoencoderKL) -> str:
    """The .yaml: the layout of v1-inference.yaml of the CompVis code, with this model's numbers."""
    channels, first = vae.config.block_out_channels, vae.config.block_out_channels[0]
    widths = UNET["block_out_channels"]
    groups = vae.config.norm_num_groups
    return f"""\
model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    parameterization: "v"
    linear_start: 0.00085
    linear_end: 0.0120
    timesteps: 1000
    image_size: {side // 8}
    channels: 4
    conditioning_key: crossattn
    scale_factor: {SCALE_FACTOR}
    use_ema: False

    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        image_size: {side // 8}
        in_channels: 4
        out_channels: 4
        model_channels: {widths[0]}
        attention_resolutions: [4, 2]
        num_res_blocks: {UNET["layers_per_block"]}
        channel_mult: {[width // widths[0] for width in widths]}
        num_heads: {UNET["attention_head_dim"]}
        use_spatial_transformer: True
        transformer_depth: 1
        context_dim: {UNET["cross_attention_dim"]}
        legacy: False

    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        ddconfig:
          double_z: true
          z_channels: 4
          resolution: {side}
          in_channels: 3
          out_ch: 3
          ch: {first}
          ch_mult: {[width // first for width in channels]}
          num_res_blocks: {vae.config.layers_per_block}{
        ""
        if groups == 32
        else f'''
          norm_num_groups: {groups}'''
    }
          attn_resolutions: []
          dropout: 0.0

    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder
      params:
        hidden_size: {TEXT["hidden_size"]}
        intermediate_size: {TEXT["intermediate_size"]}
        num_hidden_layers: {TEXT["num_hidden_layers"]}
        num_attention_heads: {TEXT["num_attention_heads"]}
"""


def write_checkpoint(work: Path, out: Path, vae: AutoencoderKL, side: int) -> None:
    """WORK/unet.pt and a VAE as one checkpoint, with its .yaml."""
    state = torch.load(work / "unet.pt", map_location="cpu", weights_only=True)
    vocabulary = Vocabulary(state["tokens"])
    tensors = checkpoint_tensors(dict(zip(state["names"], state["ema"], strict=True)), vocabulary, vae)
    images = np.load(work / "images.npy", mmap_mode="r")[:PREVIEW_PICTURES]
    facts = {"steps": str(state["step"])}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out, metadata(out.stem, side, vae, fit_preview(vae, images), facts))
    out.with_suffix(".yaml").write_text(yaml_text(side, vae), "utf-8")
    out.chmod(0o644)
    print(f"{out}: {len(tensors)} tensors, {out.stat().st_size / 1e6:.1f} MB")


def write_vae(vae: AutoencoderKL, out: Path, side: int) -> None:
    """A VAE alone."""
    out.parent.mkdir(parents=True, exist_ok=True)
    texts = {"format": "pt", "title": out.stem, "license": LICENCE, "vae_config": json.dumps(vae_config(vae, side))}
    save_file(vae_tensors(vae), out, texts)
    out.chmod(0o644)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="write the checkpoint here")
    parser.add_argument("--vae-out", type=Path, help="write the second VAE here")
    parser.add_argument("--like", type=Path, help="take the VAE of this checkpoint instead of WORK/vae.pt")
    parser.add_argument("--side", type=int, default=128)
    args = parser.parse_args()
    if args.out:
        vae = open_checkpoint(args.like).vae if args.like else load_vae(args.work / "vae.pt")
        write_checkpoint(args.work, args.out, vae, args.side)
    if args.vae_out:
        write_vae(load_vae(args.work / "vae_ft_mse.pt"), args.vae_out, args.side)


if __name__ == "__main__":
    main()
