"""The PNG info tab: what a picture says about how it was made. The bytes go to POST /png-info and nowhere else."""

from __future__ import annotations

from webui.ui.common import mounted
from webui.ui.markup import markup

SCRIPTS = ("png-info.js",)


def build() -> None:
    """The tab's content. Called inside a `gr.Tab`."""
    mounted("png-info", markup("png_info"))
