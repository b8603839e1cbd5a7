"""What extensions add to the server: routes below `/extensions/NAME/`, and pages of their own, framed in tabs."""

from __future__ import annotations

import logging
from collections.abc import Callable

import gradio as gr
from fastapi import APIRouter, Depends, FastAPI

from webui.errors import NotFound
from webui.extensions import Tab
from webui.extensions.front import FrontExtensions
from webui.ui.extensions import FramedTab

_log = logging.getLogger(__name__)


def add_extension_routes(app: FastAPI, extensions: FrontExtensions) -> None:
    """Their routes, behind the guards of the whole app. One that is switched off answers as if it had none."""
    for name, router in extensions.host.ask("routes"):
        if isinstance(router, APIRouter):
            app.include_router(
                router, prefix=f"/extensions/{name}", dependencies=[Depends(_only_when_on(extensions, name))]
            )
        else:
            _log.warning("The extension %s gave no APIRouter; its routes are left out", name)


def mount_extension_tabs(app: FastAPI, extensions: FrontExtensions) -> list[FramedTab]:
    """Mount each extension's own Blocks at `/extensions/NAME/page`; gives the tabs that frame them.

    They are built apart from the page, so nothing of it is within their reach.
    """
    tabs = []
    for name, tab in extensions.host.ask("tab"):
        blocks = extensions.host.guard(name, "tab", tab.build) if isinstance(tab, Tab) else None
        if not isinstance(blocks, gr.Blocks):
            _log.warning("The extension %s gave no Blocks; its tab is left out", name)
            continue
        path = f"/extensions/{name}/page"
        gr.mount_gradio_app(app, blocks, path=path, footer_links=[], show_error=False, ssr_mode=False, mcp_server=False)
        blocks.has_launched = True  # see `webui.server.app.mount_page`
        tabs.append(FramedTab(name, tab.title, path.lstrip("/") + "/"))
    return tabs


def _only_when_on(extensions: FrontExtensions, name: str) -> Callable[[], None]:
    def check() -> None:
        if not extensions.is_on(name):
            raise NotFound("There is no such address.", "The extension is switched off.")

    return check
