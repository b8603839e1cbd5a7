"""From a file that was found to what is known about it. Whatever it holds, the answer is facts, never an error."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from webui.catalog.components import bundled_in, embedding_facts
from webui.catalog.detect import detect
from webui.catalog.families import FACTS, KIND_NAMES, Family, Kind, Prediction
from webui.catalog.folders import read_folder
from webui.catalog.hashes import old_hash
from webui.catalog.header import Header, open_regular, read_header
from webui.catalog.keys import Detected
from webui.catalog.lookup import BUNDLED, EMBEDDING_NAME
from webui.catalog.models import PICKLE_SUFFIXES, ModelFile
from webui.catalog.picture_embedding import read_picture_embedding
from webui.catalog.scan import PICTURE_SUFFIXES, Found, Role, folder_files
from webui.catalog.sidecar import (
    MAX_NOTES_SIZE,
    MAX_YAML_SIZE,
    Sidecar,
    UserNotes,
    merged,
    read_metadata,
    read_notes,
    read_yaml,
)
from webui.errors import WebUIError

MAX_NATIVE_SIZE = 4096  # pixels a side; it becomes the size of requests that name none
MAX_METADATA_VALUE = 4096  # characters; longer ones (thumbnails, tag counts) stay in the file

PICKLE_REASON = (
    "It is a pickle-based file. Get it as .safetensors, or turn on the setting model.allow_pickle to open it through "
    "the allow-list."
)
_FORMATS = {
    ".gguf": "GGUF files cannot be read by this version.",
    ".onnx": "ONNX files cannot be read by this version.",
}
_FOLDERS: dict[Kind, str] = {
    "checkpoint": "models/Stable-diffusion",
    "vae": "models/VAE",
    "lora": "models/Lora",
    "embedding": "models/embeddings",
    "hypernetwork": "models/hypernetworks",
    "upscaler": "models/ESRGAN",
    "face_restorer": "models/GFPGAN",
    "controlnet": "models/ControlNet",
}
_PREDICTION_OPEN = (
    'The file does not say whether its network predicts noise ("eps") or velocity ("v"). That is tried when the model '
    'is loaded; until then "{}" is assumed, as is usual in its family. A {}.yaml beside it with the right '
    '"parameterization" decides, and with it the size for which the model was trained.'
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything about a model that follows from the content of its files; this is what the cache keeps."""

    kind: Kind
    family: Family
    prediction: Prediction
    prediction_known: bool
    native_size: int
    reason: str
    sidecar: Sidecar | None = None
    notes: UserNotes | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    variant: str = ""
    in_channels: int = 0
    latent_channels: int = 0
    context_dim: int = 0
    has_vae: bool = True
    zero_terminal_snr: bool = False
    guided: bool = False
    old_hash: str | None = None
    problems: tuple[str, ...] = ()
    lasting: bool = True  # False: something could not be read, which may be different next time


def inspect(found: Found) -> Facts:
    """What the files say. A fault of any of them becomes `reason` or one of `problems`."""
    try:
        facts = _inspect(found)
    except WebUIError as error:
        facts = _unusable(found.role, str(error))
    except OSError as error:
        facts = _unusable(found.role, f"It cannot be read: {error.strerror or type(error).__name__}.")
    except Exception as error:
        # A defect of ours that this file brings to light must not hide the other files.
        _log.exception("reading %r failed", found.name)
        facts = _unusable(found.role, f"It could not be examined ({type(error).__name__}); the log has the details.")
    return facts


def model_file(found: Found, facts: Facts, sha256: str | None) -> ModelFile:
    """The catalog's record of it."""
    return ModelFile(
        path=found.path,
        kind=facts.kind,
        family=facts.family,
        name=found.name,
        stem=found.stem,
        size=found.size,
        mtime_ns=found.mtime_ns,
        inode=found.inode,
        sha256=sha256,
        metadata=facts.metadata,
        native_size=facts.native_size,
        prediction=facts.prediction,
        prediction_known=facts.prediction_known,
        runnable=not facts.reason,
        reason=facts.reason,
        sidecar=facts.sidecar,
        notes=facts.notes,
        is_folder=found.is_folder,
        parts=facts.parts,
        variant=facts.variant,
        in_channels=facts.in_channels,
        latent_channels=facts.latent_channels,
        context_dim=facts.context_dim,
        has_vae=facts.has_vae,
        zero_terminal_snr=facts.zero_terminal_snr,
        guided=facts.guided,
        old_hash=facts.old_hash,
        problems=facts.problems,
    )


def needs_pickle(model: ModelFile) -> bool:
    """Whether nothing speaks against the file but that it is pickle-based."""
    return model.is_pickle and model.reason == PICKLE_REASON


