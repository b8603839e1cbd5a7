"""Pictures to start from: upload one, get its reference, look at it again.

A job names pictures by reference alone (`init.image`, `inpaint.mask`, ...), so a mask travels as one small file and a
large picture once, however many jobs use it. Somebody else's picture is answered like one that does not exist.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from webui.api.common import ERRORS, AsciiJSON
from webui.api.pictures import IMMUTABLE, MEDIA_TYPES, Owns, own_picture_file
from webui.api.responses import ErrorView, InputView
from webui.api.viewer import CurrentViewer
from webui.errors import BadPicture, InvalidParams
from webui.identity import Viewer
from webui.inputs import MAX_BYTES, InputPicture, InputRights, InputStore, not_here

_BODY: dict[str, Any] = {
    "requestBody": {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}, "required": False}
}


async def bounded_body(request: Request, limit: int = MAX_BYTES) -> bytes:
    """The body as it comes in, given up as soon as it is above `limit` bytes. Raises `BadPicture`."""
    collected = bytearray()
    async for piece in request.stream():
        if len(collected) + len(piece) > limit:
            raise BadPicture(f"The file is larger than {limit // 2**20} MB.", "Use a smaller picture.")
        collected += piece
    return bytes(collected)


def view_of(found: InputPicture) -> InputView:
    return InputView(
        reference=found.reference,
        width=found.width,
        height=found.height,
        format=found.format,
        has_alpha=found.has_alpha,
        url=f"/inputs/{found.reference}",
    )


def input_routes(store: InputStore, outputs: Path, owns: Owns, rights: InputRights) -> APIRouter:
    """The routes below /inputs."""
    router = APIRouter(prefix="/inputs", tags=["inputs"], responses=ERRORS)

    def require(viewer: Viewer, reference: str) -> None:
        if not rights.may_use(viewer, reference):
            raise not_here(reference)

    @router.post(
        "",
        status_code=201,
        response_model=InputView,
        responses={507: {"model": ErrorView, "description": "The disk refuses"}},
        openapi_extra=_BODY,
    )
    async def upload(
        request: Request,
        viewer: CurrentViewer,
        output: Annotated[str | None, Query(max_length=1024)] = None,
    ) -> AsciiJSON:
        """Keep a picture to start from. The body is the file itself (PNG, JPEG, WEBP or AVIF, at most 64 MB and 200
        megapixels).

        `?output=NAME` takes a saved picture (its name below /outputs/) instead; the body is then empty.
        """
        if output is not None:
            path, _ = await run_in_threadpool(own_picture_file, outputs, owns, viewer, output)
            if path.stat().st_size > MAX_BYTES:
                raise BadPicture(f"The file is larger than {MAX_BYTES // 2**20} MB.", "Use a smaller picture.")
            data = await run_in_threadpool(path.read_bytes)
        else:
            data = await bounded_body(request)
        if not data:
            raise InvalidParams("The request holds no picture.", "Send the bytes of a PNG, JPEG, WEBP or AVIF file.")
        found = await run_in_threadpool(store.add, data, viewer.name)
        return AsciiJSON(view_of(found).model_dump(), status_code=201)

    @router.get("/{reference}/info", response_model=InputView)
    def info(reference: str, viewer: CurrentViewer) -> InputView:
        """Size and format of a stored picture."""
        require(viewer, reference)
        return view_of(store.look(reference))

    @router.get("/{reference}", response_class=FileResponse)
    def picture(reference: str, viewer: CurrentViewer) -> FileResponse:
        """The stored file, byte for byte."""
        require(viewer, reference)
        path = store.path(reference)
        return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], headers=IMMUTABLE)

    return router
