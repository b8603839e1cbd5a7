"""Extensions by the names that clients of AUTOMATIC1111's API use: script titles with positional or named arguments."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from webui.errors import InvalidParams, near_matches
from webui.extensions.manifest import Panel, PanelField

Values = dict[str, dict[str, Any]]
_FLAGS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


def values_of_scripts(
    panels: Mapping[str, Panel],
    *,
    script_name: str | None = None,
    script_args: Any = None,
    alwayson_scripts: Any = None,
) -> Values:
    """`GenerationParams.extensions` for these fields of a request. Raises `InvalidParams` with near matches.

    A script is named by its panel's title or the extension's name, in any case. `script_args` is a list, in the order
    of the panel's fields, or an object of keys or labels; `alwayson_scripts` is {"title": {"args": [...]}} (or the
    arguments themselves). A choice may be given by its number, as clients do.
    """
    wanted: list[tuple[str, Any]] = []
    if script_name:
        wanted.append((script_name, script_args))
    if alwayson_scripts:
        if not isinstance(alwayson_scripts, dict):
            raise InvalidParams("alwayson_scripts is not an object.", 'Send {"title": {"args": [...]}}.')
        for title, given in alwayson_scripts.items():
            wanted.append((title, given["args"] if isinstance(given, dict) and "args" in given else given))
    values: Values = {}
    for title, arguments in wanted:
        name = _find(panels, title)
        values[name] = _values(panels[name], arguments)
    return values


def values_of_options(panels: Mapping[str, Panel], options: Iterable[str]) -> Values:
    """The same for `NAME.FIELD=VALUE` as a command line has them; `NAME` alone takes an extension's defaults."""
    values: Values = {}
    for option in options:
        target, equals, text = option.partition("=")
        title, dot, key = target.rpartition(".") if equals else (target, "", "")
        if equals and not dot:
            raise InvalidParams(f'"{option[:80]}" does not name a field.', "Write NAME.FIELD=VALUE.")
        name = _find(panels, title)
        known = {field.key: field for field in panels[name].fields}
        given = values.setdefault(name, {})
        if equals and key not in known:
            raise InvalidParams(f'{panels[name].title} has no field "{key[:80]}".', near_matches(key, known))
        if equals:
            given[key] = _typed(known[key], text)
    return values


def _typed(field: PanelField, text: str) -> Any:
    """A value as it is typed. What it cannot be is left as text, for the field to refuse."""
    if field.kind == "bool":
        return _FLAGS.get(text.casefold(), text)
    if field.kind in ("int", "float"):
        try:
            return float(text) if field.kind == "float" else int(text)
        except ValueError:
            return text
    return text.replace("\\n", "\n") if field.kind == "lines" else text


def _find(panels: Mapping[str, Panel], title: str) -> str:
    folded = str(title).strip().casefold()
    for name, panel in panels.items():
        if folded in (name, panel.title.casefold()):
            return name
    raise InvalidParams(
        f'There is no script "{str(title)[:80]}".', near_matches(str(title), [p.title for p in panels.values()])
    )


def _values(panel: Panel, arguments: Any) -> dict[str, Any]:
    if arguments is None:
        return {}
    if isinstance(arguments, list):
        if any(not _is_off(value) for value in arguments[len(panel.fields) :]):
            raise InvalidParams(
                f"{panel.title} takes {len(panel.fields)} arguments, not {len(arguments)}.",
                f"In this order: {', '.join(field.label for field in panel.fields)}.",
            )
        pairs = list(zip(panel.fields, arguments, strict=False))
    elif isinstance(arguments, dict):
        by_name = {name: field for field in panel.fields for name in (field.key, field.label.casefold())}
        unknown = [key for key in arguments if str(key).casefold() not in by_name]
        if unknown:
            raise InvalidParams(f'{panel.title} has no argument "{unknown[0]}".', near_matches(unknown[0], by_name))
        pairs = [(by_name[str(key).casefold()], value) for key, value in arguments.items()]
    else:
        raise InvalidParams(f"The arguments of {panel.title} are neither a list nor an object.")
    return {field.key: _argument(field, value) for field, value in pairs if value is not None}


def _is_off(value: Any) -> bool:
    """Whether an argument asks for nothing: other programs' scripts take more arguments than ours."""
    return not value or (isinstance(value, str) and value.strip().casefold() in ("none", "false", "off", "0", ""))


def _argument(field: PanelField, value: Any) -> Any:
    """What clients send for a value: a choice by its number, a number or a word for a flag, a list for a text."""
    if field.kind == "choice" and isinstance(value, int) and not isinstance(value, bool):
        return field.choices[value] if 0 <= value < len(field.choices) else str(value)
    if field.kind == "bool" and value in (0, 1):
        return bool(value)
    if field.kind == "bool" and isinstance(value, str):
        return _FLAGS.get(value.strip().casefold(), value)
    if field.kind in ("text", "lines") and isinstance(value, int | float):
        return str(value)
    if field.kind == "text" and isinstance(value, list):
        return ", ".join(_quoted(str(part)) for part in value)
    return value


def _quoted(text: str) -> str:
    """One value of a list between commas, in quotes where it needs them."""
    written = io.StringIO()
    csv.writer(written, lineterminator="").writerow([text])
    return written.getvalue()
