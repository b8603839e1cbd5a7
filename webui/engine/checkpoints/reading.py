"""From a checkpoint's files to plans: which networks are inside, of which family, and which tensor goes where.

Everything about a new checkpoint that can be wrong is found out here, before the old one goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from webui.catalog import ModelFile, Sidecar
from webui.catalog.detect import detect
from webui.catalog.families import Family
from webui.catalog.sidecar import merged, read_metadata
from webui.engine.checkpoints.loader import Plan, plan_text_encoder, plan_unet, plan_vae
from webui.engine.files.dims import SDXL_FAMILIES, TextDims, UnetDims, VaeDims, text_encoders, unet_dims, vae_dims
from webui.engine.files.weights import Weights, open_weights
from webui.engine.latents.preview import SDXL_SCALE_FACTOR
from webui.errors import BadModelFile
from webui.sampling import Prediction, sigma_table

DEFAULT_SCALE_FACTOR = 0.18215  # of SD1's and SD2's latents


@dataclass(frozen=True, slots=True)
class Opened:
    """The open files of a checkpoint; `texts` are the encoders' files by the name of their folder."""

    unet: Weights
    vae: Weights
    texts: tuple[tuple[str, Weights], ...]
    sidecar: Sidecar | None

    @property
    def all(self) -> tuple[Weights, ...]:
        return (self.unet, self.vae, *(weights for _, weights in self.texts))


@dataclass(frozen=True, slots=True)
class Plans:
    """All that is to be read of a checkpoint, checked against its tensors, and what kind of model it is."""

    family: Family
    prediction: Prediction
    prediction_known: bool  # False: the family's usual one is assumed
    zero_terminal_snr: bool
    unet: Plan
    texts: tuple[tuple[Plan, TextDims], ...]
    baked: VaeDims | None  # the VAE inside, where there is one
    baked_names: set[str]
    dims: UnetDims

    def bytes(self, dtype: torch.dtype, storage: torch.dtype | None = None) -> int:
        """What UNet and text encoders will take in memory, in that number format; the UNet's weights in `storage`."""
        texts: int = sum(p.numel() for plan, _ in self.texts for p in plan.module.parameters())
        unet: int = sum(p.numel() for p in self.unet.module.parameters())
        return texts * dtype.itemsize + unet * (storage or dtype).itemsize

    def unused(self) -> tuple[str, ...]:
        """Names of the file's tensors that no network takes."""
        used = self.unet.used.union(self.baked_names, *(plan.used for plan, _ in self.texts))
        return tuple(sorted(set(self.unet.weights.tensors) - used))


def open_checkpoint(file: ModelFile, *, allow_pickle: bool, cache_dir: Path) -> Opened:
    """The files that hold UNet, text encoders and VAE: one and the same, but in a diffusers folder.

    Raises `BadModelFile`, `UnsafeFile` or `ModelNotFound`.
    """
    if file.is_folder:
        texts = [part for part in ("text_encoder", "text_encoder_2") if part in file.parts]
        unet, vae, *encoders = (Weights(file.path / file.parts[part]) for part in ("unet", "vae", *texts))
        return Opened(unet, vae, tuple(zip(texts, encoders, strict=True)), file.sidecar)
    weights = open_weights(file.path, allow_pickle=allow_pickle, cache_dir=cache_dir)
    sidecar = file.sidecar
    if file.is_pickle:  # the catalog does not look into pickles
        sidecar = merged(sidecar, read_metadata(weights.metadata))
    return Opened(weights, weights, (("text_encoder", weights),), sidecar)


def plan_checkpoint(opened: Opened, file: ModelFile) -> Plans:
    """Raises `BadModelFile` for what does not fit together; nothing is read yet but headers."""
    sidecar, family, prediction, zero_snr = opened.sidecar, file.family, file.prediction, file.zero_terminal_snr
    known = file.prediction_known
    if file.is_pickle:
        detected = detect(opened.unet.header, sidecar)
        family, zero_snr = detected.family, detected.zero_terminal_snr
        prediction = file.prediction if known else detected.prediction
        known = known or detected.prediction_known
        if detected.reason:
            raise BadModelFile(f'The checkpoint "{file.name}" cannot be used: {detected.reason}')
    texts = []
    for part, weights in opened.texts:
        for dims in text_encoders(weights.shapes, sidecar, family, second=part == "text_encoder_2"):
            texts.append((plan_text_encoder(weights, dims), dims))
    pooled = sum(dims.projection for _, dims in texts)
    sizes = 5 if family is Family.SDXL_REFINER else 6
    dims_of_unet = unet_dims(opened.unet.shapes, sidecar, pooled=pooled, sizes=sizes)
    unet = plan_unet(opened.unet, dims_of_unet)
    _check_context(unet, [dims for _, dims in texts])
    baked = vae_dims(opened.vae.shapes, sidecar) if file.has_vae and _has_vae(opened.vae) else None
    names = plan_vae(opened.vae, baked).used if baked else set()
    return Plans(family, prediction, known, zero_snr, unet, tuple(texts), baked, names, dims_of_unet)


def _check_context(unet: Plan, texts: list[TextDims]) -> None:
    wants, has = unet.module.config.cross_attention_dim, sum(dims.hidden_size for dims in texts)
    if wants != has:
        raise BadModelFile(
            f"The UNet in the file expects {wants} numbers a token, its text encoder gives {has}.",
            "The file was put together from different models; choose another one.",
        )


def scale_factor(family: Family) -> float:
    """What latents are multiplied with after encoding, where nothing else is said."""
    return SDXL_SCALE_FACTOR if family in SDXL_FAMILIES else DEFAULT_SCALE_FACTOR


def trained_sigmas(sidecar: Sidecar | None, zero_terminal_snr: bool) -> Tensor:
    """The noise levels that the model was trained at, ascending."""
    said: dict[str, Any] = {}
    if sidecar:
        named = {"linear_start": sidecar.linear_start, "linear_end": sidecar.linear_end, "timesteps": sidecar.timesteps}
        said = {key: value for key, value in named.items() if value is not None}
    return sigma_table(**said, zero_terminal_snr=zero_terminal_snr)


def _has_vae(weights: Weights) -> bool:
    return any(f"{prefix}decoder.conv_in.weight" in weights.tensors for prefix in ("first_stage_model.", ""))
