"""Routes that read or repair a finished picture: extras, png-info, interrogate."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from webui import infotext, pictures
from webui.api.common import AsciiJSON
from webui.api.encoded import decode_picture, encode_picture
from webui.api.making import make
from webui.api.sdapi.context import Context
from webui.api.sdapi.errors import SdapiRoute
from webui.api.sdapi.requests import Extras, ExtrasBatch, ExtrasSingle, ImageBody
from webui.api.sdapi.responses import ExtrasBatchView, ExtrasView, PngInfoView
from webui.api.viewer import CurrentViewer
from webui.errors import InvalidParams, NotFound
from webui.identity import Viewer
from webui.names import NO_MODEL, NO_UPSCALER
from webui.params import GenerationParams, make_params


def picture_routes(context: Context) -> APIRouter:
    """/extra-single-image, /extra-batch-images, /png-info and /interrogate."""
    router = APIRouter(route_class=SdapiRoute)

    @router.post("/extra-single-image", response_model=ExtrasView)
    async def extra_single(body: ExtrasSingle, viewer: CurrentViewer) -> AsciiJSON:
        """Enlarge a picture, restore its faces. Nothing is saved."""
        data, text = await _enhanced(context, body, body.image, "image", viewer)
        return AsciiJSON({"html_info": text, "image": encode_picture(data)})

    @router.post("/extra-batch-images", response_model=ExtrasBatchView)
    async def extra_batch(body: ExtrasBatch, viewer: CurrentViewer) -> AsciiJSON:
        """Enlarge several pictures and restore their faces, one after the other. Nothing is saved."""
        if not body.imageList:
            raise InvalidParams("imageList: there is no picture.", "Send at least one.")
        done = [await _enhanced(context, body, one.data, "imageList", viewer) for one in body.imageList]
        return AsciiJSON({"html_info": done[-1][1], "images": [encode_picture(data) for data, _ in done]})

    @router.post("/png-info", response_model=PngInfoView)
    def png_info(body: ImageBody) -> AsciiJSON:
        """The parameters text inside a picture, as text and taken apart, and its other texts."""
        data = decode_picture(body.image)
        with pictures.opened(data, formats=("PNG", "JPEG", "WEBP", "AVIF", "GIF")) as image:
            text, other = pictures.read_text(data, image)
            size = image.size
        del image  # it may be large, and the rest takes its time
        own = context.extensions.foreign_text(text, other)
        parsed = infotext.parse_chunks(text, other, size=size) if own is None else infotext.parse(own)
        return AsciiJSON({"info": text, "items": other, "parameters": parsed.as_a1111() if text or other else {}})

    @router.post("/interrogate")
    def interrogate() -> dict[str, str]:
        """Describing pictures in words needs a model of its own, which is not here."""
        raise NotFound(
            "Model not found: pictures are not described in words here.",
            "POST /sdapi/v1/png-info reads the prompt that a picture carries.",
        )

    return router


def extras_params(context: Context, body: Extras, image: str, what: str, user: str) -> GenerationParams:
    """The job for one picture. Raises `InvalidParams` and `BadPicture`."""
    extras: dict[str, Any] = {
        "image": context.inputs.add(decode_picture(image, what), user).reference,
        "upscaler": body.upscaler_1 or NO_UPSCALER,
        "upscaler_2": body.upscaler_2 or NO_UPSCALER,
        "upscaler_2_visibility": body.extras_upscaler_2_visibility,
        "crop": body.upscaling_crop,
    }
    if body.upscaler_1 in ("", NO_UPSCALER):
        extras["scale"] = 1.0  # as there: without an upscaler the size stays
    elif body.resize_mode == 0:
        extras["scale"] = body.upscaling_resize
    else:
        extras.update(width=body.upscaling_resize_w, height=body.upscaling_resize_h)
    return make_params({"extras": extras, "faces": _faces(body), "save": False, "seed": 0, "variation_seed": 0})


def _faces(body: Extras) -> dict[str, Any] | None:
    """Which networks restore faces: GFPGAN before CodeFormer, as there."""
    both = (("GFPGAN", body.gfpgan_visibility), ("CodeFormer", body.codeformer_visibility))
    wanted = [(name, visibility) for name, visibility in both if visibility > 0]
    if not wanted:
        return None
    (model, visibility), (model_2, visibility_2) = [*wanted, (NO_MODEL, 0.0)][:2]
    return {
        "model": model,
        "visibility": visibility,
        "model_2": model_2,
        "visibility_2": visibility_2,
        "codeformer_weight": body.codeformer_weight,
    }


async def _enhanced(context: Context, body: Extras, image: str, what: str, viewer: Viewer) -> tuple[bytes, str]:
    params = await run_in_threadpool(extras_params, context, body, image, what, viewer.name)
    result = await make(context.jobs, context.outputs, params, viewer.name)
    if not result.pictures:
        raise InvalidParams("The job was ended before the picture was ready.", "Send it again.")
    made = result.pictures[0]
    notes = "".join(f"<p>{escape(warning['text'])}</p>" for warning in result.view["warnings"])
    return made.data, f"<p>{escape(made.facts['infotext'])}</p>{notes}"
