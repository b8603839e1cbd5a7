"""Saved pictures, byte for byte from the outputs folder, and what the text inside a picture says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from webui import pictures
from webui.api.common import ERRORS, AsciiJSON
from webui.api.parameters import ParametersReader
from webui.api.responses import PictureText
from webui.api.viewer import CurrentViewer
from webui.errors import InvalidParams, NotFound
from webui.identity import Viewer
from webui.paths import safe_path
from webui.pictures.containers import sniff

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".avif": "image/avif",
}
PICTURE: dict[int | str, dict[str, Any]] = {200: {"content": {kind: {} for kind in sorted(set(MEDIA_TYPES.values()))}}}
# A picture's name is never used twice, so what a browser has is right for ever; it is nobody else's to keep.
IMMUTABLE = {"cache-control": "private, max-age=31536000, immutable"}
MAX_PICTURE = 64 * 2**20  # bytes


def picture_file(outputs: Path, name: str) -> tuple[Path, str]:
    """The saved picture of that relative name, and its media type. Raises `NotFound`, also for what is hidden."""
    path = safe_path(outputs, name)
    media_type = MEDIA_TYPES.get(path.suffix.lower())
    parts = (*name.split("/"), *path.relative_to(outputs.resolve()).parts)  # as asked for, and where a link leads
    if media_type is None or any(part.startswith(".") for part in parts):
        raise NotFound("There is no such file.", "Refresh the list; it may have been moved or deleted.")
    return path, media_type


def picture_response(path: Path, *, download: bool = False) -> FileResponse:
    """A picture's file as it lies on the disk, which browsers ask for again. Raises `NotFound`."""
    media_type = MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None:
        raise NotFound("There is no such file.", "Refresh the list; it may have been moved or deleted.")
    kind: Literal["attachment", "inline"] = "attachment" if download else "inline"
    headers = {"cache-control": "private, no-cache"}
    return FileResponse(path, media_type=media_type, filename=path.name, content_disposition_type=kind, headers=headers)


Owns = Callable[[Viewer, str], bool]
"""Whether a saved picture, by its relative name, is a viewer's to see."""


def own_picture_file(outputs: Path, owns: Owns, viewer: Viewer, name: str) -> tuple[Path, str]:
    """The same, of the viewer's own pictures. Raises `NotFound`, in the same words for what is somebody else's."""
    path, media_type = picture_file(outputs, name)
    if not owns(viewer, path.relative_to(outputs.resolve()).as_posix()):
        raise NotFound("There is no such file.", "Refresh the list; it may have been moved or deleted.")
    return path, media_type


def media_type(data: bytes) -> str:
    """The media type of a picture that this program encoded."""
    return f"image/{(sniff(data) or 'PNG').lower()}"


def describe(data: bytes, reader: ParametersReader) -> PictureText:
    """Everything a picture's bytes tell. Raises `webui.errors` for what is no picture."""
    with pictures.opened(data, formats=("PNG", "JPEG", "WEBP", "AVIF", "GIF")) as image:
        text, other = pictures.read_text(data, image)
        size, kind = image.size, str(image.format or "").upper()
    del image  # it may be large, and the rest takes its time
    parsed = reader.view(reader.read(text, other, size))
    return PictureText(
        **parsed.model_dump(),
        infotext=text,
        other=other,
        width=size[0],
        height=size[1],
        format=kind,
    )


def picture_routes(outputs: Path, reader: ParametersReader, owns: Owns) -> APIRouter:
    """/outputs/<name> and /png-info."""
    router = APIRouter(tags=["pictures"], responses=ERRORS)

    @router.get("/outputs/{name:path}", response_class=FileResponse)
    def output(name: str, viewer: CurrentViewer) -> FileResponse:
        """A saved picture, exactly as it lies on the disk."""
        path, media_type = own_picture_file(outputs, owns, viewer, name)
        return FileResponse(path, media_type=media_type, headers=IMMUTABLE)

    @router.post(
        "/png-info",
        response_model=PictureText,
        openapi_extra={"requestBody": {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}},
    )
    async def png_info(request: Request) -> AsciiJSON:
        """What the text inside a picture says. The body is the picture's bytes; nothing is written to the disk."""
        data = await request.body()
        if not data or len(data) > MAX_PICTURE:
            raise InvalidParams(
                "The request holds no picture, or one above 64 MB.", "Send a PNG, JPEG, WEBP or AVIF file."
            )
        from starlette.concurrency import run_in_threadpool

        return AsciiJSON((await run_in_threadpool(describe, data, reader)).model_dump())

    return router
