"""The Extensions tab, and the tabs that frame an extension's own page."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import gradio as gr

from webui.ui.common import mounted
from webui.ui.markup import markup

SCRIPTS = ("panels.js", "extensions.js", "presets.js", "grids.js")


@dataclass(frozen=True, slots=True)
class FramedTab:
    """An extension's page: its name, the tab's title, and the address relative to the page."""

    name: str
    title: str
    address: str


def build() -> None:
    """The tab's content. Called inside a `gr.Tab`."""
    mounted("extensions", markup("extensions"))


def build_framed(tab: FramedTab) -> None:
    """A tab around a page that is mounted elsewhere; it is loaded when the tab is first seen."""
    with gr.Tab(tab.title, id=f"x-{tab.name}", elem_id=f"tab-x-{tab.name}"):
        frame = (
            f'<iframe class="framed" loading="lazy" src="{escape(tab.address)}" title="{escape(tab.title)}"></iframe>'
        )
        gr.HTML(frame, container=False, padding=False, apply_default_css=False)
