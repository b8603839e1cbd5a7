"""Shared by the route files: one error form, strict bodies, and a JSON writer that cannot fail on hostile text."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from webui.api.responses import ErrorView
from webui.errors import InvalidParams, QueueFull, WebUIError

NO_STORE = {"cache-control": "no-store"}  # for what may be another answer the next time
MAX_JSON = 2 * 2**20  # bytes; a prompt has at most 200,000 characters

ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorView, "description": text}
    for code, text in ((404, "No such job, picture or file"), (422, "A value cannot be used"))
}


class AsciiJSON(JSONResponse):
    """Pure ASCII: a lone surrogate in an echoed name is escaped instead of failing to encode."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


async def json_body(request: Request) -> bytes:
    """The raw body of a JSON request. Raises `InvalidParams` when it is too long or of another type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise InvalidParams("The request is not JSON.", "Send it with content-type application/json.")
    body = await request.body()
    if len(body) > MAX_JSON:
        raise InvalidParams("The request is longer than 2 MB.", "Shorten the prompt.")
    return body


JsonBody = Annotated[bytes, Depends(json_body)]


def fields_of(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises `InvalidParams`."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidParams("The request is not valid JSON.", "Send one JSON object.") from None
    if not isinstance(data, dict):
        raise InvalidParams("The request is not a JSON object.", "Send one JSON object.")
    return data


def headers_of(error: WebUIError) -> dict[str, str] | None:
    """What the answer to an error has to say besides its body."""
    return {"retry-after": str(error.retry_after)} if isinstance(error, QueueFull) else None


def add_error_handlers(app: FastAPI) -> None:
    """Every error of a route, ours or the framework's, in the one form."""

    @app.exception_handler(WebUIError)
    def expected(_: Request, error: WebUIError) -> AsciiJSON:
        return AsciiJSON(error.to_dict(), status_code=error.status, headers=headers_of(error))

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> AsciiJSON:
        parts = [f"{'.'.join(str(p) for p in e['loc'][1:]) or 'request'}: {e['msg'].lower()}" for e in error.errors()]
        message = "; ".join(parts[:5]) + "."
        return AsciiJSON(InvalidParams(message, "Correct the value and try again.").to_dict(), status_code=422)
