"""One real server for all browser tests, a real Chromium a module, a browser that nobody has used a test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from embedded import EMBEDDED_UPSCALERS, link_or_copy
from face_models import STAND_INS, write_face_models
from running_server import RunningServer
from steps import ready

from webui.cli.check import CHROMIUM_NAMES, HEADLESS

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
VIEWPORT = {"width": 1440, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, ended with the module: Playwright runs a loop in this thread, and asyncio.run refuses beside it."""
    playwright_api = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, (HEADLESS, *CHROMIUM_NAMES))), None)
    if chromium is None:
        pytest.skip("no Chromium here; `apt-get install chromium` brings one")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def kept_context(browser: Any) -> Iterator[Any]:
    """A context whose scripts stay compiled from test to test: a page in a fresh one takes thrice as long."""
    context = browser.new_context(viewport=VIEWPORT)
    yield context
    context.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("browser")
    write_face_models(root)
    for network in EMBEDDED_UPSCALERS:
        (root / "models" / "ESRGAN").mkdir(parents=True, exist_ok=True)
        link_or_copy(network, root / "models" / "ESRGAN" / network.name)
    with RunningServer(root, packages=(STAND_INS,)) as running:
        running.wait_until_ready(worker=True)
        yield running


class Pages:
    """Opens pages and remembers what went wrong in any of them."""

    def __init__(self, browser: Any, kept_context: Any, server: RunningServer) -> None:
        self._browser = browser
        self._kept: Any = kept_context
        self._server = server
        self._contexts: list[Any] = []
        self.problems: list[str] = []

    def context(self, **options: Any) -> Any:
        """A browser that nobody has used: the module's own, where no other was asked for, or another one."""
        if self._contexts or options:
            context = self._browser.new_context(**{"viewport": VIEWPORT, **options})
        else:
            context = self._kept
        context.set_default_timeout(120_000)  # of machines that have other work
        # what other tests typed is kept on the server by user; here each context is a browser that nobody typed in
        empty = {"form": "txt2img", "data": None, "updated": 0}
        context.route("**/history/drafts/*", lambda route: route.fulfill(json=empty))
        context.on("page", self._watch)
        self._contexts.append(context)
        return context

    def open(self, context: Any = None, **options: Any) -> Any:
        """A page that is ready to be used."""
        page = (context or self.context(**options)).new_page()
        page.goto(self._server.url)
        return ready(page)

    def _watch(self, page: Any) -> None:
        page.on("pageerror", lambda error: self.problems.append(f"script error: {error}"))
        page.on("dialog", lambda dialog: (self.problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", self._local_only)

    def _local_only(self, request: Any) -> None:
        if not request.url.startswith((self._server.url, "data:", "blob:" + self._server.url, "about:")):
            self.problems.append(f"request to another server: {request.url}")

    def close(self) -> None:
        for context in self._contexts:
            if context is not self._kept:
                context.close()
        if self._kept in self._contexts:
            self._forget()

    def _forget(self) -> None:
        """Leave nothing of this test in the kept context but the files that it has fetched."""
        context = self._kept
        context.remove_listener("page", self._watch)
        for page in context.pages:
            page.close()
        context.unroute_all(behavior="ignoreErrors")
        blank = context.new_page()
        cleared = {"origin": self._server.url, "storageTypes": "all"}
        context.new_cdp_session(blank).send("Storage.clearDataForOrigin", cleared)
        blank.close()


@pytest.fixture
def pages(browser: Any, kept_context: Any, server: RunningServer) -> Iterator[Pages]:
    """Any script error, dialog or request that leaves the machine fails the test."""
    opened = Pages(browser, kept_context, server)
    yield opened
    opened.close()
    for view in server.json("/jobs?limit=100")["jobs"]:
        if view["state"] in ("pending", "running"):
            server.post(f"/jobs/{view['id']}/interrupt")
    assert opened.problems == []


@pytest.fixture
def page(pages: Pages) -> Any:
    return pages.open()
