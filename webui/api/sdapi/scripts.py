"""Scripts that a request names: those of extensions, "sd upscale", and those that clients of other programs send along.

Clients send the fields of extensions that they know (ControlNet, ADetailer, animatediff) with every request, switched
off. That must not fail. A script that is switched on and is not here must, or the picture would be another than the
one that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from webui.api.sdapi.xyz_arguments import SCRIPT, read_xyz_arguments
from webui.errors import InvalidParams, near_matches, printable
from webui.extensions.manifest import Panel, PanelField
from webui.extensions.scripts import Values, values_of_scripts

SD_UPSCALE = "SD upscale"
_UPSCALE_FIELDS = ("info", "overlap", "upscaler", "scale")  # the first is the note that its panel shows
_ON = ("enabled", "ad_enable", "enable")
_SWITCH_AT = {"roop": 1, "reactor": 1}  # where the argument that switches them on stands, if it is not the first
REFINER, SOFT_INPAINTING = "refiner", "soft inpainting"  # scripts there, fields of the request here
_SOFT_FIELDS = (
    "schedule_bias",
    "preservation_strength",
    "transition_contrast_boost",
    "mask_influence",
    "difference_threshold",
    "difference_contrast",
)


@dataclass(frozen=True, slots=True)
class Scripts:
    """What the scripts of a request come to, in the fields of `GenerationParams`, and notes on those that are off."""

    extensions: Values = field(default_factory=dict)
    sd_upscale: dict[str, Any] | None = None
    refiner: tuple[Any, Any] | None = None  # checkpoint, where it switches
    soft_inpainting: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def read_scripts(
    panels: Mapping[str, Panel], name: str | None, arguments: list[Any], always_on: dict[str, Any], *, img2img: bool
) -> Scripts:
    """Raises `InvalidParams` for a script that is on and not here, and for arguments that do not fit."""
    known = {title.casefold() for key, panel in panels.items() for title in (key, panel.title)}
    upscale = None
    if name is not None and name.strip().casefold() in ("", "none"):
        name = None
    if name is not None and img2img and name.strip().casefold() == SD_UPSCALE.casefold():
        upscale, name = _sd_upscale(arguments), None
    if name is not None and name.strip().casefold() not in known:
        titles = [panel.title for panel in panels.values()] + ([SD_UPSCALE] if img2img else [])
        advice = near_matches(name, titles) or "Leave script_name out; /sdapi/v1/scripts lists them."
        raise InvalidParams(f"Script '{name[:80]}' not found.", advice)
    here, notes = {}, []
    refiner = soft = None
    for title, values in always_on.items():
        folded = title.strip().casefold()
        if folded in known:
            here[title] = values
        elif folded == REFINER:
            refiner = _switched_on(values, 2)
        elif folded == SOFT_INPAINTING and img2img:
            soft = _switched_on(values, len(_SOFT_FIELDS))
        elif _asks_for_something(folded, values):
            raise InvalidParams(
                f"always on script {title[:80]} not found.", "Switch it off; /sdapi/v1/scripts lists them."
            )
        else:
            notes.append(printable(f"The script {title[:80]} is not here; it was off."))
    if name is not None and name.strip().casefold() in _names_of(panels, SCRIPT):
        arguments = read_xyz_arguments(arguments, img2img=img2img)
    values = values_of_scripts(panels, script_name=name, script_args=arguments or None, alwayson_scripts=here)
    return Scripts(
        values,
        upscale,
        None if refiner is None else (refiner[0], refiner[1]),
        None if soft is None else {key: one for key, one in zip(_SOFT_FIELDS, soft, strict=True) if one is not None},
        tuple(notes),
    )


def _names_of(panels: Mapping[str, Panel], extension: str) -> tuple[str, ...]:
    """The names of an extension's script, in lower case."""
    return (extension, panels[extension].title.casefold()) if extension in panels else ()


def script_titles(panels: Mapping[str, Panel]) -> dict[str, list[str]]:
    """The titles in lower case, as clients look them up."""
    titles = [panel.title.lower() for panel in panels.values()]
    return {"txt2img": titles, "img2img": [*titles, SD_UPSCALE.lower()]}


def script_infos(panels: Mapping[str, Panel]) -> list[dict[str, Any]]:
    """The arguments of each script, in their order, once for either kind of request."""
    return [
        {
            "name": panel.title.lower(),
            "is_alwayson": panel.kind == "always",
            "is_img2img": img2img,
            "args": [_argument(one) for one in panel.fields],
        }
        for panel in panels.values()
        for img2img in (False, True)
    ]


def _argument(one: PanelField) -> dict[str, Any]:
    return {
        "label": one.label,
        "value": one.default,
        "minimum": one.low,
        "maximum": one.high,
        "step": one.step,
        "choices": list(one.choices) or None,
    }


def _sd_upscale(arguments: list[Any]) -> dict[str, Any]:
    given = {key: value for key, value in zip(_UPSCALE_FIELDS, arguments, strict=False) if value is not None}
    given.pop("info", None)
    scale = given.get("scale")
    if isinstance(scale, int) and not isinstance(scale, bool):
        given["scale"] = float(scale)
    return given


def _arguments(values: Any) -> list[Any]:
    arguments = values.get("args", []) if isinstance(values, dict) else values
    if isinstance(arguments, dict):
        return [arguments]
    return arguments if isinstance(arguments, list) else []


def _switched_on(values: Any, count: int) -> list[Any] | None:
    """The `count` arguments behind the first one, None for those left out; None altogether where that one is off."""
    arguments = _arguments(values)
    if not arguments or not arguments[0]:
        return None
    numbers = [float(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in arguments[1:]]
    return [*numbers, *[None] * count][:count]


def _asks_for_something(title: str, values: Any) -> bool:
    """Whether the arguments of a script switch it on: a switch that is true, or a unit that is enabled."""
    arguments = _arguments(values)
    if not arguments:
        return False
    units = [one for one in arguments if isinstance(one, dict)]
    switch = arguments[min(_SWITCH_AT.get(title, 0), len(arguments) - 1)]
    if isinstance(switch, bool):
        return switch and (not units or any(map(_is_on, units)))
    return not units or any(map(_is_on, units))


def _is_on(unit: dict[str, Any]) -> bool:
    """A unit of ControlNet or the like: on unless it says otherwise, or names no model to work with."""
    if unit.get("ad_model") == "None":
        return False
    return next((bool(unit[key]) for key in _ON if key in unit), True)
