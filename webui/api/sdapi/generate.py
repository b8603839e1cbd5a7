"""POST txt2img and img2img: one request, one answer with its pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from webui.api.common import AsciiJSON
from webui.api.making import Result, make
from webui.api.sdapi.answers import generation_answer
from webui.api.sdapi.context import Context
from webui.api.sdapi.errors import SdapiRoute
from webui.api.sdapi.requests import Generation, Img2Img, Txt2Img
from webui.api.sdapi.responses import GenerationView
from webui.api.sdapi.translate import Order, img2img, txt2img
from webui.api.viewer import CurrentViewer
from webui.identity import Viewer


def generate_routes(context: Context) -> APIRouter:
    """/txt2img and /img2img."""
    router = APIRouter(route_class=SdapiRoute)

    @router.post("/txt2img", response_model=GenerationView)
    async def text_to_image(body: Txt2Img, viewer: CurrentViewer) -> AsciiJSON:
        """Make pictures from a prompt. Answers when they are finished.

        `images` are base64, in the format that `samples_format` names; `info` is JSON as text. With `save_images` they
        are saved and part of the history, otherwise they are kept nowhere.
        """
        body = await run_in_threadpool(context.understood, body)
        return await _answer(context, body, viewer, lambda options: txt2img(body, options, context.tools(viewer.name)))

    @router.post("/img2img", response_model=GenerationView)
    async def image_to_image(body: Img2Img, viewer: CurrentViewer) -> AsciiJSON:
        """Make pictures from a picture and a prompt, of all of it or of what a mask marks white."""
        body = await run_in_threadpool(context.understood, body)
        return await _answer(
            context,
            body,
            viewer,
            lambda options: img2img(body, options, context.tools(viewer.name)),
            keep_inputs=body.include_init_images,
        )

    return router


async def _answer(
    context: Context,
    body: Generation,
    viewer: Viewer,
    translate: Callable[[dict[str, Any]], Order],
    *,
    keep_inputs: bool = False,
) -> AsciiJSON:
    def prepare() -> Order:
        return translate(context.options.effective(context.overrides(body)))

    order = await run_in_threadpool(prepare)
    results: list[Result] = []
    for params in order.jobs:
        results.append(
            await make(
                context.jobs,
                context.outputs,
                params,
                viewer.name,
                started=lambda job: context.tasks.add(viewer.name, body.force_task_id, job),
            )
        )
        if results[-1].view["state"] != "done":
            break  # interrupted: what comes after it was not asked for any more
    scripts = {name for name, panel in context.extensions.panels().items() if panel.kind == "script"}
    answer = await run_in_threadpool(generation_answer, body, order, results, keep_inputs=keep_inputs, scripts=scripts)
    return AsciiJSON(answer)
