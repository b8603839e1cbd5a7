"""Scripts that a request names: extensions with a panel, by their titles. What asks for nothing is let through.

Clients send the fields of extensions that they know (ControlNet, ADetailer, animatediff) with every request, switched
off. That must not fail. A script that is switched on and is not here must, or the picture would be another than the
one that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webui.errors import InvalidParams, near_matches, printable
from webui.extensions import Panel
from webui.extensions.scripts import Values, values_of_scripts

_ON = ("enabled", "ad_enable", "enable")

Panels = Mapping[str, Panel]
"""The panels of the extensions that are on, by extension."""


def script_values(
    panels: Panels, name: str | None, arguments: list[Any], always_on: dict[str, Any]
) -> tuple[Values, list[str]]:
    """`GenerationParams.extensions` for a request, and a note for each script that was let through because it is off.

    Raises `InvalidParams` for a script that is not here and switched on, and for arguments that a script cannot have.
    """
    known = {title.casefold() for extension, panel in panels.items() for title in (extension, panel.title)}
    titles = [panel.title for panel in panels.values()]
    name = None if not name or name.strip().casefold() == "none" else name.strip()
    if name and name.casefold() not in known:
        raise InvalidParams(f"Script '{name[:80]}' not found.", near_matches(name, titles) or _LIST)
    notes, wanted = [], {}
    for title, values in always_on.items():
        if title.strip().casefold() in known:
            wanted[title] = values
        elif _asks_for_something(values):
            raise InvalidParams(f"always on script {title[:80]} not found.", near_matches(title, titles) or _LIST)
        else:
            notes.append(printable(f"The script {title[:80]} is not here; it was off."))
    return values_of_scripts(panels, script_name=name, script_args=arguments, alwayson_scripts=wanted), notes


_LIST = "Leave it out; /sdapi/v1/scripts lists those that are here."


def _asks_for_something(values: Any) -> bool:
    """Whether the arguments of a script switch it on: a first one that is true, or a unit that is enabled."""
    arguments = values.get("args", []) if isinstance(values, dict) else values
    if isinstance(arguments, dict):
        arguments = [arguments]
    if not isinstance(arguments, list) or not arguments:
        return False
    if isinstance(arguments[0], bool):
        return arguments[0]
    units = [one for one in arguments if isinstance(one, dict)]
    if not units:
        return True
    return any(next((bool(one[key]) for key in _ON if key in one), True) for one in units)
