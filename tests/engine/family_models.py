"""Small checkpoints of every family, with the published layout and key names and random weights.

`write_checkpoint` makes a single file; `reference` reads it the way diffusers does, by diffusers' own conversion, into
diffusers' own pipeline. What the two have in common is the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from webui.catalog.families import Family
from webui.engine.checkpoints.loader import meta_text_encoder, meta_unet, meta_vae
from webui.engine.files.dims import TextDims, UnetDims, VaeDims
from webui.engine.files.keys import text_names, text_part, unet_names, vae_names
from webui.paths import PACKAGE_DATA

SIDE = 64  # pixels: the size that the files say they were trained at
_L = TextDims(
    hidden_size=32,
    intermediate_size=64,
    layers=3,
    heads=2,
    positions=77,
    vocabulary=49408,
    activation="quick_gelu",
    prefix="cond_stage_model.transformer.text_model.",
)
_SGM_L = replace(_L, prefix="conditioner.embedders.0.transformer.text_model.", trained_skip=2, normed=False)
_G = TextDims(
    hidden_size=48,
    intermediate_size=96,
    layers=4,
    heads=3,
    positions=77,
    vocabulary=49408,
    activation="gelu",
    prefix="conditioner.embedders.1.model.",
    open_clip=True,
    projection=40,
    trained_skip=2,
    normed=False,
    padding=0,
)
_H = replace(_G, prefix="cond_stage_model.model.", projection=0, normed=True, dropped=1, layers=3)
_VAE = VaeDims(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    channels=(32, 32, 32, 64),
    layers=1,
    groups=8,
    quant_convs=True,
    ldm=True,
    prefix="first_stage_model.",
)


def _unet(context: int, **fields: Any) -> UnetDims:
    usual = {
        "in_channels": 4,
        "out_channels": 4,
        "channels": (32, 64),
        "depths": (1, 1),
        "heads": (2, 4),
        "layers": 1,
        "mid_depth": 1,
        "context_dim": context,
        "linear": True,
        "groups": 8,
        "ldm": True,
    }
    return UnetDims(**{**usual, **fields})


_XL = {"depths": (0, 2), "mid_depth": 2, "size_dim": 8}


@dataclass(frozen=True)
class Recipe:
    """One small model: its networks, and the entries and marks of its file."""

    family: Family
    unet: UnetDims
    texts: tuple[TextDims, ...]
    prediction: str = "eps"
    marks: tuple[str, ...] = ()


RECIPES: dict[str, Recipe] = {
    "sd1-inpainting": Recipe(Family.SD1_INPAINTING, _unet(32, in_channels=9, linear=False), (_L,)),
    "sd1-lcm": Recipe(Family.SD1, _unet(32, linear=False, guidance_dim=16), (_L,)),
    "sd2": Recipe(Family.SD2, _unet(48), (_H,)),
    "sd2-v": Recipe(Family.SD2, _unet(48), (_H,), "v"),
    "sd2-zero-snr": Recipe(Family.SD2, _unet(48), (_H,), "v", ("ztsnr",)),
    "sd2-inpainting": Recipe(Family.SD2_INPAINTING, _unet(48, in_channels=9), (_H,)),
    "sdxl": Recipe(Family.SDXL, _unet(80, **_XL, vector_dim=40 + 6 * 8), (_SGM_L, _G)),
    "sdxl-v": Recipe(Family.SDXL, _unet(80, **_XL, vector_dim=40 + 6 * 8), (_SGM_L, _G), marks=("v_pred", "ztsnr")),
    "sdxl-inpainting": Recipe(
        Family.SDXL_INPAINTING, _unet(80, **_XL, in_channels=9, vector_dim=40 + 6 * 8), (_SGM_L, _G)
    ),
    "sdxl-refiner": Recipe(
        Family.SDXL_REFINER,
        _unet(48, channels=(32, 64, 64), depths=(0, 2, 0), heads=(2, 4, 4), mid_depth=2, size_dim=8,
              vector_dim=40 + 5 * 8),
        (replace(_G, prefix="conditioner.embedders.0.model."),),
    ),
}  # fmt: skip


def write_checkpoint(path: Path, recipe: Recipe, seed: int = 0) -> Path:
    """The single file of a recipe."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = dict(_tensors(recipe, generator))
    tensors |= {mark: torch.zeros(0) for mark in recipe.marks}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, _metadata(recipe))
    return path


def _metadata(recipe: Recipe) -> dict[str, str]:
    """What no shape tells of a small model: heads, groups, the native size."""
    entries: dict[str, Any] = {"unet_config": recipe.unet.diffusers_config(), "vae_config": _VAE.diffusers_config()}
    for dims in recipe.texts:
        second = bool(dims.projection)
        entries["text_2_config" if second else "text_config"] = dims.transformers_config()
    said = {key: json.dumps(value) for key, value in entries.items()}
    said["native_resolution"] = str(SIDE)
    if not recipe.marks or recipe.family is Family.SD2:
        said["prediction_type"] = recipe.prediction
    return said


