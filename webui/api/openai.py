"""OpenAI's image routes, so that a program that was written for them can point here: its base URL is this server's
address with /v1.

`model` is a checkpoint; OpenAI's own names and "" mean the selected one. Errors have OpenAI's form. An answer with
`url` links to each picture for an hour without a credential, as there; the link shows that one picture alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from webui.api.common import AsciiJSON, headers_of
from webui.api.encoded import encode_picture
from webui.api.making import Made, Result, make
from webui.api.viewer import CurrentViewer
from webui.catalog import can_run
from webui.errors import HistoryUnavailable, InvalidParams, ModelNotFound, NotFound, QueueFull, WebUIError, printable
from webui.identity import Viewer
from webui.params import GenerationParams, make_params

if TYPE_CHECKING:
    from pathlib import Path

    from webui.catalog import Catalog
    from webui.catalog.models import ModelFile
    from webui.history import History
    from webui.jobs.service import JobService
    from webui.settings import SettingsStore

LINK_DAYS = 1 / 24
_FOREIGN_MODEL = re.compile(r"(dall-e|gpt-image|chatgpt-image)", re.IGNORECASE)
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
STEPS = {"low": 12, "medium": 20, "standard": 20, "auto": 20, "high": 30, "hd": 30}


class ImageRequest(BaseModel):
    """POST /v1/images/generations. What is not named here (`user`, `style`, `moderation`, ...) has no effect."""

    model_config = ConfigDict(
        extra="ignore",
        allow_inf_nan=False,
        json_schema_extra={
            "example": {"prompt": "a red apple on a table", "n": 1, "size": "512x512", "response_format": "b64_json"}
        },
    )

    prompt: str
    model: str | None = Field(None, max_length=1024)
    n: Annotated[int | None, Field(ge=1, le=10, strict=True)] = 1
    size: str | None = Field("auto", max_length=20, description='"auto" is the size the checkpoint was trained for')
    quality: Literal["auto", "low", "medium", "high", "standard", "hd"] | None = Field(
        "auto", description="The number of steps: " + ", ".join(f"{name} {steps}" for name, steps in STEPS.items())
    )
    response_format: Literal["url", "b64_json"] | None = "url"
    output_format: Literal["png", "jpeg", "webp"] | None = "png"
    output_compression: Annotated[int | None, Field(ge=0, le=100, strict=True)] = 100


class OpenAIRoute(APIRoute):
    """A route whose errors are `{"error": {"message", "type", "param", "code"}}`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except WebUIError as error:
                return _failure(error)
            except RequestValidationError as error:
                first = error.errors()[0]
                where = ".".join(printable(str(part))[:80] for part in first["loc"][1:])
                return _error(
                    400, f"{where or 'request'}: {first['msg']}", "invalid_request_error", param=where or None
                )

        return handled


def openai_routes(
    jobs: JobService, catalog: Catalog, store: SettingsStore, history: History, outputs: Path, root_path: str = ""
) -> APIRouter:
    """The routes below /v1. `root_path` is where a proxy shows this server ("/studio"), for links to pictures."""
    router = APIRouter(prefix="/v1", tags=["openai"], route_class=OpenAIRoute)

    @router.post("/images/generations")
    async def generate(
        body: ImageRequest,
        request: Request,
        viewer: CurrentViewer,
        idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
    ) -> AsciiJSON:
        """Make pictures from a prompt. Answers when they are finished; they are saved and part of the history."""
        params = await run_in_threadpool(image_params, body, catalog)
        result = await make(jobs, outputs, params, viewer.name, key=idempotency_key)
        links = [""] * len(result.pictures)
        if body.response_format != "b64_json":
            links = await run_in_threadpool(_links, history, viewer, result)
        base = f"{str(request.base_url).rstrip('/')}{root_path}/"
        data = [
            {"url": base + link} if link else {"b64_json": encode_picture(made.data)}
            for link, made in zip(links, result.pictures, strict=True)
        ]
        view = result.view
        return AsciiJSON(
            {
                "created": int(view["finished"] or time.time()),
                "data": data,
                "size": f"{view['params']['width']}x{view['params']['height']}",
                "quality": body.quality or "auto",
                "output_format": view["params"]["image_format"],
            }
        )

    @router.get("/models")
    def models() -> dict[str, Any]:
        """The checkpoints that can run."""
        usable = [model for model in catalog.checkpoints if can_run(model, store.current)]
        return {"object": "list", "data": [_model(model) for model in usable]}

    @router.get("/models/{name:path}")
    def model(name: str) -> dict[str, Any]:
        """One checkpoint."""
        return _model(catalog.find_checkpoint(name))

    return router


def image_params(body: ImageRequest, catalog: Catalog) -> GenerationParams:
    """Raises `InvalidParams` and `ModelNotFound`."""
    params: dict[str, Any] = {
        "prompt": body.prompt,
        "batch_count": body.n or 1,
        "steps": STEPS[body.quality or "auto"],
        "image_format": body.output_format or "png",
        "image_quality": max(1, 100 if body.output_compression is None else body.output_compression),
    }
    if body.model and not _FOREIGN_MODEL.match(body.model):
        params["checkpoint"] = catalog.find_checkpoint(body.model).name
    if body.size and body.size != "auto":
        size = _SIZE.fullmatch(body.size)
        if size is None:
            raise InvalidParams(f"size cannot be {body.size!r}.", 'Write it like "512x768", or "auto".')
        params["width"], params["height"] = int(size[1]), int(size[2])
    return make_params(params)


def _links(history: History, viewer: Viewer, result: Result) -> list[str]:
    """A link for each picture, relative to this server's address; "" for one that the disk did not take."""
    try:
        cards = history.of_job(viewer.scope, result.view["id"])
        ids = {card.picture_index: card.id for card in cards}
        return [_link(history, viewer, made, ids) for made in result.pictures]
    except HistoryUnavailable:  # the pictures are there all the same, for whoever may see them
        return [_file_link(made) for made in result.pictures]


def _link(history: History, viewer: Viewer, made: Made, ids: dict[int, int]) -> str:
    index = made.facts["index"]
    if index not in ids:
        return _file_link(made)
    return f"shared/{history.share(viewer.scope, ids[index], days=LINK_DAYS).token}/picture"


def _file_link(made: Made) -> str:
    return f"outputs/{made.facts['path']}" if made.facts["path"] else ""


def _model(model: ModelFile) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": model.mtime_ns // 10**9, "owned_by": "local"}


def _failure(error: WebUIError) -> AsciiJSON:
    if isinstance(error, ModelNotFound):
        return _error(404, str(error), "invalid_request_error", param="model", code="model_not_found")
    if isinstance(error, QueueFull):
        return _error(429, str(error), "rate_limit_error", code="rate_limit_exceeded", headers=headers_of(error))
    if isinstance(error, NotFound):
        return _error(404, str(error), "invalid_request_error", code="not_found")
    if error.status >= 500:
        return _error(error.status, str(error), "server_error", code=type(error).__name__)
    status = 400 if error.status == 422 else error.status
    return _error(status, str(error), "invalid_request_error")


def _error(
    status: int,
    message: str,
    kind: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> AsciiJSON:
    content = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return AsciiJSON(content, status_code=status, headers=headers)
