"""What may be asked of Gradio: nothing but what the page itself asks.

Gradio answers an event that does not exist, one that has no function on the server, or values that a component cannot
take with a 500; and a queued event can be read by whoever names its session. The page has one event on the server and
a few functions of a component, and neither queues nor uploads anything. So everything else is refused here, in words,
before Gradio sees it; what a later Gradio adds (recordings, proxies, editing by a model) is refused as well. The page
of an extension is somebody else's: it may queue and upload, as any page of Gradio does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webui.server.asgi import App, Message, Receive, Scope, Send, read_body, refuse

if TYPE_CHECKING:
    import gradio as gr

PREFIX = "/gradio_api/"
RUN = ("run/", "api/")
COMPONENT = "component_server"
# By what follows the prefix, for any method. The page queues nothing, and its pictures go to /inputs.
OWN_PAGE = (*RUN, COMPONENT, "info", "startup-events", "theme.css")
ANY_PAGE = (
    *OWN_PAGE, "queue/join", "queue/data", "cancel", "reset", "heartbeat/", "upload", "upload_progress", "file=",
    "stream/", "custom_component/", "app_id",
)  # fmt: skip
# How Blocks are mounted: without what nobody here asks for.
CLOSED: dict[str, Any] = {
    "run_history": False,
    "footer_links": [],
    "max_file_size": "64mb",
    "show_error": False,
    "ssr_mode": False,
    "mcp_server": False,
}
MAX_EVENT = 4 * 2**20  # bytes: two prompts, written as JSON
MAX_SESSION = 100  # characters

_NO_EVENT = (404, "NotFound", "The page has no such event.", "Reload the page; programs use the routes of /docs.")
_NO_VALUES = (422, "InvalidParams", "The page cannot have sent these values.", "Reload the page.")


@dataclass(frozen=True, slots=True)
class Event:
    """An event with a function on the server: how many values it takes, and the components that set it off."""

    inputs: int
    triggers: frozenset[int]


def events_of(demo: gr.Blocks) -> dict[int, Event]:
    """The events of a page by their numbers."""
    return {
        number: Event(len(one.inputs), frozenset(target for target, _ in one.targets if target is not None))
        for number, one in demo.fns.items()
        if one.fn is not None
    }


def functions_of(demo: gr.Blocks) -> dict[int, frozenset[str]]:
    """The functions of its components that the browser may call, by the components' numbers."""
    return {
        number: frozenset(one.__name__ for one in block.server_fns)
        for number, block in demo.blocks.items()
        if getattr(block, "server_fns", None)
    }


class PageEvents:
    """The check, around an app that `demo` is mounted in, or around what is mounted. `own`: it is this product's."""

    def __init__(self, app: App, demo: gr.Blocks, *, own: bool = True) -> None:
        self._app = app
        self._own = own
        self._asked = OWN_PAGE if own else ANY_PAGE
        self._events = events_of(demo)
        self._functions = functions_of(demo)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))  # which says where it is mounted
        below = scope["type"] == "http" and path.startswith(PREFIX)
        rest = path.removeprefix(PREFIX) if below else ""
        if below and not any(_is_asked(rest, one) for one in self._asked):
            await refuse(scope, send, *_NO_EVENT)
        elif scope.get("method") == "POST" and (rest.startswith(RUN) or rest.startswith(COMPONENT)):
            await self._checked(scope, receive, send, run=rest.startswith(RUN))
        else:
            await self._app(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive, send: Send, *, run: bool) -> None:
        body = await read_body(receive, MAX_EVENT)
        sent = _object(body)
        fault = _NO_VALUES if sent is None else self._event_fault(sent) if run else self._function_fault(sent)
        if body is None or fault is not None:
            await refuse(scope, send, *(fault or _NO_VALUES))
            return
        failed = False

        async def receive_again() -> Message:
            nonlocal body
            given, body = body, None
            return {"type": "http.request", "body": given, "more_body": False} if given is not None else await receive()

        async def send_or_refuse(message: Message) -> None:
            nonlocal failed
            if message["type"] == "http.response.start" and message["status"] == 500:
                failed = True  # a component could not take its value; our own functions answer with their errors
                await refuse(scope, send, *_NO_VALUES)
            elif not failed:
                await send(message)

        await self._app(scope, receive_again, send_or_refuse)

    def _event_fault(self, sent: Mapping[str, Any]) -> tuple[int, str, str, str] | None:
        number, session, trigger = (sent.get(key) for key in ("fn_index", "session_hash", "trigger_id"))
        event = self._events.get(number) if type(number) is int else None
        if event is None:
            return _NO_EVENT
        data = sent.get("data")
        if not self._own:
            return None  # how its events hang together is its own business
        fits = isinstance(data, list) and len(data) == event.inputs
        known = session is None or (isinstance(session, str) and len(session) <= MAX_SESSION and session.isprintable())
        own = trigger is None or (type(trigger) is int and trigger in event.triggers)
        return None if fits and known and own else _NO_VALUES

    def _function_fault(self, sent: Mapping[str, Any]) -> tuple[int, str, str, str] | None:
        component, name = sent.get("component_id"), sent.get("fn_name")
        names = self._functions.get(component, frozenset()) if type(component) is int else frozenset()
        return None if isinstance(name, str) and name in names else _NO_EVENT


def _is_asked(rest: str, route: str) -> bool:
    """Whether an address leads to a route: all of it, or for one with an open end what is behind it."""
    return rest.startswith(route) if route.endswith(("/", "=")) else rest.rstrip("/") == route


def _object(body: bytes | None) -> dict[str, Any] | None:
    try:
        sent = json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None
    return sent if isinstance(sent, dict) else None
