"""Models in the diffusers layout: a folder with model_index.json, a config.json and weights for each part.

Only numbers are read from the configs. A folder that carries code, or names code to import, is refused: the loaders of
this format have been talked into running both (CVE-2026-44513, CVE-2026-4372).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from webui.catalog.families import FACTS, RUNNABLE_FAMILIES, Family
from webui.catalog.header import open_regular, read_header
from webui.catalog.scan import MODEL_INDEX
from webui.catalog.sidecar import Sidecar, from_configs, validated
from webui.errors import BadModelFile, UnsafeFile, UnsupportedModel, WebUIError

MAX_CONFIG_SIZE = 256 * 1024  # bytes
CODE_SUFFIXES = frozenset({".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".exe"})
CODE_KEYS = frozenset({"auto_map", "custom_pipeline", "custom_pipelines", "trust_remote_code"})
LIBRARIES = frozenset({"diffusers", "transformers", "stable_diffusion"})

PIPELINES: dict[str, Family] = {
    "StableDiffusionPipeline": Family.SD1,
    "StableDiffusionInpaintPipeline": Family.SD1_INPAINTING,
    "LatentConsistencyModelPipeline": Family.SD1,
    "StableDiffusionInstructPix2PixPipeline": Family.SD1_IP2P,
    "StableDiffusionDepth2ImgPipeline": Family.SD2_DEPTH,
    "StableUnCLIPPipeline": Family.SD2_UNCLIP,
    "StableUnCLIPImg2ImgPipeline": Family.SD2_UNCLIP,
    "StableDiffusionXLPipeline": Family.SDXL,
    "StableDiffusionXLInpaintPipeline": Family.SDXL_INPAINTING,
    "StableDiffusionXLInstructPix2PixPipeline": Family.SDXL_IP2P,
    "StableDiffusionXLImg2ImgPipeline": Family.SDXL_REFINER,
    "AltDiffusionPipeline": Family.ALT_DIFFUSION,
    "StableDiffusion3Pipeline": Family.SD3,
    "FluxPipeline": Family.FLUX,
    "FluxFillPipeline": Family.FLUX_FILL,
    "FluxControlPipeline": Family.FLUX_CONTROL,
    "Flux2Pipeline": Family.FLUX2,
    "ChromaPipeline": Family.CHROMA,
    "StableCascadeCombinedPipeline": Family.CASCADE,
    "AuraFlowPipeline": Family.AURA_FLOW,
    "PixArtAlphaPipeline": Family.PIXART,
    "PixArtSigmaPipeline": Family.PIXART,
    "SanaPipeline": Family.SANA,
    "HunyuanDiTPipeline": Family.HUNYUAN,
    "HunyuanVideoPipeline": Family.HUNYUAN,
    "HiDreamImagePipeline": Family.HIDREAM,
    "Lumina2Pipeline": Family.LUMINA2,
    "ZImagePipeline": Family.Z_IMAGE,
    "QwenImagePipeline": Family.QWEN_IMAGE,
    "LTXPipeline": Family.LTX,
    "WanPipeline": Family.WAN,
}

# The parts that run, with the class each must have and the names its weights may have, the preferred one first.
# SDXL has two text encoders, its refiner the second one alone.
_UNET_OR_VAE = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
_TEXT = ("model.safetensors", "model.fp16.safetensors")
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "unet": ("UNet2DConditionModel", _UNET_OR_VAE),
    "vae": ("AutoencoderKL", _UNET_OR_VAE),
    "text_encoder": ("CLIPTextModel", _TEXT),
    "text_encoder_2": ("CLIPTextModelWithProjection", _TEXT),
}
_WITH_SECOND = frozenset({Family.SDXL, Family.SDXL_INPAINTING, Family.SDXL_IP2P, Family.SDXL_REFINER})
_TEXT_PARTS = ("text_encoder", "text_encoder_2")
# A tensor that shows what the weights are, under each of its names (transformers 5 dropped the first part).
_MARKS = {
    "unet": ("conv_in.weight",),
    "vae": ("decoder.conv_in.weight",),
    "text_encoder": ("text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight"),
    "text_encoder_2": ("text_model.embeddings.token_embedding.weight",),
}


class FolderFacts:
    """What was found in a folder; `fault` is why it does not run, "" when it does."""

    def __init__(self) -> None:
        self.family = Family.UNKNOWN
        self.sidecar: Sidecar | None = None
        self.parts: dict[str, str] = {}
        self.context_dim = 0
        self.in_channels = 0
        self.zero_terminal_snr = False
        self.guided = False
        self.fault = ""


def read_folder(folder: Path, files: Iterable[Path]) -> FolderFacts:
    """Look at a diffusers folder. Never raises for what is in it: the fault is told in the result."""
    found = FolderFacts()
    try:
        _refuse_code(folder, files)
        index = read_config(folder / MODEL_INDEX)
        found.family = _pipeline(index)
        if found.family in RUNNABLE_FAMILIES:
            _read_parts(folder, index, found)
        if found.family not in RUNNABLE_FAMILIES:
            raise UnsupportedModel(f"It belongs to the family {found.family}, which this version does not run yet.")
    except WebUIError as error:
        found.fault = error.message
    return found


def read_config(path: Path) -> dict[str, Any]:
    """One JSON object of a folder, bounded. Raises `BadModelFile`, or `UnsafeFile` when it names code to run."""
    shown = f"{path.parent.name}/{path.name}"
    with open_regular(path) as file:
        data = file.read(MAX_CONFIG_SIZE + 1)
    if len(data) > MAX_CONFIG_SIZE:
        raise BadModelFile(f"{shown} is larger than {MAX_CONFIG_SIZE // 1024} KB.")
    try:
        content = json.loads(data.decode("utf-8-sig"))
        code = _code_key(content)
    except (ValueError, RecursionError):
        raise BadModelFile(f"{shown} is not valid JSON.") from None
    if not isinstance(content, dict):
        raise BadModelFile(f"{shown} is not a JSON object.")
    if code:
        raise UnsafeFile(f'{shown} has the entry "{code}", which names code to run; such folders are not opened.')
    return content


def _code_key(value: Any) -> str:
    """The first entry, at any depth, that makes a loader of this format import something; "" without one."""
    children: Iterable[Any] = ()
    if isinstance(value, dict):
        for key, said in value.items():
            if key == "_attn_implementation_autoset" and (said is None or isinstance(said, bool)):
                continue  # some versions of transformers note there that they chose by themselves; it names nothing
            if key in CODE_KEYS or key.startswith("_attn_implementation"):
                return str(key)
        children = value.values()
    elif isinstance(value, list):
        children = value
    return next(filter(None, map(_code_key, children)), "")


def _refuse_code(folder: Path, files: Iterable[Path]) -> None:
    for path in files:
        if path.suffix.lower() in CODE_SUFFIXES:
            shown = path.relative_to(folder).as_posix()
            raise UnsafeFile(f"The folder holds program code ({shown!a:.80}); such folders are not opened.")


def _pipeline(index: dict[str, Any]) -> Family:
    """The family by `_class_name`. Every entry must be a plain [library, class] pair of the known libraries."""
    name = index.get("_class_name")
    if not isinstance(name, str):
        raise UnsafeFile("model_index.json names its pipeline in a way that runs code; such folders are not opened.")
    for key, value in index.items():
        if key.startswith("_") or not isinstance(value, list):
            continue
        if len(value) != 2 or not all(v is None or isinstance(v, str) for v in value):
            raise BadModelFile(f'The entry "{key[:40]}" of model_index.json is not a pair of library and class.')
        if value[0] is not None and value[0] not in LIBRARIES:
            raise UnsafeFile(f'model_index.json takes "{key[:40]}" from code of its own; such folders are not opened.')
    if name not in PIPELINES:
        raise UnsupportedModel(f"Its pipeline ({name!a:.60}) is not one that this version knows.")
    return PIPELINES[name]


def _read_parts(folder: Path, index: dict[str, Any], found: FolderFacts) -> None:
    """Weights and dimensions of the networks, and from them the family, which the pipeline's name leaves open."""
    configs: dict[str, Any] = dict.fromkeys(PARTS)
    for part, (class_name, weights) in PARTS.items():
        entry = index.get(part)
        if part in _TEXT_PARTS and (not isinstance(entry, list) or entry[1] is None):
            continue
        if not isinstance(entry, list) or entry[1] != class_name:
            raise UnsupportedModel(f"Its {part} is not a {class_name}.")
        configs[part] = read_config(folder / part / "config.json")
        present = next((w for w in weights if (folder / part / w).exists()), None)
        if present is None:
            raise BadModelFile(_without_weights(folder / part, part))
        header = read_header(folder / part / present)
        mark = next((name for name in _MARKS[part] if name in header.tensors), None)
        if mark is None:
            raise BadModelFile(f"{part}/{present} does not hold a {class_name}.")
        found.parts[part] = f"{part}/{present}"
        _note_shape(part, header.tensors[mark].shape, found)
        found.guided = found.guided or "time_embedding.cond_proj.weight" in header.tensors
    has_second, wants_second = "text_encoder_2" in found.parts, found.family in _WITH_SECOND
    if not found.context_dim or has_second != wants_second:
        lacks = "text_encoder_2" if wants_second else "text_encoder"
        raise BadModelFile(f"Its pipeline is one of {found.family}, and its text encoders are not: {lacks} is missing.")
    path = folder / "scheduler" / "scheduler_config.json"
    scheduler = read_config(path) if path.exists() else None
    found.sidecar = validated(
        from_configs(
            configs["unet"], configs["vae"], configs["text_encoder"], scheduler, text_2=configs["text_encoder_2"]
        )
    )
    found.zero_terminal_snr = bool(scheduler and scheduler.get("rescale_betas_zero_snr") is True)
    found.family = _family(found)
    if found.family in RUNNABLE_FAMILIES:
        _check_dimensions(found)


