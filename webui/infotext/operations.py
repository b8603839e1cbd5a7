"""The keys of img2img, inpaint, hires, SD upscale, extras, face restoration and tiling.

AUTOMATIC1111 writes a group only in parts: what has its default there is left out, and the pictures themselves are
never named. A text of its own gives a group without pictures, for a form that will be given them. Our own texts name
pictures by their reference and have one key of each group at least, so they give back the very same request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import ValidationError

from webui.errors import InvalidParams
from webui.infotext.a1111 import read_a1111
from webui.infotext.keys import flag, integer, real
from webui.infotext.model import Reading
from webui.infotext.quoting import quote
from webui.infotext.versions import old_hires_schedule
from webui.operations import Extras, FaceRestoration, Frame, Hires, Init, Inpaint, Plain, SdUpscale, SoftInpainting
from webui.params import GenerationParams

_SAME = ("Use same sampler", "Use same scheduler", "Use same checkpoint")
TILING = "Tiling"
FIXED = ("Denoising strength", "Conditional mask weight")  # these have their place before the others


class Taker(Protocol):
    """What is needed of the collector in `webui.infotext.typed`."""

    params: dict[str, Any]
    fields: dict[str, str]

    def text(self, key: str) -> str | None: ...

    def reject(self, key: str, value: str, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A key and its field in a group. `always`: written although it has its default; one a group is."""

    key: str
    field: str
    read: Callable[[str], Any]
    always: bool = False
    aliases: tuple[str, ...] = ()


def _same_or(text: str) -> str | None:
    return None if text in _SAME else text


def _not_masked(text: str) -> bool:
    known = {"Inpaint masked": False, "Inpaint not masked": True}
    if text not in known:
        raise ValueError("it is not a value this setting can have")
    return known[text]


def _only_masked(text: str) -> bool:
    known = {"Whole picture": False, "Only masked": True}
    if text not in known:
        raise ValueError("it is not a value this setting can have")
    return known[text]


_WORDS: dict[str, Callable[[Any], str]] = {
    "invert": lambda value: "Inpaint not masked" if value else "Inpaint masked",
    "only_masked": lambda value: "Only masked" if value else "Whole picture",
}

_STRENGTH = "Denoising strength"
_MASK_WEIGHT = "Conditional mask weight"
INIT = (
    Part(_STRENGTH, "denoising_strength", real, always=True),
    Part("Init image", "image", str),
    Part("Resize mode", "resize_mode", str),
    Part("Exact steps", "exact_steps", flag),
    Part("Noise multiplier", "noise_multiplier", real),
    Part("Extra noise", "extra_noise", real),
    Part("Color correction", "color_correction", flag),
    Part("Init background", "background", str),
)
FRAME = tuple(Part(f"Outpaint {side}", side, integer) for side in Frame.model_fields)
INPAINT = (
    Part(_MASK_WEIGHT, "conditioning_mask_strength", real),
    Part("Mask image", "mask", str),
    Part("Mask mode", "invert", _not_masked),
    Part("Mask blur", "blur_x", integer, always=True),
    Part("Masked content", "fill", str),
    Part("Inpaint area", "only_masked", _only_masked),
    Part("Masked area padding", "padding", integer),
    Part("Mask rounding", "round_mask", flag),
)
SOFT = tuple(Part(f"Soft inpainting {field.replace('_', ' ')}", field, real) for field in SoftInpainting.model_fields)
HIRES = (
    Part(_STRENGTH, "denoising_strength", real, always=True),
    Part("Hires upscale", "scale", real),
    Part("Hires steps", "steps", integer),
    Part("Hires upscaler", "upscaler", str, always=True),
    Part("Hires checkpoint", "checkpoint", _same_or),
    Part("Hires sampler", "sampler", _same_or),
    Part("Hires schedule type", "schedule", _same_or),
    Part("Hires prompt", "prompt", str),
    Part("Hires negative prompt", "negative_prompt", str),
    Part("Hires CFG Scale", "cfg_scale", real),
    Part("Hires first pass image", "first_pass", str),
)
SD_UPSCALE = (
    Part("SD upscale overlap", "overlap", integer, always=True),
    Part("SD upscale upscaler", "upscaler", str, always=True),
    Part("SD upscale scale", "scale", real),
)
EXTRAS = (
    Part("Postprocess upscale by", "scale", real),
    Part("Postprocess upscaler", "upscaler", str, always=True),
    Part("Postprocess upscaler 2", "upscaler_2", str),
    Part("Postprocess upscaler 2 visibility", "upscaler_2_visibility", real),
    Part("Postprocess crop", "crop", flag),
    Part("Extras image", "image", str),
)
_FACES = "Face restoration"
FACES = (
    Part(_FACES, "model", str, always=True),
    Part("Face restoration visibility", "visibility", real),
    Part("Face restoration 2", "model_2", str),
    Part("Face restoration 2 visibility", "visibility_2", real),
    Part("CodeFormer weight", "codeformer_weight", real),
)
_MASK_BLUR_Y, _SOFT_ENABLED = "Mask blur y", "Soft inpainting enabled"
_HIRES_RESIZE, _EXTRAS_SIZE = "Hires resize", "Postprocess upscale to"
# Without these a text of AUTOMATIC1111 speaks of no inpainting; it leaves out what has its default.
_INPAINT_SIGNS = ("Mask blur", "Mask mode", "Masked content", "Inpaint area", "Masked area padding", _SOFT_ENABLED)
_LATER = {part.key for part in (*EXTRAS, *FACES)} | {f"{_EXTRAS_SIZE}-{side}" for side in (1, 2)}
_HIRES_SIGNS = ("Hires upscale", _HIRES_RESIZE, "Hires upscaler", "Hires steps")


