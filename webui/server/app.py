"""The full app: the native routes, the pictures, the page's own files, and the Gradio page last.

The guards (host, size, origin, access) stand outside, around the switchboard; see `boot.guarded`.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import gradio as gr
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webui import __version__
from webui.accounts import Accounts
from webui.api.caches import cache_routes
from webui.api.cards import card_routes
from webui.api.catalog import catalog_routes, model_list
from webui.api.common import add_error_handlers
from webui.api.description import describe
from webui.api.docs_page import docs_page
from webui.api.extensions import extension_routes, panel_views
from webui.api.history import history_routes
from webui.api.inputs import input_routes
from webui.api.jobs import job_routes
from webui.api.model_tools import model_tool_routes
from webui.api.network import network_routes
from webui.api.openai import openai_routes
from webui.api.parameters import ParametersReader
from webui.api.pictures import picture_routes
from webui.api.prompts import prompt_routes
from webui.api.sdapi import sdapi_routes
from webui.api.viewer import ViewerOf, identify_by, only_viewer
from webui.errors import HistoryUnavailable
from webui.extensions.front import FrontExtensions
from webui.history import History
from webui.identity import OWNER, Viewer
from webui.inputs import InputRights, InputStore
from webui.jobs.model_tools import ModelTools
from webui.paths import Paths
from webui.prompt import StyleBook
from webui.server.extensions import add_extension_routes, mount_extension_tabs
from webui.server.frontend import preloads
from webui.server.links import OneTimeLinks
from webui.server.network import Network
from webui.server.options import ServeOptions
from webui.server.page_events import CLOSED, PageEvents
from webui.server.static_files import FOR_EVER, TYPES
from webui.settings import SettingsStore
from webui.ui import page
from webui.ui.markup import static_version

if TYPE_CHECKING:
    from webui.catalog import Catalog
    from webui.jobs.service import JobService

QUEUE_LOOK_SECONDS = 1.0
RECENT_JOBS = 50  # whose pictures are found while the history cannot be read
_FOREIGN_META = re.compile(r"<meta\s[^>]*(?:og|twitter):[^>]*>\s*")
_MANIFEST = '<link rel="manifest" href="/manifest.json" />'


class GZipText:
    """Compresses pages, scripts and JSON; pictures go out as they are, they are compressed already."""

    def __init__(self, app: ASGIApp) -> None:
        self._plain = app
        self._zipped = GZipMiddleware(app, minimum_size=1000, compresslevel=5)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        picture = path.startswith(("/outputs/", "/inputs/")) or path.endswith(
            (".jpg", ".webp", ".avif", "/file", "/picture", "/zip")
        )
        await (self._plain if picture else self._zipped)(scope, receive, send)


class PageHead:
    """Puts our stylesheet and script into the delivered page itself, so that nothing flashes before Gradio is up."""

    def __init__(self, app: ASGIApp, head: Callable[[Scope], str]) -> None:
        self._app = app
        self._head = head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        start: Message = {}
        parts: list[bytes] = []

        async def collect(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if message["type"] != "http.response.body":
                return  # an extension's, such as the test client's look at templates
            parts.append(message.get("body", b""))
            if message.get("more_body", False):
                return
            body = b"".join(parts)
            if start["status"] == 200:
                body = with_head(body.decode(), self._head(scope)).encode()
            drop = (b"content-length", b"cache-control")
            kept = [(key, value) for key, value in start["headers"] if key.lower() not in drop]
            kept += [(b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
            await send({**start, "headers": kept})
            await send({"type": "http.response.body", "body": body})

        await self._app(scope, receive, collect)


def with_head(html: str, head: str) -> str:
    """Gradio's page with `head` in it, without its own meta tags (they name pictures on other servers) and manifest."""
    top, script, rest = html.partition("<script")
    top = _FOREIGN_META.sub("", top)
    rest = rest.replace(_MANIFEST, "", 1).replace("</head>", head + "</head>", 1)
    return top + script + rest


