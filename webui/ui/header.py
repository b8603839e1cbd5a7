"""The slim header (pickers, memory, worker, theme) and the footer's memory line. Their life is in header.js."""

from __future__ import annotations

import gradio as gr

from webui.ui.common import mounted
from webui.ui.markup import markup

SCRIPTS = ("header.js", "share.js")


def build_header() -> gr.HTML:
    return mounted("header", markup("header"), elem_id="header")


def build_footer() -> gr.HTML:
    return mounted("footer", markup("footer"), elem_id="footer")
