"""What txt2img and img2img answer: pictures as base64, the request as it was understood, and `info` as JSON text."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from webui import infotext
from webui.api.encoded import encode_picture
from webui.api.making import Result
from webui.api.sdapi.requests import Generation
from webui.api.sdapi.translate import Order
from webui.params import make_params

_PICTURES = ("init_images", "mask", "firstpass_image")  # of a request; large, and the client has them


def generation_answer(request: Generation, order: Order, results: Sequence[Result], *, keep_inputs: bool) -> Any:
    """The whole answer for one request, whose jobs are over."""
    parameters = request.model_dump()
    if not keep_inputs:
        parameters.update({name: None for name in _PICTURES if name in parameters})
    images = [made for result in results for made in result.pictures] if request.send_images else []
    return {
        "images": [encode_picture(made.data) for made in images],
        "parameters": parameters,
        "info": json.dumps(generation_info(request, order, results)),
    }


def generation_info(request: Generation, order: Order, results: Sequence[Result]) -> dict[str, Any]:
    """The facts of what was made, in that program's words; lists have one entry a picture."""
    texts = [made.facts["infotext"] for result in results for made in result.pictures]
    seeds, subseeds = _seeds(results)
    read = [infotext.parse(text) for text in texts]
    fields = read[0].fields if read else {}
    params = order.jobs[0] if not results else make_params(_plain(results[0].view["params"]))
    prompts = [one.prompt for one in read] or [params.prompt]
    negatives = [one.negative_prompt for one in read] or [params.negative_prompt]
    notes = [*order.notes, *(warning["text"] for result in results for warning in result.view["warnings"])]
    started = results[0].view["started"] if results else None
    return {
        "prompt": prompts[0],
        "all_prompts": prompts,
        "negative_prompt": negatives[0],
        "all_negative_prompts": negatives,
        "seed": seeds[0] if seeds else params.seed,
        "all_seeds": seeds,
        "subseed": subseeds[0] if subseeds else params.variation_seed,
        "all_subseeds": subseeds,
        "subseed_strength": params.variation_strength,
        "width": params.width,
        "height": params.height,
        "sampler_name": params.sampler,
        "scheduler": params.schedule,
        "cfg_scale": params.cfg_scale,
        "steps": params.steps,
        "batch_size": params.batch_size,
        "restore_faces": params.faces is not None,
        "face_restoration_model": params.faces and params.faces.model,
        "sd_model_name": fields.get("Model", ""),
        "sd_model_hash": fields.get("Model hash", ""),
        "sd_vae_name": fields.get("VAE"),
        "sd_vae_hash": fields.get("VAE hash"),
        "seed_resize_from_w": params.seed_resize_width or -1,
        "seed_resize_from_h": params.seed_resize_height or -1,
        "denoising_strength": _denoising(request),
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": list(order.styles),
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(started)) if started else "0",
        "clip_skip": params.clip_skip,
        "is_using_inpainting_conditioning": False,
        "version": infotext.VERSION,
        "job_id": results[0].view["id"] if results else "",
        "warnings": notes,
    }


def _seeds(results: Sequence[Result]) -> tuple[list[int], list[int]]:
    seeds: list[int] = []
    subseeds: list[int] = []
    for result in results:
        params = make_params(_plain(result.view["params"]))
        for made in result.pictures:
            seeds.append(made.facts["seed"])
            subseeds.append(params.seeds_of(made.facts["index"])[1])
    return seeds, subseeds


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    """A view's params, as JSON has them, as the model takes them: it knows tuples where JSON has lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}


def _denoising(request: Generation) -> float | None:
    uses = getattr(request, "enable_hr", True)
    return request.denoising_strength if uses else None
