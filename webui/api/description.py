"""The API's description in OpenAPI: what FastAPI derives from the routes, and the shapes that routes read by hand."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from webui.params import GenerationParams

_REFERENCE = "#/components/schemas/{model}"


def describe(app: FastAPI) -> None:
    """Have `app.openapi()` name every shape that a route of it refers to."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            params = GenerationParams.model_json_schema(ref_template=_REFERENCE)
            shapes = schema.setdefault("components", {}).setdefault("schemas", {})
            shapes.update(params.pop("$defs", {}))
            shapes["GenerationParams"] = params
            app.openapi_schema = schema
        return app.openapi_schema

    setattr(app, "openapi", openapi)  # noqa: B010  # FastAPI's own way to replace it