def build_app(
    jobs: JobService,
    catalog: Catalog,
    store: SettingsStore,
    paths: Paths,
    options: ServeOptions,
    history: History | None = None,
    viewer_of: ViewerOf = only_viewer,
    network: Network | None = None,
    extensions: FrontExtensions | None = None,
) -> FastAPI:
    """Everything on one ASGI app. Without `history`, one of `paths` that only reads and writes when it is asked to.

    `viewer_of` tells whose a request is; `network` how other devices get here.
    """
    app = FastAPI(
        title="Latent WebUI",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(identify_by(viewer_of))],
    )
    add_error_handlers(app)
    styles = StyleBook(paths.styles_files, paths.styles_file)
    extensions = extensions or FrontExtensions(paths, store)
    reader = ParametersReader(catalog, store, styles, extensions.foreign_text)
    app.include_router(catalog_routes(jobs, catalog, store, paths.outputs, secrets.token_hex(8)))
    app.include_router(model_tool_routes(ModelTools(paths)))
    app.include_router(prompt_routes(catalog, store, styles, paths.wildcards, reader))
    records = history or History(paths)
    owns = picture_rights(jobs, records)
    inputs = InputStore(paths.outputs)
    rights = input_rights(inputs, jobs, records)
    app.include_router(job_routes(jobs, paths.outputs, rights))
    app.include_router(picture_routes(paths.outputs, reader, owns))
    app.include_router(input_routes(inputs, paths.outputs, owns, rights))
    app.include_router(sdapi_routes(jobs, catalog, store, styles, inputs, paths, extensions))
    app.include_router(card_routes(catalog, store, paths.outputs, paths.cache_dir / "previews", owns))
    app.include_router(openai_routes(jobs, catalog, store, records, paths.outputs, options.root_path))
    app.include_router(history_routes(records, jobs, catalog, rights, viewer_of))
    network = network or Network(options, options.port, Accounts(paths.users_file), OneTimeLinks())
    app.include_router(network_routes(network))
    app.include_router(cache_routes(jobs))
    app.include_router(extension_routes(extensions, catalog))
    add_extension_routes(app, extensions)
    describe(app)
    _add_scripts(app)
    _add_docs(app)

    def head(scope: Scope) -> str:
        theme = options.theme or store.current.page.theme.value
        viewer, panels = scope.get("viewer", OWNER), panel_views(extensions, catalog)
        return preloads() + page.head(model_list(catalog, store).model_dump(), theme, viewer, panels)

    # Ours must stand before Gradio is mounted: it sees a CORS middleware and leaves out its own, open one.
    app.add_middleware(PageHead, head=head)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(options.cors_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["content-type", "authorization", "idempotency-key", "last-event-id"],
    )
    app.add_middleware(GZipText)
    demo = page.build(jobs, catalog, store, styles, rights, mount_extension_tabs(app, extensions, options.root_path))
    demo.root_path = options.root_path  # Gradio builds whole addresses, and has to know
    app = mount_page(app, demo)
    app.add_middleware(PageEvents, demo=demo)
    return app


def picture_rights(jobs: JobService, history: History) -> Callable[[Viewer, str], bool]:
    """Whether a saved picture is a viewer's to see: the history knows it, or the job that made it just now."""

    def owns(viewer: Viewer, name: str) -> bool:
        if viewer.admin:
            return True
        with contextlib.suppress(HistoryUnavailable):
            if history.owns_file(viewer.scope, name):
                return True
        return any(image["path"] == name for job in jobs.list(RECENT_JOBS, user=viewer.name) for image in job["images"])

    return owns


def input_rights(inputs: InputStore, jobs: JobService, history: History) -> InputRights:
    """Who may start from which picture that was brought here."""

    def made_from(user: str, reference: str) -> bool:
        try:
            return history.made_from(user, reference)
        except HistoryUnavailable:
            return False

    return InputRights(inputs, jobs.started_from, made_from)


def mount_page(app: FastAPI, demo: gr.Blocks) -> FastAPI:
    """Mount Blocks at "/" with every trap of it closed."""
    app = gr.mount_gradio_app(
        app,
        demo,
        path="/",
        **CLOSED,
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    )
    # Mounting leaves this False, and then Gradio copies any file a client names into its served cache.
    demo.has_launched = True
    # Gradio looks into its queue a thousand times a second, for a twelfth of a core. Nothing of ours is ever in it.
    demo._queue.sleep_when_free = demo._queue.progress_update_sleep_when_free = QUEUE_LOOK_SECONDS
    return app


def _add_scripts(app: FastAPI) -> None:
    @app.get("/ui/app.js", include_in_schema=False)
    def scripts(request: Request, v: str = "") -> Response:
        """The page's own scripts as one; the other files of its folder are served by `static_files`."""
        plain, zipped = page.bundle()
        headers = {"cache-control": FOR_EVER if v == static_version() else "no-cache", "vary": "accept-encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(plain, media_type=TYPES[".js"], headers=headers)
        return Response(zipped, media_type=TYPES[".js"], headers={**headers, "content-encoding": "gzip"})


def _add_docs(app: FastAPI) -> None:
    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    def docs() -> str:
        """The routes as one plain page; the usual viewer would come from another server."""
        return docs_page(app.openapi())
