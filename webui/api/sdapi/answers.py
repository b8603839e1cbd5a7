"""What txt2img and img2img answer: pictures as base64, the request as it was understood, and `info` as JSON text."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

from webui import infotext
from webui.api.encoded import encode_picture
from webui.api.making import Made, Result
from webui.api.sdapi.requests import Generation
from webui.api.sdapi.translate import Order
from webui.params import make_params

_PICTURES = ("init_images", "mask", "firstpass_image")  # of a request; large, and the client has them
_Made: TypeAlias = tuple[Result, Made]


def generation_answer(
    request: Generation,
    order: Order,
    results: Sequence[Result],
    *,
    keep_inputs: bool,
    scripts: Collection[str] = frozenset(),
) -> Any:
    """The whole answer for one request, whose jobs are over. `scripts`: the extensions that make many jobs of one.

    Their sheets come first, as there, and `index_of_first_image` is the place of the first picture behind them.
    """
    pictures, sheets = _sheets_first(results, scripts)
    parameters = request.model_dump()
    if not keep_inputs:
        parameters.update({name: None for name in _PICTURES if name in parameters})
    return {
        "images": [encode_picture(made.data) for _, made in pictures] if request.send_images else [],
        "parameters": parameters,
        "info": json.dumps(_info(request, order, results, pictures, sheets)),
    }


def _sheets_first(results: Sequence[Result], scripts: Collection[str]) -> tuple[list[_Made], int]:
    """All pictures in the order of the answer, and how many of them are sheets.

    A sheet is recorded under the whole request, script included; what a script makes, under what it made of it.
    """
    everything = [(result, made) for result in results for made in result.pictures]
    named = [infotext.parse(made.facts["infotext"]).params.get("extensions") or {} for _, made in everything]
    of_all = [any(name in scripts for name in names) for names in named]
    by_kind = sorted(zip(of_all, everything, strict=True), key=lambda pair: not pair[0])  # stable: in their order
    return [one for _, one in by_kind], sum(of_all)


def _info(
    request: Generation, order: Order, results: Sequence[Result], pictures: Sequence[_Made], sheets: int
) -> dict[str, Any]:
    """The facts of what was made, in that program's words; lists have one entry a picture."""
    texts = [made.facts["infotext"] for _, made in pictures]
    seeds, subseeds = _seeds(pictures)
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
        "index_of_first_image": sheets,
        "infotexts": texts,
        "styles": list(order.styles),
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(started)) if started else "0",
        "clip_skip": params.clip_skip,
        "is_using_inpainting_conditioning": False,
        "version": infotext.VERSION,
        "job_id": results[0].view["id"] if results else "",
        "warnings": notes,
    }


def _seeds(pictures: Sequence[_Made]) -> tuple[list[int], list[int]]:
    seeds: list[int] = []
    subseeds: list[int] = []
    for result, made in pictures:
        seeds.append(made.facts["seed"])
        subseeds.append(make_params(_plain(result.view["params"])).seeds_of(made.facts["index"])[1])
    return seeds, subseeds


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    """A view's params, as JSON has them, as the model takes them: it knows tuples where JSON has lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}


def _denoising(request: Generation) -> float | None:
    uses = getattr(request, "enable_hr", True)
    return request.denoising_strength if uses else None
