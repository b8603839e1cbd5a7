"""The ASGI app that uvicorn runs: it answers at once, and hands over to the full app when that is built."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

from webui.server.asgi import SAFE_METHODS, App, Receive, Scope, Send, refuse, respond_json, respond_page, wants_page
from webui.server.start_page import start_page

STATUS_PATH = "/start.json"


class Progress:
    """The steps of the start, as the start page shows them. Written by the building thread, read by requests."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._states = dict.fromkeys(names, "waiting")
        self._details = dict.fromkeys(names, "")
        self._began = dict.fromkeys(names, 0.0)
        self.seconds: dict[str, float] = {}  # of the steps that are done
        self.error = ""
        self.engine: Callable[[], str] = lambda: ""  # the worker's state, once there is one

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Mark a step as under way, and as done with the seconds it took."""
        self._began[name] = time.monotonic()
        self._states[name] = "now"
        yield
        self._states[name] = "done"
        self.seconds[name] = time.monotonic() - self._began[name]
        self._details[name] = f"{self.seconds[name]:.1f} s"

    def as_dict(self) -> dict[str, Any]:
        steps = [{"name": n, "state": s, "detail": self._details[n]} for n, s in self._states.items()]
        if state := self.engine():
            known = {"starting": ("now", ""), "ready": ("done", "ready"), "busy": ("now", "loading the model")}
            shown, detail = known.get(state, ("waiting", state))
            steps.append({"name": "Starting the engine", "state": shown, "detail": detail})
        return {"ready": False, "steps": steps, "error": self.error}


class Switchboard:
    """The ASGI app that uvicorn runs: the start page until `hand_over`, the full app from then on."""

    def __init__(self, progress: Progress, theme: str) -> None:
        self._progress = progress
        self._page = start_page(theme)
        self._app: App | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack = AsyncExitStack()
        self.on_startup: Callable[[], None] = lambda: None

    @property
    def ready(self) -> bool:
        return self._app is not None

    def hand_over(self, app: Any) -> None:
        """Run the full app's start-up in the server's loop, then send every request to it. Called from any thread."""
        loop = self._loop
        if loop is None:
            raise RuntimeError("the server has not started")
        asyncio.run_coroutine_threadsafe(self._enter(app), loop).result()

    async def _enter(self, app: Any) -> None:
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["path"] == STATUS_PATH:
            await respond_json(scope, send, 200, {"ready": True} if self.ready else self._progress.as_dict())
        elif self._app is not None:
            await self._app(scope, receive, send)
        elif wants_page(scope) or (scope["path"] == "/" and scope["method"] in SAFE_METHODS):
            await respond_page(scope, send, 200, self._page)
        else:
            await refuse(
                scope,
                send,
                503,
                "Starting",
                "The server is starting.",
                "Try again in a few seconds.",
                [("retry-after", "2")],
            )

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._loop = asyncio.get_running_loop()
                await send({"type": "lifespan.startup.complete"})
                self.on_startup()
            else:
                with contextlib.suppress(Exception):  # the process ends; what the app's end-up says helps nobody
                    await self._stack.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return