def says_only_what_was_done_later(reading: Reading) -> bool:
    """Whether a text is that of `extended` alone: it was added to a picture whose own parameters are elsewhere."""
    return bool(reading.fields) and not reading.prompt and not reading.negative_prompt and set(reading.fields) <= _LATER


def written(params: GenerationParams) -> dict[str, object]:
    """Every key of the groups that are switched on. Two have a denoising strength, and only one of them is there."""
    keys: dict[str, object] = {}
    if params.init is not None:
        keys |= _keys(INIT, params.init)
        keys |= _keys(FRAME, params.init.frame or Frame())
    if params.inpaint is not None:
        inpaint = params.inpaint
        keys |= _keys(INPAINT, inpaint)
        if inpaint.blur_y != inpaint.blur_x:
            keys[_MASK_BLUR_Y] = inpaint.blur_y
        if inpaint.soft is not None:
            keys |= {_SOFT_ENABLED: True, **_keys(SOFT, inpaint.soft)}
    if params.hires is not None:
        keys |= _keys(HIRES, params.hires)
        if params.hires.width or params.hires.height:
            keys[_HIRES_RESIZE] = f"{params.hires.width}x{params.hires.height}"
        if "Hires upscale" not in keys and _HIRES_RESIZE not in keys:
            keys["Hires upscale"] = _plain(params.hires.scale)
    if params.sd_upscale is not None:
        keys |= _keys(SD_UPSCALE, params.sd_upscale)
    if params.extras is not None:
        keys |= extras_keys(params.extras)
    if params.faces is not None:
        keys |= _keys(FACES, params.faces)
    if params.tiling_x or params.tiling_y:
        keys[TILING] = True if params.tiling_x and params.tiling_y else "x" if params.tiling_x else "y"
    return keys


def extras_keys(extras: Extras) -> dict[str, object]:
    """What is added to a picture's text when it was enlarged."""
    keys = _keys(EXTRAS, extras)
    if extras.width:
        keys[_EXTRAS_SIZE] = f"{extras.width}x{extras.height}"
    elif "Postprocess upscale by" not in keys:
        keys = {"Postprocess upscale by": _plain(extras.scale), **keys}
    return keys


def extended(text: str, extras: Extras, faces: FaceRestoration | None = None) -> str:
    """A picture's parameters text with what was done to the finished picture; "" gives those settings alone.

    Text of a program that writes JSON stays as it is.
    """
    keys = extras_keys(extras) | ({} if faces is None else _keys(FACES, faces))
    added = ", ".join(f"{key}: {quote(value)}" for key, value in keys.items())
    if not text.strip() or text.lstrip().startswith("{"):
        return text.strip() or added
    separator = ", " if read_a1111(text).complete else "\n"
    return f"{text.rstrip()}{separator}{added}"


def read(take: Taker, *, complete: bool) -> None:
    """Put the groups that the text names into `take.params`; with `complete`, None for the others."""
    groups: dict[str, Any] = {}
    # Without a strength there was no second pass, whatever else is said of it.
    hires = _group(take, HIRES, Hires, _HIRES_SIGNS) if _STRENGTH in take.fields else None
    if hires is not None:
        _size(take, _HIRES_RESIZE, hires, Hires)
        if hires.get("sampler") is not None and (schedule := old_hires_schedule(take.fields)) is not None:
            hires.setdefault("schedule", schedule)
    upscale = _group(take, SD_UPSCALE, SdUpscale, [part.key for part in SD_UPSCALE])
    inpaint = _inpaint(take)
    signs = [part.key for part in INIT if part.key != _STRENGTH or hires is None]
    init = None if hires is not None else _group(take, INIT, Init, signs)
    if init is None and hires is None and (inpaint is not None or upscale is not None):
        init = {}
    if init is not None and any(take.text(part.key) is not None for part in FRAME):
        init["frame"] = _group(take, FRAME, Frame, [part.key for part in FRAME])
        inpaint = inpaint if inpaint is not None else {}
    if init is None or (upscale is not None and inpaint is not None):
        inpaint = None
    if init is not None and inpaint is None:
        _unused_mask_weight(take)
    extras = _group(take, EXTRAS, Extras, ["Extras image"])
    if extras is not None:
        _size(take, _EXTRAS_SIZE, extras, Extras)
    for part in EXTRAS:
        take.text(part.key)  # of a text without the picture, they say what was done with it
    take.text(_EXTRAS_SIZE)
    found: dict[str, tuple[type[Plain], dict[str, Any] | None]] = {
        "init": (Init, init),
        "inpaint": (Inpaint, inpaint),
        "hires": (Hires, hires),
        "sd_upscale": (SdUpscale, upscale if init is not None else None),
        "extras": (Extras, extras),
        "faces": (FaceRestoration, _group(take, FACES, FaceRestoration, [_FACES])),
    }
    for name, (kind, fields) in found.items():
        if fields is not None:
            groups[name] = kind.model_validate(fields).model_dump()
        elif complete:
            groups[name] = None
    take.params.update(groups)
    _tiling(take, complete=complete)


