"""The whole page: header, tabs, footer; and what each delivery of it carries in its <head>."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import gradio as gr

from webui.identity import Viewer
from webui.ui import extensions, extras, header, history, making, merge, png_info, queue
from webui.ui import settings as settings_tab
from webui.ui.common import form_spec
from webui.ui.extensions import FramedTab
from webui.ui.markup import STATIC, static_version

if TYPE_CHECKING:
    from webui.catalog import Catalog
    from webui.inputs import InputRights
    from webui.jobs.service import JobService
    from webui.prompt import StyleBook
    from webui.settings import SettingsStore

TITLE = "Latent WebUI"


def build(
    jobs: JobService,
    catalog: Catalog,
    store: SettingsStore,
    styles: StyleBook,
    rights: InputRights,
    tabs: Sequence[FramedTab] = (),
) -> gr.Blocks:
    """The page as Blocks, ready to be mounted. `tabs` are those of extensions, each with a page of its own."""
    settings = store.current
    default = catalog.default_checkpoint(settings.model.checkpoint, allow_pickle=settings.model.allow_pickle)
    with gr.Blocks(title=TITLE, fill_width=True, analytics_enabled=False) as demo:
        header.build_header()
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):  # one row that scrolls, by style.css
            for making_tab in making.TABS:
                gr.Tab(making_tab, id=making_tab, elem_id=f"tab-{making_tab}")
            with gr.Tab("Extras", id="extras", elem_id="tab-extras"):
                extras.build()
            with gr.Tab("History", id="history", elem_id="tab-history"):
                history.build()
            with gr.Tab("PNG info", id="png-info", elem_id="tab-png-info"):
                png_info.build()
            with gr.Tab("Merge", id="merge", elem_id="tab-merge"):
                merge.build()
            with gr.Tab("Queue", id="queue", elem_id="tab-queue"):
                queue.build()
            for tab in tabs:
                extensions.build_framed(tab)
            with gr.Tab("Extensions", id="extensions", elem_id="tab-extensions"):
                extensions.build()
            with gr.Tab("Settings", id="settings", elem_id="tab-settings"):
                settings_tab.build(jobs, store, catalog)
        form = making.build(jobs, store, styles, rights, default.native_size if default else 512)
        header.build_footer()
        demo.load(
            None,
            form,
            form,
            js="(...values) => latent.restore(...values)",
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
    return demo


_FOUNDATION = (  # what every other script builds on
    "tools.js",
    "pieces.js",
    "messages.js",
    "server.js",
    "theme.js",
    "models.js",
    "form.js",
    "tabs.js",
    "status.js",
)
SCRIPTS = (  # in the order in which they are run
    *_FOUNDATION,
    *making.SCRIPTS,
    *png_info.SCRIPTS,
    *queue.SCRIPTS,
    *settings_tab.SCRIPTS,
    *extras.SCRIPTS,
    *merge.SCRIPTS,
    *history.SCRIPTS,
    *header.SCRIPTS,
    *extensions.SCRIPTS,
)


@lru_cache(maxsize=1)
def bundle() -> tuple[bytes, bytes]:
    """All of the page's scripts as one, and the same compressed: a browser asks for few files at a time."""
    plain = b"\n;\n".join((STATIC / name).read_bytes() for name in SCRIPTS)
    return plain, gzip.compress(plain, 6, mtime=0)


@lru_cache(maxsize=1)
def _form() -> dict[str, Any]:
    return form_spec()


def head(models: dict[str, Any], theme: str, viewer: Viewer, panels: Sequence[dict[str, Any]] = ()) -> str:
    """The stylesheet, the script and what the script starts from. In the page itself, so that nothing flashes."""
    boot = {
        "version": static_version(),
        "theme": theme,
        "viewer": {"name": viewer.name, "admin": viewer.admin},
        "models": models,
        "form": _form(),
        "examples": making.EXAMPLES,
        "history": history.spec(),
        "panels": list(panels),
    }
    modules = {f"./ui/{name}": f"./ui/{name}?v={static_version()}" for name in making.MODULES}
    return (
        '<meta name="description" content="Makes pictures from text, on this machine.">'
        f'<link rel="icon" type="image/svg+xml" href="ui/icon.svg?v={static_version()}">'
        f'<link rel="stylesheet" href="ui/style.css?v={static_version()}">'
        f'<script type="importmap">{script_json({"imports": modules})}</script>'
        f"<script>window.latentBoot = {script_json(boot)};</script>"
        f'<script src="ui/app.js?v={static_version()}"></script>'
    )


def script_json(data: Any) -> str:
    """JSON that may stand inside a <script>: nothing in it can end the element or start a comment."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
