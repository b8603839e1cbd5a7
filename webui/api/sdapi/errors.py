"""Errors in the form that clients of AUTOMATIC1111 read, with ours beside it.

There: `{"error": class, "detail": text, "body": "", "errors": text}`, and for a body of the wrong shape FastAPI's
`{"detail": [{loc, msg, type}]}`. `message` and `advice` are added, so that a client of either kind finds its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from webui.api.common import AsciiJSON, headers_of
from webui.errors import InvalidParams, WebUIError, printable


class SdapiRoute(APIRoute):
    """A route whose errors have that form, and whose answers tell their seconds, as there."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except WebUIError as error:
                content = {**error.to_dict(), "detail": str(error), "body": "", "errors": error.message}
                return AsciiJSON(content, status_code=error.status, headers=headers_of(error))
            except RequestValidationError as error:
                return AsciiJSON(_invalid(error), status_code=422)

        async def timed(request: Request) -> Response:
            began = time.perf_counter()
            response = await answered(request)
            response.headers["x-process-time"] = f"{time.perf_counter() - began:.4f}"
            return response

        return timed


def _invalid(error: RequestValidationError) -> dict[str, Any]:
    details = [
        {"loc": [part if isinstance(part, int) else printable(str(part))[:80] for part in item["loc"]],
         "msg": printable(item["msg"]), "type": item["type"]}
        for item in error.errors()[:20]
    ]  # fmt: skip
    first = "; ".join(f"{'.'.join(map(str, one['loc'][1:])) or 'request'}: {one['msg']}" for one in details[:5])
    return {**InvalidParams(f"{first}.", "Correct the value and try again.").to_dict(), "detail": details}