def _inpaint(take: Taker) -> dict[str, Any] | None:
    inpaint = _group(take, INPAINT, Inpaint, [*_INPAINT_SIGNS, "Mask image", "Mask rounding", _MASK_BLUR_Y])
    if inpaint is None:
        take.text(_MASK_WEIGHT)  # what a checkpoint for inpainting is told in txt2img, too
        return None
    inpaint.setdefault("blur_x", 0)  # left out where there was none
    inpaint["blur_y"] = inpaint["blur_x"]
    if (text := take.text(_MASK_BLUR_Y)) is not None:
        _put(take, Inpaint, inpaint, Part(_MASK_BLUR_Y, "blur_y", integer), text)
    if (text := take.text(_SOFT_ENABLED)) is not None and text.strip().casefold() == "true":
        inpaint["soft"] = _group(take, SOFT, SoftInpainting, [_SOFT_ENABLED]) or {}
    return inpaint


def _unused_mask_weight(take: Taker) -> None:
    """AUTOMATIC1111 tells it to a checkpoint for inpainting with any picture, this program with a mask alone."""
    text = take.text(_MASK_WEIGHT)
    try:
        unused = text is not None and real(text) != 1
    except ValueError:
        unused = True
    if unused:
        take.reject(_MASK_WEIGHT, text or "", "it has no effect without a mask")


def _tiling(take: Taker, *, complete: bool) -> None:
    text = take.text(TILING)
    if text is None and not complete:
        return
    folded = (text or "").strip().casefold()
    take.params["tiling_x"], take.params["tiling_y"] = folded in ("true", "x"), folded in ("true", "y")
    if folded not in ("", "true", "false", "x", "y"):
        take.reject(TILING, text or "", "it is not a value this setting can have")


def _group(take: Taker, parts: Iterable[Part], kind: type[Plain], signs: Iterable[str]) -> dict[str, Any] | None:
    """The fields of a group that the text decides, each within its bounds; None when no sign of it is there."""
    if all(take.text(sign) is None for sign in signs):
        return None
    fields: dict[str, Any] = {}
    # What a group cannot be without comes first, so that the others can be tried with it.
    for part in sorted(parts, key=lambda one: not kind.model_fields[one.field].is_required()):
        text = take.text(part.key)
        if text is not None:
            _put(take, kind, fields, part, text)
    required = (name for name, field in kind.model_fields.items() if field.is_required())
    return None if any(name not in fields for name in required) else fields


def _put(take: Taker, kind: type[Plain], fields: dict[str, Any], part: Part, text: str) -> None:
    try:
        value = part.read(text)
        kind.model_validate({**fields, part.field: value})
    except ValidationError as error:
        take.reject(part.key, text, error.errors(include_url=False)[0]["msg"].removeprefix("Value error, "))
    except (ValueError, ArithmeticError) as error:
        take.reject(part.key, text, str(error) or "it is not a value this setting can have")
    except InvalidParams as error:  # an unknown sampler or schedule
        take.reject(part.key, text, str(error))
    else:
        fields[part.field] = value


def _size(take: Taker, key: str, fields: dict[str, Any], kind: type[Plain]) -> None:
    text = take.text(key)
    if text is None:
        return
    try:
        width, height = (integer(side) for side in text.split("x"))
        kind.model_validate({**fields, "width": width, "height": height})
    except (ValueError, ValidationError):
        take.reject(key, text, "it is not a size like 512x768 that this setting can have")
        return
    fields |= {"width": width, "height": height}


def _keys(parts: Iterable[Part], group: Plain) -> dict[str, object]:
    """The keys of a group whose fields differ from their defaults, and those that are always there."""
    keys: dict[str, object] = {}
    for part in parts:
        value, default = getattr(group, part.field), type(group).model_fields[part.field].default
        if part.always or value != default:
            keys[part.key] = _WORDS[part.field](value) if part.field in _WORDS else _plain(value)
    return {key: value for key, value in keys.items() if value is not None}


def _plain(value: Any) -> object:
    return repr(value).removesuffix(".0") if isinstance(value, float) else value
