"""What extensions add to the server: routes below `/extensions/NAME/`, and pages of their own, framed in tabs."""

from __future__ import annotations

import logging
from collections.abc import Callable

import gradio as gr
from fastapi import APIRouter, Depends, FastAPI
from starlette.routing import Mount

from webui.errors import NotFound
from webui.extensions import Tab
from webui.extensions.front import FrontExtensions
from webui.server.asgi import App, Receive, Scope, Send, refuse
from webui.server.page_events import CLOSED, PageEvents
from webui.ui.extensions import FramedTab

_log = logging.getLogger(__name__)
_OFF = ("There is no such address.", "The extension is switched off.")


def add_extension_routes(app: FastAPI, extensions: FrontExtensions) -> None:
    """Their routes, behind the guards of the whole app. One that is switched off answers as if it had none."""
    for name, router in extensions.host.ask("routes"):
        if isinstance(router, APIRouter):
            app.include_router(
                router, prefix=f"/extensions/{name}", dependencies=[Depends(_only_when_on(extensions, name))]
            )
        else:
            _log.warning("The extension %s gave no APIRouter; its routes are left out", name)


def mount_extension_tabs(app: FastAPI, extensions: FrontExtensions, root_path: str = "") -> list[FramedTab]:
    """Mount each extension's own Blocks at `/extensions/NAME/page`; gives the tabs that frame them.

    They are built apart from the page, so nothing of it is within their reach. One that is switched off is not there.
    `root_path` is where a proxy shows this server.
    """
    tabs = []
    for name, tab in extensions.host.ask("tab"):
        blocks = extensions.host.guard(name, "tab", tab.build) if isinstance(tab, Tab) else None
        if not isinstance(blocks, gr.Blocks):
            _log.warning("The extension %s gave no Blocks; its tab is left out", name)
            continue
        path = f"/extensions/{name}/page"
        gr.mount_gradio_app(
            app,
            blocks,
            path=path,
            root_path=root_path + path if root_path else None,
            **CLOSED,
        )
        blocks.has_launched = True  # see `webui.server.app.mount_page`
        mount = next(one for one in reversed(app.routes) if isinstance(one, Mount) and one.path == path)
        gradio = _at_the_top(mount.app) if root_path else mount.app
        mount.app = _only_while_on(PageEvents(gradio, blocks, own=False), extensions, name)
        tabs.append(FramedTab(name, tab.title, path.lstrip("/") + "/"))
    return tabs


def _only_when_on(extensions: FrontExtensions, name: str) -> Callable[[], None]:
    def check() -> None:
        if not extensions.is_on(name):
            raise NotFound(*_OFF)

    return check


def _at_the_top(app: App) -> App:
    """An app that knows the whole address it is shown at looks for nothing of it in the paths it is asked for."""

    async def below(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": scope["path"].removeprefix(scope["root_path"]), "root_path": ""}
        await app(scope, receive, send)

    return below


def _only_while_on(app: App, extensions: FrontExtensions, name: str) -> App:
    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not extensions.is_on(name):
            await refuse(scope, send, 404, "NotFound", *_OFF)
        else:
            await app(scope, receive, send)

    return checked