def _inspect(found: Found) -> Facts:
    if found.problem:
        return _unusable(found.role, found.problem)
    notes, problems, readable = _notes(found)
    if found.is_folder:
        return _folder(found, notes, problems, readable)
    suffix = found.path.suffix.lower()
    if suffix in _FORMATS:
        return _unusable(found.role, _FORMATS[suffix])
    if suffix in PICKLE_SUFFIXES:
        return _pickle(found, notes, problems, readable)
    if suffix in PICTURE_SUFFIXES:
        return _picture(found, notes, problems, readable)
    header = read_header(found.path)
    fault = ""
    sidecar: Sidecar | None = None
    try:
        sidecar = read_metadata(header.metadata)
    except WebUIError as error:
        fault = error.message
    if found.yaml:
        try:
            sidecar = merged(_yaml(found), sidecar)
            fault = ""  # the file beside it was put there to have the last word
        except WebUIError as error:
            fault = f'{error.message} The file is "{found.stem}.yaml" beside the model: correct it or remove it.'
    detected = detect(header, sidecar)
    if detected.kind == "checkpoint" and not detected.prediction_known and detected.family is not Family.UNKNOWN:
        problems.append(_PREDICTION_OPEN.format(detected.prediction, found.stem))
    metadata = {k: v for k, v in header.metadata.items() if len(v) <= MAX_METADATA_VALUE}
    bundled = bundled_in({name: tensor.shape for name, tensor in header.tensors.items()})
    if bundled and detected.kind == "lora":
        metadata[BUNDLED] = json.dumps(bundled)
    reason = _reason(found.role, detected) or fault or _contradiction(header, detected, sidecar)
    return Facts(
        kind=detected.kind,
        family=detected.family,
        prediction=detected.prediction,
        prediction_known=detected.prediction_known,
        native_size=_native_size(detected, sidecar, of_yaml=bool(found.yaml)),
        reason=reason,
        sidecar=sidecar,
        notes=notes,
        metadata=metadata,
        variant=detected.variant,
        in_channels=detected.in_channels,
        latent_channels=detected.latent_channels,
        context_dim=detected.context_dim,
        has_vae=detected.has_vae,
        zero_terminal_snr=detected.zero_terminal_snr,
        guided=detected.guided,
        old_hash=old_hash(found.path) if found.role == "checkpoint" else None,
        problems=tuple(problems),
        lasting=not fault and readable,
    )


def _reason(role: Role, detected: Detected) -> str:
    """Why a file cannot serve in the folder where it lies; "" when it can."""
    if detected.kind == role:
        return detected.reason
    if detected.kind == "unknown":
        return detected.reason
    family = f" for {detected.family}" if detected.family is not Family.UNKNOWN else ""
    where = f" Move it to {_FOLDERS[detected.kind]}." if detected.kind in _FOLDERS else ""
    return f"This is {KIND_NAMES[detected.kind]}{family}, not {KIND_NAMES[role]}.{where}"


