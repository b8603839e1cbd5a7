"""The Queue tab: what runs, what waits, what is finished. It lives on GET /jobs."""

from __future__ import annotations

from webui.ui.common import mounted
from webui.ui.markup import markup

SCRIPTS = ("queue.js",)


def build() -> None:
    """The tab's content. Called inside a `gr.Tab`."""
    mounted("queue", markup("queue"))
