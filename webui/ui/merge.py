"""The Merge tab: new checkpoints from those that are there. It lives on POST /models/tools."""

from __future__ import annotations

from webui.ui.common import mounted
from webui.ui.markup import markup

SCRIPTS = ("merge.js",)


def build() -> None:
    """The tab's content. Called inside a `gr.Tab`."""
    mounted("merge", markup("merge"))