def _native_size(detected: Detected, sidecar: Sidecar | None, *, of_yaml: bool = False) -> int:
    """Pixels a side: metadata, then the image_size of a configuration (latent cells), then the family's.

    The yaml that was published for SD2 with velocity has an image_size of 64, and that model draws at 768.
    """
    if sidecar and sidecar.native_size:
        return min(sidecar.native_size, MAX_NATIVE_SIZE)
    if (
        sidecar
        and of_yaml
        and sidecar.image_size == 64
        and sidecar.parameterization == "v"
        and _is_sd2(detected, sidecar)
    ):
        return FACTS[Family.SD2].native_size
    if sidecar and sidecar.image_size:
        levels = len(sidecar.vae.ch_mult) if sidecar.vae and sidecar.vae.ch_mult else 4
        return min(max(16, (sidecar.image_size << (levels - 1)) // 8 * 8), MAX_NATIVE_SIZE)
    if detected.family is Family.SD2 and detected.prediction == "eps":
        return 512
    return FACTS[detected.family].native_size


def _is_sd2(detected: Detected, sidecar: Sidecar) -> bool:
    """Also by its configuration alone, where the tensors were not looked at."""
    wide = sidecar.unet is not None and sidecar.unet.context_dim == 1024
    return detected.family is Family.SD2 or (detected.family is Family.UNKNOWN and wide)


def _contradiction(header: Header, detected: Detected, sidecar: Sidecar | None) -> str:
    """A configuration that speaks of another model than the one beside it, in a sentence."""
    if sidecar is None or detected.kind != "checkpoint" or not detected.in_channels:
        return ""
    said = {
        "in_channels": (sidecar.unet.in_channels if sidecar.unet else None, detected.in_channels),
        "context_dim": (sidecar.unet.context_dim if sidecar.unet else None, detected.context_dim),
        "model_channels": (
            sidecar.unet.model_channels if sidecar.unet else None,
            _side(header, "model.diffusion_model.input_blocks.0.0.weight", 0),
        ),
        "ch": (sidecar.vae.ch if sidecar.vae else None, _side(header, "first_stage_model.encoder.conv_in.weight", 0)),
    }
    for name, (claimed, real) in said.items():
        if claimed is not None and real and claimed != real:
            return f"Its configuration says {name} = {claimed}, its tensors say {real}: they do not belong together."
    return ""


def _side(header: Header, name: str, axis: int) -> int:
    tensor = header.tensors.get(name)
    return tensor.shape[axis] if tensor and len(tensor.shape) > axis else 0


def _pickle(found: Found, notes: UserNotes | None, problems: list[str], readable: bool) -> Facts:
    """A file whose content only the engine's allow-list may read: what it is follows from where it lies."""
    sidecar: Sidecar | None = None
    reason = PICKLE_REASON
    if found.yaml:
        try:
            sidecar = _yaml(found)
        except WebUIError as error:
            reason = error.message
    family = Family.UNKNOWN
    prediction = (sidecar.parameterization if sidecar else None) or FACTS[family].prediction
    return Facts(
        kind=found.role,
        family=family,
        prediction=prediction,
        prediction_known=bool(sidecar and sidecar.parameterization),
        native_size=_native_size(Detected(found.role), sidecar, of_yaml=True),
        reason=reason,
        sidecar=sidecar,
        notes=notes,
        old_hash=old_hash(found.path) if found.role == "checkpoint" else None,
        problems=tuple(problems),
        lasting=reason == PICKLE_REASON and readable,
    )


def _picture(found: Found, notes: UserNotes | None, problems: list[str], readable: bool) -> Facts:
    """A picture with a textual inversion embedding in it."""
    inside = read_picture_embedding(found.path)
    detected = embedding_facts(inside.vectors.shape)
    return Facts(
        kind="embedding",
        family=detected.family,
        prediction=detected.prediction,
        prediction_known=False,
        native_size=FACTS[detected.family].native_size,
        reason=detected.reason,
        notes=notes,
        metadata={EMBEDDING_NAME: inside.name},
        variant=detected.variant,
        context_dim=detected.context_dim,
        problems=tuple(problems),
        lasting=readable,
    )


def _folder(found: Found, notes: UserNotes | None, problems: list[str], readable: bool) -> Facts:
    inside = read_folder(found.path, list(folder_files(found.path)))
    said = inside.sidecar.parameterization if inside.sidecar else None
    detected = Detected(
        "checkpoint",
        inside.family,
        prediction=said or FACTS[inside.family].prediction,
        prediction_known=said is not None,
        in_channels=inside.in_channels,
        context_dim=inside.context_dim,
        latent_channels=FACTS[inside.family].latent_channels,
    )
    return Facts(
        kind="checkpoint",
        family=inside.family,
        prediction=detected.prediction,
        prediction_known=detected.prediction_known,
        native_size=_native_size(detected, inside.sidecar),
        reason=inside.fault,
        sidecar=inside.sidecar,
        notes=notes,
        parts=inside.parts,
        variant="diffusers",
        in_channels=inside.in_channels,
        latent_channels=detected.latent_channels,
        context_dim=inside.context_dim,
        zero_terminal_snr=inside.zero_terminal_snr,
        guided=inside.guided,
        problems=tuple(problems),
        lasting=not inside.fault and readable,
    )


def _unusable(role: Role, reason: str) -> Facts:
    nothing = FACTS[Family.UNKNOWN]
    return Facts(
        kind="unknown",
        family=Family.UNKNOWN,
        prediction=nothing.prediction,
        prediction_known=False,
        native_size=nothing.native_size,
        reason=reason,
        has_vae=role == "checkpoint",
        lasting=False,
    )


def _yaml(found: Found) -> Sidecar:
    return read_yaml(_bounded(found.path.with_name(f"{found.stem}.yaml"), MAX_YAML_SIZE))


def _notes(found: Found) -> tuple[UserNotes | None, list[str], bool]:
    """NAME.json, a sentence for each fault in it, and whether the file could be read: another try says nothing new."""
    if not found.json:
        return None, [], True
    try:
        return *read_notes(_bounded(found.path.with_name(f"{found.stem}.json"), MAX_NOTES_SIZE)), True
    except WebUIError as error:
        return None, [f"Its notes (.json) were set aside: {error.message}"], False


def _bounded(path: Path, limit: int) -> bytes:
    """At most one byte more than the limit, so that the reader can tell."""
    with open_regular(path) as file:
        return file.read(limit + 1)
