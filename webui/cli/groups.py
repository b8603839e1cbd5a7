"""The groups of `GenerationParams` as flags: `--hires-scale 2` is `hires.scale`, `--inpaint-soft` switches a group on.

A group is switched on by any flag of it. Where a request names a picture, the flag takes a file, which is put into the
store of inputs, or the reference of one that is there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

from webui.errors import InvalidParams, NotFound
from webui.inputs import MAX_BYTES, InputStore
from webui.operations import FaceRestoration, Hires, Init, Inpaint, Plain, SdUpscale

BETWEEN = "__"  # between the parts of an option's name, where a flag has "-"
GROUPS: dict[str, type[Plain]] = {
    "init": Init,
    "inpaint": Inpaint,
    "hires": Hires,
    "sd_upscale": SdUpscale,
    "faces": FaceRestoration,
}
ELSEWHERE = ("extras", "sources")  # `app.py upscale`, and folders
_PICTURES = ("init__image", "inpaint__mask", "hires__first_pass")
_REFERENCE = re.compile(r"[0-9a-f]{64}")

_FROM, _HIRES = "From a picture", "Hires and upscaling"
KNOWN: dict[str, tuple[tuple[str, ...], str, str]] = {
    "init__image": (("--init-image", "-i"), _FROM, "Start from this picture (a file): img2img."),
    "init__denoising_strength": (
        ("--denoising-strength", "--init-denoising-strength"),
        _FROM,
        "How far to leave the picture: 0 keeps it, 1 forgets it.",
    ),
    "init__resize_mode": (("--resize-mode",), _FROM, "How the picture is brought to the size of the result."),
    "inpaint": (("--inpaint",), _FROM, "Draw only a part: that under the mask, else where the picture is transparent."),
    "inpaint__mask": (("--mask", "--inpaint-mask"), _FROM, "Draw only where this picture (a file) is white."),
    "inpaint__fill": (("--inpaint-fill",), _FROM, "What stands under the mask at the start."),
    "inpaint__only_masked": (("--inpaint-only-masked",), _FROM, ""),
    "hires": (("--hires",), _HIRES, ""),
    "hires__upscaler": (("--hires-upscaler",), _HIRES, 'Between the passes: "Latent", "Lanczos", or a model.'),
    "hires__scale": (("--hires-scale",), _HIRES, "How much larger the second pass is."),
    "hires__steps": (("--hires-steps",), _HIRES, "Steps of the second pass; 0: as many as the first."),
    "hires__denoising_strength": (("--hires-denoising-strength",), _HIRES, "How far the second pass may go."),
    "sd_upscale": (("--sd-upscale",), _HIRES, ""),
    "sd_upscale__upscaler": (("--sd-upscale-upscaler",), _HIRES, "What enlarges before the tiles are drawn anew."),
    "sd_upscale__scale": (("--sd-upscale-scale",), _HIRES, "How much larger the result is."),
    "faces": (("--faces",), _HIRES, "Restore the faces of the finished picture."),
    "faces__model": (("--faces-model",), _HIRES, "With this model of models/GFPGAN or models/Codeformer."),
    "faces__visibility": (("--faces-visibility",), _HIRES, "How much of the restored face is seen, 0 to 1."),
}


def flat_fields() -> dict[str, tuple[Any, Any]]:
    """Option name to (type, default) of every field of every group, and a flag for each group itself."""
    flat: dict[str, tuple[Any, Any]] = {}
    for name, group in GROUPS.items():
        flat |= _flat(name, group)
    return flat


def _flat(name: str, group: type[Plain]) -> dict[str, tuple[Any, Any]]:
    flat: dict[str, tuple[Any, Any]] = {name: (bool, None)}
    for field, info in group.model_fields.items():
        inner = _group_of(info.annotation)
        key = f"{name}{BETWEEN}{field}"
        flat |= _flat(key, inner) if inner is not None else {key: (info.annotation, info.default)}
    return flat


def _group_of(annotation: Any) -> type[Plain] | None:
    return next((kind for kind in get_args(annotation) if isinstance(kind, type) and issubclass(kind, Plain)), None)


def nested(options: dict[str, Any]) -> dict[str, Any]:
    """Options by their flat names as a request. Raises `InvalidParams` for a group that is switched off and on."""
    request: dict[str, Any] = {}
    off = {name for name, value in options.items() if _is_switch(name) and value is False}
    for name, value in options.items():
        if name in off:
            continue
        *path, last = name.split(BETWEEN)
        if any(BETWEEN.join(path[:depth]) in off for depth in range(1, len(path) + 1)):
            flag = BETWEEN.join(path).replace(BETWEEN, "-").replace("_", "-")
            raise InvalidParams(f"--no-{flag} contradicts the other flags of that group.", "Leave one of them out.")
        inside = request
        for part in path:
            inside = inside.setdefault(part, {})
        if _is_switch(name):
            inside.setdefault(last, {})
        else:
            inside[last] = value
    return request


def _is_switch(name: str) -> bool:
    return name in GROUPS or name in ("init__frame", "inpaint__soft")


def stored(options: dict[str, Any], store: InputStore) -> dict[str, Any]:
    """The options with every picture's file put into the store. Raises `NotFound`, `BadPicture` and `SaveError`."""
    return {
        name: keep(value, store) if name in _PICTURES and value is not None else value
        for name, value in options.items()
    }


def keep(value: str, store: InputStore) -> str:
    """The reference of a picture's file, or of one that is in the store."""
    if _REFERENCE.fullmatch(value):
        return value
    path = Path(value)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidParams(f"{path.name} is larger than {MAX_BYTES // 2**20} MB.", "Use a smaller picture.")
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(
            f"{value} cannot be read: {error.strerror or error}.", "Name a PNG, JPEG, WEBP or AVIF file."
        ) from None
    return store.add(data).reference
