"""Routes of extensions of AUTOMATIC1111 that its clients have methods for, and that have no counterpart here.

What lists something answers with an empty list, because clients ask at their start; what makes something is refused
with what to do instead. A path that is simply missing would say that the address is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from webui.api.common import AsciiJSON
from webui.api.sdapi.context import Context
from webui.api.sdapi.errors import SdapiRoute
from webui.errors import InvalidParams

_NO_CONTROL = ("ControlNet's units are not here.", "POST /sdapi/v1/txt2img or img2img makes the picture without them.")
_NO_OBJECTS = ("Objects are not found in pictures here.", "Send a mask of your own to /sdapi/v1/img2img.")
_NO_WORDS = ("Pictures are not described in words here.", "POST /sdapi/v1/png-info reads the prompt one carries.")

REFUSED: dict[str, tuple[str, str]] = {
    "/controlnet/txt2img": _NO_CONTROL,
    "/controlnet/img2img": _NO_CONTROL,
    "/instruct-pix2pix/img2img": (
        "Pictures are not edited by instructions here.",
        "POST /sdapi/v1/img2img with a prompt of what the picture is to show.",
    ),
    "/rembg": (
        "Backgrounds are not removed here.",
        "Send a mask to /sdapi/v1/img2img to draw a part of a picture anew.",
    ),
    "/promptgen/generate": ("Prompts are not made up here.", "Write __name__ for a line of a wildcard file."),
    "/tagger/v1/interrogate": _NO_WORDS,
    "/sam/sam-predict": _NO_OBJECTS,
    "/sam/dino-predict": _NO_OBJECTS,
    "/sam/dilate-mask": _NO_OBJECTS,
    "/sam/controlnet-seg": _NO_OBJECTS,
    "/sam/category-mask": _NO_OBJECTS,
}
EMPTY: dict[str, Any] = {
    "/promptgen/list_models": {"available_models": []},
    "/tagger/v1/interrogators": {"models": []},
    "/sam/sam-model": [],
}
# What the client of that extension takes out of any answer to /sam/sam-predict, whatever its status.
_NO_MASKS: dict[str, Any] = {"blended_images": [], "masks": [], "masked_images": []}


def absent_routes(context: Context) -> APIRouter:
    """The routes of both tables, and the two that say how things are."""
    router = APIRouter(route_class=SdapiRoute)
    for path, answer in EMPTY.items():
        router.add_api_route(path, _always(answer), methods=["GET"], name=_name(path), description="There are none.")
    for path, (message, advice) in REFUSED.items():
        refuse = _segmentation(message, advice) if path.startswith("/sam/") else _refusal(message, advice)
        router.add_api_route(path, refuse, methods=["POST"], name=_name(path), description=f"{message} {advice}")

    @router.get("/sam/heartbeat")
    def heartbeat() -> AsciiJSON:
        """Whether Segment Anything works: it is not here."""
        return _segmentation(*_NO_OBJECTS)()

    @router.get("/model_keyword/get_keywords")
    def keywords() -> dict[str, Any]:
        """The words that the selected checkpoint wants to hear, from its notes."""
        settings = context.store.current.model
        model = context.catalog.default_checkpoint(settings.checkpoint, allow_pickle=settings.allow_pickle)
        words = model.notes.activation_text if model is not None and model.notes is not None else ""
        return {
            "keywords": [word for word in (part.strip() for part in words.split(",")) if word],
            "model": model.name if model is not None else "",
            "hash": (model.short_hash if model is not None else None) or "",
            "match_source": "notes" if words else "",
        }

    return router


def _name(path: str) -> str:
    return path.strip("/").replace("/", "_").replace("-", "_")


def _always(answer: Any) -> Callable[[], Any]:
    return lambda: answer


def _refusal(message: str, advice: str) -> Callable[[], Any]:
    def refuse() -> None:
        raise InvalidParams(message, advice)

    return refuse


def _segmentation(message: str, advice: str) -> Callable[[], AsciiJSON]:
    """The same in the words of Segment Anything's client, which reads `msg` without looking at the status."""

    def refuse() -> AsciiJSON:
        error = InvalidParams(message, advice)
        content = {**error.to_dict(), "detail": str(error), "msg": str(error), **_NO_MASKS}
        return AsciiJSON(content, status_code=error.status)

    return refuse
