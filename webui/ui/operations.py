"""The form's values by path <-> the groups of a request; the mode and switches say which groups are part of it."""

from __future__ import annotations

from typing import Any

from webui.errors import InvalidParams
from webui.ui.field import MODES, SECTIONS

MASKED = ("inpaint", "inpaint sketch", "inpaint upload")  # the modes that draw a part of the picture
SWITCHED = ("hires", "sd_upscale", "inpaint.soft", "faces")


def nested(read: dict[str, Any]) -> dict[str, Any]:
    """Values by path as a request. Groups that do not belong to the mode, or are switched off, are None."""
    mode = read["mode"]
    if mode not in MODES:
        raise InvalidParams("The page is of another version than the server.", "Reload the page.")
    from_picture, masked = mode != "txt2img", mode in MASKED
    on = {path for path in SWITCHED if read[f"{path}.on"] is True}
    present = {
        "init": from_picture,
        "init.frame": masked and any(_of(read, "init.frame").values()),
        "inpaint": masked,
        "inpaint.soft": masked and "inpaint.soft" in on,
        "hires": not from_picture and "hires" in on,
        "sd_upscale": from_picture and not masked and "sd_upscale" in on,
        "faces": "faces" in on,
    }
    request = {name: value for name, value in read.items() if "." not in name and name != "mode"}
    for path, here in present.items():  # a group comes before the groups inside it
        outer, _, name = path.rpartition(".")
        if outer and not present[outer]:
            continue
        holder = request[outer] if outer else request
        holder[name] = _of(read, path) if here else None
    return request


def flat(params: dict[str, Any]) -> dict[str, Any]:
    """A request as values by path, with the switches and the mode that it stands for."""
    values = {name: value for name, value in params.items() if name not in SECTIONS}
    for path in SECTIONS:
        group: Any = params
        for name in path.split(".") if path else ():
            group = (group or {}).get(name)
        if path in SWITCHED:
            values[f"{path}.on"] = group is not None
        if path and group is not None:
            values |= {f"{path}.{name}": value for name, value in group.items() if f"{path}.{name}" not in SECTIONS}
    if "init" in params:
        values["mode"] = "txt2img" if params["init"] is None else "inpaint" if params.get("inpaint") else "img2img"
    return values


def _of(read: dict[str, Any], path: str) -> dict[str, Any]:
    """The values directly in the group at that path."""
    start = f"{path}."
    names = {name.removeprefix(start): value for name, value in read.items() if name.startswith(start)}
    return {name: value for name, value in names.items() if "." not in name and name != "on"}