def _tensors(recipe: Recipe, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    for parameter, tensor in meta_unet(recipe.unet).state_dict().items():
        yield unet_names(parameter, recipe.unet)[0], _random(parameter, tensor.shape, generator)
    for parameter, tensor in meta_vae(_VAE).state_dict().items():
        name, shape = vae_names(parameter, _VAE)[0], tuple(tensor.shape)
        if ".attn_1." in name and len(shape) == 2:
            shape = (*shape, 1, 1)  # in LDM these are 1x1 convolutions
        yield name, _random(parameter, shape, generator)
    for dims in recipe.texts:
        yield from _text_tensors(dims, generator)


def _text_tensors(dims: TextDims, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """With q, k and v in one tensor where the layout wants that, and with the layers that no UNet reads."""
    whole = replace(dims, layers=dims.layers + dims.dropped)
    thirds: dict[str, dict[int, Tensor]] = {}
    for parameter, tensor in meta_text_encoder(whole).state_dict().items():
        values, part = _random(parameter, tensor.shape, generator), text_part(parameter, whole)
        name = text_names(parameter, whole)[0]
        if part.third is not None:
            thirds.setdefault(name, {})[part.third] = values
        else:
            yield name, values.t().contiguous() if part.transposed else values
    for name, parts in thirds.items():
        yield name, torch.cat([parts[0], parts[1], parts[2]])
    if dims.open_clip:
        yield f"{dims.prefix}logit_scale", torch.tensor(4.6)
        if dims.dropped:
            yield f"{dims.prefix}text_projection", torch.randn(dims.hidden_size, dims.hidden_size, generator=generator)


def _random(parameter: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    values = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return 0.1 * values + (1.0 if parameter.endswith("weight") else 0.0)
    fan_in = 1
    for side in shape[1:]:
        fan_in *= side
    return values if "embedding" in parameter and "embeddings." in parameter else values / fan_in**0.5


# What diffusers makes of the file ------------------------------------------------------------------------------------


def reference(path: Path, recipe: Recipe) -> Any:
    """diffusers' pipeline of the family on the file's weights, by diffusers' own conversion of names."""
    import diffusers
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
    from safetensors.torch import load_file

    tensors = load_file(path)
    unet = diffusers.UNet2DConditionModel.from_config({**recipe.unet.diffusers_config(), "sample_size": 64})
    state = convert_ldm_unet_checkpoint(dict(tensors), unet.config)
    if recipe.unet.guidance_dim:  # which that conversion does not know
        state["time_embedding.cond_proj.weight"] = tensors["model.diffusion_model.time_embed.cond_proj.weight"]
    unet.load_state_dict(state)
    vae = diffusers.AutoencoderKL.from_config(
        {**_VAE.diffusers_config(), "scaling_factor": 0.13025 if "sdxl" in recipe.family.name.lower() else 0.18215}
    )
    vae.load_state_dict(convert_ldm_vae_checkpoint(dict(tensors), vae.config))
    encoders = {
        ("text_encoder_2" if dims.projection else "text_encoder"): _text(tensors, dims) for dims in recipe.texts
    }
    shared = {"unet": unet.eval(), "vae": vae.eval(), "scheduler": _scheduler(recipe)}
    if recipe.family in (Family.SDXL, Family.SDXL_INPAINTING, Family.SDXL_REFINER):
        kind: Any = {
            Family.SDXL: diffusers.StableDiffusionXLPipeline,
            Family.SDXL_INPAINTING: diffusers.StableDiffusionXLInpaintPipeline,
            Family.SDXL_REFINER: diffusers.StableDiffusionXLImg2ImgPipeline,
        }[recipe.family]
        refiner = {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}
        pipeline = kind(
            **shared,
            text_encoder=encoders.get("text_encoder"),
            text_encoder_2=encoders["text_encoder_2"],
            tokenizer=_tokenizer("<|endoftext|>") if "text_encoder" in encoders else None,
            tokenizer_2=_tokenizer("!"),
            add_watermarker=False,
            **(refiner if recipe.family is Family.SDXL_REFINER else {}),
        )
    else:
        kind = diffusers.StableDiffusionPipeline
        if recipe.unet.guidance_dim:
            kind = diffusers.LatentConsistencyModelPipeline
        elif recipe.unet.in_channels == 9:
            kind = diffusers.StableDiffusionInpaintPipeline
        pipeline = kind(
            **shared,
            text_encoder=encoders["text_encoder"],
            tokenizer=_tokenizer("!" if recipe.texts[0].padding == 0 else "<|endoftext|>"),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _text(tensors: dict[str, Tensor], dims: TextDims) -> Any:
    import transformers
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint

    kind = transformers.CLIPTextModelWithProjection if dims.projection else transformers.CLIPTextModel
    model = kind(transformers.CLIPTextConfig(**dims.transformers_config()))
    if dims.open_clip:
        converted = convert_open_clip_checkpoint(model, tensors, prefix=dims.prefix)
    else:
        converted = convert_ldm_clip_checkpoint(tensors, remove_prefix=dims.prefix.removesuffix("text_model."))
    wanted = model.state_dict()
    fitting = {name if name in wanted else name.removeprefix("text_model."): value for name, value in converted.items()}
    model.load_state_dict({name: value for name, value in fitting.items() if name in wanted})
    return model.eval()


def _scheduler(recipe: Recipe) -> Any:
    """Euler on integer timesteps from the noisiest, as our own sampler can be told to run; LCM's own for an LCM."""
    from diffusers import EulerDiscreteScheduler, LCMScheduler

    if recipe.unet.guidance_dim:
        return LCMScheduler()
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        prediction_type="v_prediction" if recipe.prediction == "v" or "v_pred" in recipe.marks else "epsilon",
        rescale_betas_zero_snr="ztsnr" in recipe.marks,
        steps_offset=1,  # of no effect from the noisiest; diffusers warns without it
    )


def _tokenizer(padding: str) -> Any:
    import transformers

    words = PACKAGE_DATA / "clip"
    return transformers.CLIPTokenizer(
        str(words / "vocab.json"), str(words / "merges.txt"), model_max_length=77, pad_token=padding
    )
