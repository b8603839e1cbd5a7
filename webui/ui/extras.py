"""The Extras tab: finished pictures enlarged or repaired. It lives on POST /jobs; nothing is drawn anew here."""

from __future__ import annotations

from webui.ui.common import mounted
from webui.ui.markup import markup

SCRIPTS = ("extras.js",)


def build() -> None:
    """The tab's content. Called inside a `gr.Tab`."""
    mounted("extras", markup("extras"))
