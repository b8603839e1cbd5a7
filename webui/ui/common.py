"""Form values <-> `GenerationParams`, and the few widgets that the tabs share. Pure functions at the top."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from webui.errors import InvalidParams, NotSignedIn
from webui.identity import Viewer
from webui.params import GenerationParams, make_params
from webui.prompt import StyleBook
from webui.ui.field import SAME, Field
from webui.ui.fields import BY_NAME, FIELDS, GROUPS, KEYS
from webui.ui.operations import flat, nested
from webui.ui.picture_fields import LATENT_UPSCALERS, UPSCALERS

# --- pure -------------------------------------------------------------------------------------------------------------


def read_value(field: Field, value: Any) -> Any:
    """A widget's value as the parameter it stands for. Raises `InvalidParams` for what it cannot be.

    Widgets send 20 or 20.0 for a whole number and None for an empty one; seeds and sigmas come as text, because a
    page's numbers lose digits above 2**53.
    """
    if field.kind == "seed":
        return _seed(field, value)
    if field.kind == "sigmas":
        return _sigmas(field, value)
    if field.kind == "panels":
        return _panels(field, value)
    if field.kind == "sources":
        return _sources(field, value)
    if field.kind == "styles" and value is not None and not isinstance(value, str):
        raise InvalidParams("Styles: not a list of names.", "Reload the page.")
    if field.kind == "choice" and value == SAME:
        return None
    if value is None or value == "":
        return None if field.optional or (field.default == "" and field.kind in ("model", "picture")) else field.default
    if field.kind == "int" and isinstance(value, float) and value.is_integer():
        return int(value)
    if field.kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def params_from_values(values: Sequence[Any], styles: StyleBook | None = None, **more: Any) -> GenerationParams:
    """The form's values, in the order of KEYS, as validated params; `more` sets fields that the form does not show.

    The chosen styles are merged into the prompts here, so that the params, and the text in the picture, hold all that
    decides it.
    """
    if len(values) != len(KEYS):
        raise InvalidParams("The page is of another version than the server.", "Reload the page.")
    read = {field.name: read_value(field, value) for field, value in zip(FIELDS, values, strict=True)}
    names = [name for name in read.pop("styles").split("\n") if name]
    if names and styles is None:
        raise InvalidParams("There are no styles here.", "Take the styles off.")
    if styles is not None and isinstance(read["prompt"], str) and isinstance(read["negative_prompt"], str):
        read["prompt"], read["negative_prompt"] = styles.apply(read["prompt"], read["negative_prompt"], names)
    return make_params({**nested(read), **more})


def values_from_params(params: dict[str, Any]) -> dict[str, Any]:
    """Params, as a job or a picture carries them, as widget values by name; what the form does not show is left out."""
    values: dict[str, Any] = {}
    for name, value in flat(params).items():
        field = BY_NAME.get(name)
        if field is None:
            continue
        if field.kind == "seed":
            value = str(value)
        elif field.kind == "sigmas":
            value = ", ".join(f"{sigma:g}" for sigma in value or ())
        elif field.kind in ("model", "picture"):
            value = value or ""
        elif field.kind == "sources":
            value = ""  # what is done with one picture of a folder is said by the rest
        elif field.kind == "panels":
            value = json.dumps(value, sort_keys=True) if value else ""
        elif field.kind == "choice" and value is None:
            value = SAME
        values[name] = value
    return values


def form_spec() -> dict[str, Any]:
    """The table of fields for the page's script: order, defaults, bounds, tooltips and groups."""
    return {
        "keys": list(KEYS),
        "fields": {
            f.name: {
                "kind": f.kind,
                "label": f.label,
                "default": f.default,
                "tip": f.tip,
                "choices": list(f.choices),
                "optional": f.optional,
                "id": f.elem_id,
                **({"source": f.source} if f.source else {}),
                **_bounds(f),
            }
            for f in FIELDS
        },
        "upscalers": list(UPSCALERS),
        "passes": list(LATENT_UPSCALERS),
        "groups": {group.id: list(group.names) for group in GROUPS},
    }


