"""The form that the txt2img and img2img tabs share: prompt, Generate, the stage, the parameters.

It stands below the tabs and is shown in both, so what is typed in one is there in the other, and no widget exists
twice. Pure functions at the top, layout and wiring below.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from webui.errors import WebUIError
from webui.prompt import StyleBook
from webui.settings import Settings
from webui.ui.common import mounted, params_from_values, viewer_of, widget
from webui.ui.field import Field, Group
from webui.ui.fields import BY_NAME, CARRIED, FIELDS, GROUPS, PROMPT_FIELDS, SEED, SIZE
from webui.ui.markup import icon_button, markup

if TYPE_CHECKING:
    from webui.inputs import InputRights
    from webui.jobs.service import JobService
    from webui.params import GenerationParams
    from webui.settings import SettingsStore

# --- pure -------------------------------------------------------------------------------------------------------------

TABS = ("txt2img", "img2img")

# In the order in which they are run.
SCRIPTS = (
    "tokens.js",
    "pickers.js",
    "pictures.js",
    "stage.js",
    "spinner.js",
    "run-buttons.js",
    "viewer.js",
    "keys.js",
    "tips.js",
    "form-actions.js",
    "page.js",
    "prompt_edit.js",
    "prompt_box.js",
    "styles.js",
    "cards.js",
    "card-details.js",
    "parameters.js",
    "send.js",
    "suggestion.js",
    "folders.js",
)
# Fetched when the img2img tab is first opened.
MODULES = (
    "img2img.js",
    "img2img-batch.js",
    "mask-canvas.js",
    "mask-frame.js",
    "mask-png.js",
    "mask-surface.js",
    "mask-tools.js",
    "mask-view.js",
)

EXAMPLES: dict[str, list[str]] = {
    # for checkpoints with a native size below 256 pixels: the embedded one draws single things
    "small": [
        "a red apple",
        "a cat on a blue background",
        "a rocket",
        "a penguin in the snow",
        "a green car",
        "a castle",
        "a sunset",
        "a robot on the beach",
    ],
    "large": [
        "a lighthouse on a cliff at dusk, oil painting",
        "portrait of an old fisherman, soft window light",
        "a fox in a birch forest, first snow",
        "a small library with a spiral staircase, watercolour",
        "macro photo of dew on a spider web",
        "a paper boat on a rainy street, reflections",
    ],
}


def submit_values(
    submit: Callable[[Any], str],
    settings: Settings,
    values: Sequence[Any],
    number: int,
    styles: StyleBook | None = None,
) -> dict[str, Any]:
    """Queue a job from the form's values. The answer for the page: the job's id, or the error in words.

    `number` makes every answer differ from the one before, so that the page sees each.
    """
    try:
        saving = {"image_format": settings.saving.format.value, "image_quality": settings.saving.quality}
        return {"n": number, "job": submit(params_from_values(values, styles, **saving))}
    except WebUIError as error:
        return {"n": number, "error": error.to_dict()}


# --- layout and wiring ------------------------------------------------------------------------------------------------


_QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def _reset(group: Group) -> gr.HTML:
    return mounted(
        "tools", icon_button(f"reset:{group.id}", "reset", f"Reset {group.title.lower()}"), elem_id=f"reset-{group.id}"
    )


def _chooser(field: Field) -> None:
    """A list of model files, filled and read by pickers.js; its value is in a carrier."""
    html = f'<label>{field.label}<select data-field="{field.name}"></select></label>'
    mounted("chooser", html, elem_id=f"choose-{field.elem_id}", elem_classes=["chooser"])


def _group(group: Group, made: dict[str, Any], *, native_size: int = 512) -> None:
    """A folding group with its widgets, two to a row where they are small.

    The widgets of a group that starts folded are drawn when it is opened for the first time: drawing all of them would
    be a third of the page's start. Their values are there all the same.
    """
    with gr.Accordion(group.title, open=group.open, elem_id=f"group-{group.id}", elem_classes=["group"]) as fold:
        _reset(group)
        if group is SIZE:
            with gr.Row(elem_classes=["size-row"]):
                with gr.Column(min_width=0, elem_classes=["stack"]):
                    for field in group.fields:
                        made[field.name] = widget(field, value=native_size)
                swap = icon_button("swap", "swap", "Swap width and height")
                native = icon_button("native", "native", "Native size of the checkpoint")
                picture = icon_button("picture-size", "image", "Size of the picture")
                mounted("tools", swap + native + picture, elem_id="size-tools")
        elif group is SEED:
            with gr.Row(elem_classes=["seed-row"]):
                made["seed"] = widget(BY_NAME["seed"], min_width=0, placeholder="-1")
                dice = icon_button("dice", "dice", "Random seed")
                mounted(
                    "tools", dice + icon_button("recycle", "recycle", "Seed of the last picture"), elem_id="seed-tools"
                )
            made["clip_skip"] = widget(BY_NAME["clip_skip"])
        else:
            with gr.Row(elem_classes=["pairs"], visible=group.open) as row:
                for field in group.fields:
                    if field.source:
                        _chooser(field)
                    else:
                        made[field.name] = widget(field, min_width=0)
            if not group.open:
                fold.expand(None, None, row, js="() => latent.drawn()", **_QUIET)


def build(
    jobs: JobService, store: SettingsStore, styles: StyleBook, rights: InputRights, native_size: int
) -> list[Any]:
    """The widgets and their events; returns the widgets in the order of KEYS. Called inside `gr.Blocks`."""
    made: dict[str, Any] = {}
    with gr.Column(elem_id="making"):
        with gr.Column(elem_id="compose", min_width=0):
            for field, lines in zip(PROMPT_FIELDS, (4, 1), strict=True):
                with gr.Column(elem_classes=["prompt-field"], min_width=0):
                    if field.name == "prompt":
                        mounted("prompt-history", markup("prompt_history"), elem_id="prompt-history")
                    mounted(f"tokens-{field.name}", '<output class="tokens" aria-label="Tokens"></output>')
                    made[field.name] = widget(field, lines=lines, max_lines=14, placeholder=field.tip)
                    mounted(f"marks-{field.name}", '<p class="marks" role="status"></p>')
            mounted("prompt-tools", markup("prompt_tools"), elem_id="prompt-tools")
            with gr.Row(elem_id="run"):
                generate = gr.Button("Generate", variant="primary", elem_id="generate", min_width=0)
                mounted("buttons", markup("buttons"))
        mounted("start-picture", markup("start_picture"), elem_id="start-picture")
        mounted("stage", markup("stage"), elem_id="stage-place")
        with gr.Column(elem_id="parameters", min_width=0):
            mounted("suggestion", "<p hidden></p>", elem_id="suggestion")
            for group in GROUPS:
                _group(group, made, native_size=native_size)
            mounted("presets", markup("presets"), elem_id="presets-button")
            mounted("panels", '<div class="panels"></div>', elem_id="panels")
            mounted("tools", markup("reset_all"), elem_id="reset-all")
        with gr.Column(elem_id="carriers"):  # never seen: what the header's pickers chose, and Generate's answer
            for field in (*CARRIED, *(f for group in GROUPS for f in group.fields if f.source)):
                made[field.name] = widget(field)
            answer = mounted("link", "<span></span>", elem_id="link")
    inputs = [made[field.name] for field in FIELDS]
    _wire(generate, answer, inputs, jobs, store, styles, rights)
    return inputs


def _wire(
    generate: gr.Button,
    answer: gr.HTML,
    inputs: list[Any],
    jobs: JobService,
    store: SettingsStore,
    styles: StyleBook,
    rights: InputRights,
) -> None:
    numbers = itertools.count(1)

    def on_generate(request: gr.Request, *values: Any) -> dict[str, Any]:
        viewer = viewer_of(request)

        def submit(params: GenerationParams) -> str:
            rights.require(viewer, params)
            return jobs.submit(params, viewer.name)

        return submit_values(submit, store.current, values, next(numbers), styles)

    ready = "(...values) => latent.ready(...values)"  # when what is still on its way to the server has arrived
    submitted = generate.click(on_generate, inputs, answer, trigger_mode="multiple", js=ready, **_QUIET)
    submitted.failure(None, js="() => latent.submitFailed()", **_QUIET)
    # Values are kept and set by the page alone: these events never reach the server.
    # Each tells its own value and no other: Gradio looks for every input of an event in its whole tree of components,
    # and to gather all of them at every key took more than half of what a key costs.
    for field, component in zip(FIELDS, inputs, strict=True):
        js = f"(value) => latent.changed({json.dumps(field.name)}, value)"
        component.change(None, component, None, js=js, trigger_mode="multiple", **_QUIET)
    answer.apply(None, None, inputs, js="() => latent.take()", trigger_mode="multiple", **_QUIET)