def _family(found: FolderFacts) -> Family:
    """By the text encoders that are there, the UNet's input, and SD2's linear projections."""
    inpainting, ip2p = found.in_channels == 9, found.in_channels == 8
    if found.in_channels not in (4, 8, 9):
        return Family.UNKNOWN
    if "text_encoder_2" in found.parts:
        if "text_encoder" not in found.parts:
            return Family.SDXL_REFINER
        return Family.SDXL_INPAINTING if inpainting else Family.SDXL_IP2P if ip2p else Family.SDXL
    unet = found.sidecar.unet if found.sidecar else None
    if found.context_dim == 1024 or (unet and unet.use_linear):
        return Family.SD2_INPAINTING if inpainting else Family.SD2
    return Family.SD1_INPAINTING if inpainting else Family.SD1_IP2P if ip2p else Family.SD1


def _note_shape(part: str, shape: tuple[int, ...], found: FolderFacts) -> None:
    if part == "unet":
        found.in_channels = shape[1] if len(shape) == 4 else 0
    elif part in _TEXT_PARTS:
        found.context_dim += shape[1] if len(shape) == 2 else 0


def _check_dimensions(found: FolderFacts) -> None:
    """The configs must speak of the networks whose tensors are there."""
    sidecar = found.sidecar
    unet = sidecar.unet if sidecar else None
    if unet and unet.context_dim not in (None, found.context_dim):
        raise BadModelFile(
            f"Its UNet expects {unet.context_dim} numbers a token, its text encoder gives {found.context_dim}."
        )
    said = [dims.hidden_size for dims in (sidecar.text, sidecar.text_2) if dims] if sidecar else []
    widths = [width for width in said if width is not None]
    if len(widths) == sum(part in found.parts for part in _TEXT_PARTS) and sum(widths) != found.context_dim:
        raise BadModelFile(
            f"text_encoder/config.json says {sum(widths)} numbers a token, its tensors {found.context_dim}."
        )
    latent = FACTS[found.family].latent_channels
    if unet and unet.out_channels not in (None, latent):
        raise BadModelFile(f"Its UNet gives {unet.out_channels} channels; {latent} are needed.")


def _without_weights(folder: Path, part: str) -> str:
    try:
        names = {p.name for p in folder.iterdir()}
    except OSError:
        names = set()
    if any(n.endswith(".safetensors.index.json") for n in names):
        return f"The weights of its {part} are split over several files, which no SD1 model needs."
    if any(n.endswith((".bin", ".pt")) for n in names):
        return f"The weights of its {part} are pickle-based (.bin); safetensors files are needed."
    return f"The weights of its {part} are missing."
