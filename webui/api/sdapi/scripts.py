"""Scripts that a request names. None is built in here; what asks for nothing is let through.

Clients send the fields of extensions that they know (ControlNet, ADetailer, animatediff) with every request, switched
off. That must not fail. A script that is switched on and is not here must, or the picture would be another than the
one that was asked for.
"""

from __future__ import annotations

from typing import Any

from webui.errors import InvalidParams, printable

_ON = ("enabled", "ad_enable", "enable")


def check_scripts(name: str | None, _: list[Any], always_on: dict[str, Any]) -> list[str]:
    """A note for each script that was let through because it is off. Raises `InvalidParams` for any other."""
    if name and name.strip().casefold() != "none":
        raise InvalidParams(f"Script '{name[:80]}' not found.", "Leave script_name out; /sdapi/v1/scripts lists them.")
    notes = []
    for title, values in always_on.items():
        if _asks_for_something(values):
            raise InvalidParams(
                f"always on script {title[:80]} not found.", "Switch it off; /sdapi/v1/scripts lists them."
            )
        notes.append(printable(f"The script {title[:80]} is not here; it was off."))
    return notes


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