def _bounds(field: Field) -> dict[str, Any]:
    return dict(zip(("low", "high", "step"), field.span, strict=True)) if field.span else {}


def _seed(field: Field, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if value is None or (isinstance(value, str) and not text):
        return -1
    try:
        return int(text) if len(text) <= 25 else int("x")
    except ValueError:
        raise InvalidParams(
            f"{field.label}: not a whole number.", "Type a number from 0 on, or -1 for a random one."
        ) from None


def _panels(field: Field, value: Any) -> dict[str, Any]:
    """The panels' values, which the page keeps as JSON."""
    values = _json(value, {})
    if not isinstance(values, dict):
        raise InvalidParams(f"{field.label}: not an object of values.", "Reload the page.")
    return values


def _sources(field: Field, value: Any) -> tuple[Any, ...]:
    """The pictures of a folder, which the page sends as JSON."""
    values = _json(value, [])
    if not isinstance(values, list):
        raise InvalidParams(f"{field.label}: not a list of pictures.", "Reload the page.")
    return tuple(values)


def _json(value: Any, empty: Any) -> Any:
    """What the text holds, `empty` for none, None for what is no JSON."""
    if value is None or value == "":
        return empty
    try:
        return json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        return None


def _sigmas(field: Field, value: Any) -> tuple[float, ...] | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise InvalidParams(f"{field.label}: not a list of numbers.", "Separate the numbers by commas.")
    try:
        return tuple(float(part) for part in value.replace(";", ",").split(",") if part.strip())
    except ValueError:
        raise InvalidParams(f"{field.label}: not a list of numbers.", "Separate the numbers by commas.") from None


def viewer_of(request: Any) -> Viewer:
    """Who asks, of the request that Gradio hands to a handler: its own wrapper, or the plain one of a server function.

    Raises `NotSignedIn` where no guard has said so.
    """
    viewer = getattr(request, "request", request).scope.get("viewer")
    if not isinstance(viewer, Viewer):
        raise NotSignedIn("Nobody is signed in.", "Reload the page.")
    return viewer


# --- widgets ----------------------------------------------------------------------------------------------------------


def widget(field: Field, **more: Any) -> gr.components.Component:
    """The Gradio component of a field."""
    common: dict[str, Any] = {
        "label": field.label,
        "value": more.pop("value", field.default),
        "elem_id": field.elem_id,
        "interactive": True,
        **more,
    }
    if field.kind == "choice":
        return gr.Dropdown(choices=list(field.choices), **common)
    if field.kind in ("bool", "switch"):
        return gr.Checkbox(**common)
    if field.kind not in ("int", "float"):
        return gr.Textbox(**{"lines": 1, "max_lines": 1, **common})
    low, high, step = field.span or (None, None, None)
    if field.slider:
        return gr.Slider(minimum=low, maximum=high, step=step, buttons=[], **common)
    # no bounds here: a value outside them would meet a message of Gradio's own; `make_params` has the better one
    return gr.Number(step=step, precision=0 if field.kind == "int" else None, **common)


_MOUNT = """latent.mount(NAME, element, {
  trigger: (name) => name === "apply" && trigger("apply"),
  watch, props, server: typeof server === "undefined" ? null : server,
});"""


def mounted(name: str, html: str, **more: Any) -> gr.HTML:
    """A piece of page whose life is in a script: `latent.mount(NAME, element, ...)` takes the markup over.

    It never gets a new value: that would draw the markup again.
    """
    classes = ["mounted", *more.pop("elem_classes", ())]
    return gr.HTML(
        value=None,
        html_template=html,
        js_on_load=_MOUNT.replace("NAME", repr(name)),
        container=False,
        padding=False,
        apply_default_css=False,
        elem_classes=classes,
        **more,
    )
