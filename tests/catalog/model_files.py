"""Model files for these tests: the real key names with small shapes, written byte by byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from webui.catalog.header import Header, TensorInfo
from webui.paths import Paths

SIZES = {"F16": 2, "F32": 4, "I64": 8, "U8": 1}
Shapes = dict[str, tuple[int, ...]]

UNET = "model.diffusion_model."
TEXT = "cond_stage_model.transformer.text_model."
VAE = "first_stage_model."


def sd1(width: int = 8, channels: int = 4) -> Shapes:
    """The tensors by which SD1 is known; `width` of the prompt's vectors."""
    return {
        **unet(width, channels),
        TEXT + "embeddings.token_embedding.weight": (16, width),
        TEXT + "final_layer_norm.weight": (width,),
        **{VAE + name: shape for name, shape in ldm_vae().items()},
    }


def unet(width: int = 8, channels: int = 4, prefix: str = UNET) -> Shapes:
    return {
        prefix + "input_blocks.0.0.weight": (16, channels, 3, 3),
        prefix + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (16, width),
        prefix + "middle_block.1.transformer_blocks.0.attn1.to_q.weight": (16, 16),
        prefix + "out.2.weight": (4, 16, 3, 3),
    }


def ldm_vae(channels: int = 4) -> Shapes:
    return {
        "decoder.conv_in.weight": (16, channels, 3, 3),
        "decoder.up.0.block.0.conv1.weight": (16, 16, 3, 3),
        "encoder.conv_in.weight": (16, 3, 3, 3),
    }


def sd2(channels: int = 4) -> Shapes:
    return {
        **unet(1024, channels),
        "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight": (3, 1024),
        VAE + "decoder.conv_in.weight": (16, 4, 3, 3),
    }


def sdxl(channels: int = 4) -> Shapes:
    return {
        **unet(2048, channels),
        UNET + "label_emb.0.0.weight": (16, 16),
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": (16, 768),
        "conditioner.embedders.1.model.ln_final.weight": (1280,),
        VAE + "decoder.conv_in.weight": (16, 4, 3, 3),
    }


def kohya_lora(width: int = 768, te: str = "lora_te_") -> Shapes:
    block = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_"
    return {
        block + "attn1_to_q.lora_down.weight": (4, 320),
        block + "attn2_to_k.lora_down.weight": (4, width),
        block + "attn2_to_k.lora_up.weight": (320, 4),
        block + "attn2_to_k.alpha": (),
        te + "text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768),
    }


def header(shapes: Shapes, metadata: dict[str, str] | None = None) -> Header:
    """A header as `read_header` gives it, without a file (so that shapes may be as large as the real ones)."""
    tensors, position = {}, 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        tensors[name] = TensorInfo("F16", shape, position, position + size)
        position += size
    return Header(tensors, metadata or {}, 8, 8 + position)


def header_json(shapes: Shapes, metadata: dict[str, str] | None = None, dtype: str = "F16") -> tuple[bytes, int]:
    """The JSON of a valid header, and how many bytes of tensors follow it."""
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata is not None else {}
    position = 0
    for name, shape in shapes.items():
        size = SIZES[dtype]
        for side in shape:
            size *= side
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    return json.dumps(entries, separators=(",", ":")).encode(), position


def write_model(path: Path, shapes: Shapes, metadata: dict[str, str] | None = None) -> Path:
    """A valid .safetensors file full of zeros (a hole in the file, so that its size costs nothing)."""
    text, size = header_json(shapes, metadata)
    return write_raw(path, text, size)


def write_raw(path: Path, text: bytes, data_size: int = 0, length: int | None = None) -> Path:
    """A file with this header text, whether valid or not, a claimed length, and that many bytes behind it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write((len(text) if length is None else length).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + data_size)
    return path


def write_entries(path: Path, entries: dict[str, Any] | str, data_size: int = 0) -> Path:
    """A file whose header is this JSON."""
    text = entries if isinstance(entries, str) else json.dumps(entries)
    return write_raw(path, text.encode("utf-8", "surrogatepass"), data_size)


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_diffusers(folder: Path, width: int = 8, pipeline: str = "StableDiffusionPipeline", channels: int = 4) -> Path:
    """A small model in the diffusers layout."""
    index = {
        "_class_name": pipeline,
        "_diffusers_version": "0.42.1",
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(folder / "model_index.json", index)
    write_json(
        folder / "unet" / "config.json",
        {
            "sample_size": 16,
            "in_channels": channels,
            "out_channels": 4,
            "block_out_channels": [64, 128],
            "layers_per_block": 1,
            "cross_attention_dim": width,
            "attention_head_dim": 4,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        },
    )
    write_json(
        folder / "vae" / "config.json",
        {"block_out_channels": [32, 64, 96, 128], "latent_channels": 4, "norm_num_groups": 8, "layers_per_block": 1},
    )
    write_json(folder / "text_encoder" / "config.json", {"hidden_size": width, "num_hidden_layers": 3})
    write_json(
        folder / "scheduler" / "scheduler_config.json",
        {"prediction_type": "v_prediction", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
    )
    write_model(folder / "unet" / "diffusion_pytorch_model.safetensors", {"conv_in.weight": (64, channels, 3, 3)})
    write_model(folder / "vae" / "diffusion_pytorch_model.safetensors", {"decoder.conv_in.weight": (128, 4, 3, 3)})
    write_model(
        folder / "text_encoder" / "model.safetensors", {"text_model.embeddings.token_embedding.weight": (16, width)}
    )
    return folder


def folders(root: Path) -> Paths:
    """The usual folders below `root`, made."""
    paths = Paths.under(root)
    for folder in (*paths.checkpoints, *paths.vaes, *paths.loras, *paths.embeddings, *paths.upscalers):
        folder.mkdir(parents=True, exist_ok=True)
    return paths


def replace_file(path: Path, other: Path) -> None:
    """Put another file in its place, as a downloader does."""
    other.replace(path)
