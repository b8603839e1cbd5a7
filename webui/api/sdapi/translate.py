"""From a request in AUTOMATIC1111's words to `GenerationParams`, and notes on what had no effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from webui.api.encoded import decode_picture
from webui.api.sdapi.from_infotext import FILLS, RESIZE_MODES, with_infotext
from webui.api.sdapi.options import CHECKPOINT, FIELDS, FORMAT, VAE
from webui.api.sdapi.requests import Generation, Img2Img, Txt2Img
from webui.api.sdapi.scripts import Scripts, read_scripts
from webui.errors import InvalidParams
from webui.extensions.manifest import Panel
from webui.names import AUTOMATIC, find_sampler
from webui.params import MAX_PICTURES, SIDE_MULTIPLE, GenerationParams, make_params
from webui.prompt import strip_networks

_FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp", "avif": "avif"}
_SAME = "use same"  # what the page of that program writes where a second pass takes over the first one's choice

Keep = Callable[[bytes], str]
"""Puts a picture into the store of inputs and gives its reference."""

Styled = Callable[[str, str, Sequence[str]], tuple[str, str]]
"""Merges named styles into prompt and negative prompt."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What translating a request takes. `panels` are those of the extensions that are on; `restores` says whether
    there is a face restoration model of that name."""

    styled: Styled
    keep: Keep
    panels: Mapping[str, Panel]
    restores: Callable[[str], bool] = lambda _name: False


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks for. `jobs`: one for each picture to start from, mostly a single one."""

    jobs: tuple[GenerationParams, ...]
    notes: tuple[str, ...]
    styles: tuple[str, ...] = ()


def txt2img(request: Txt2Img, options: dict[str, Any], tools: Tools) -> Order:
    """Raises `InvalidParams` for everything that cannot be made."""
    request = with_infotext(request)
    params, notes = _common(request, options, tools, _scripts(request, tools))
    if request.enable_hr:
        params["hires"] = _hires(request, params, tools.keep)
    return Order((make_params(params),), tuple(notes), tuple(request.styles or ()))


def img2img(request: Img2Img, options: dict[str, Any], tools: Tools) -> Order:
    """Raises `InvalidParams` for everything that cannot be made."""
    request = with_infotext(request)
    if not request.init_images:
        raise InvalidParams("init_images: there is no picture to start from.", "Send one as base64.")
    scripts = _scripts(request, tools)
    params, notes = _common(request, options, tools, scripts)
    init = _init(request, options)
    if request.mask:
        params["inpaint"] = _inpaint(request, options, tools.keep(decode_picture(request.mask, "mask")))
        params["inpaint"]["soft"] = scripts.soft_inpainting
    references = [tools.keep(decode_picture(image, "init_images")) for image in request.init_images]
    if len(references) == 1:
        params["init"] = {**init, "image": references[0]}
        return Order((make_params(params),), tuple(notes), tuple(request.styles or ()))
    first = (
        make_params({**params, "batch_size": 1}).changed(batch_count=1).with_fixed_seeds()
    )  # n_iter is looked at, too
    if len(references) * request.n_iter > MAX_PICTURES:
        raise InvalidParams(f"n_iter: more than {MAX_PICTURES} pictures were asked for.", "Ask for fewer.")
    jobs = [
        first.changed(
            init={**init, "image": reference},
            seed=first.seed if first.variation_strength else first.seed + number,
            variation_seed=first.variation_seed + number,
        )
        for number, reference in enumerate(references * request.n_iter)
    ]
    return Order(tuple(jobs), tuple(notes), tuple(request.styles or ()))


def _scripts(request: Generation, tools: Tools) -> Scripts:
    return read_scripts(
        tools.panels,
        request.script_name,
        request.script_args,
        request.alwayson_scripts,
        img2img=isinstance(request, Img2Img),
    )


def _common(
    request: Generation, options: dict[str, Any], tools: Tools, scripts: Scripts
) -> tuple[dict[str, Any], list[str]]:
    notes = list(scripts.notes)
    prompt, negative = tools.styled(request.prompt, request.negative_prompt, request.styles or ())
    if request.disable_extra_networks:
        prompt, negative = strip_networks(prompt), strip_networks(negative)
    sampler = request.sampler_name or request.sampler_index
    params: dict[str, Any] = {field: options[key] for key, field in FIELDS.items()}
    params.update(
        prompt=prompt,
        negative_prompt=negative,
        sampler=sampler,
        steps=request.steps,
        cfg_scale=request.cfg_scale,
        seed=request.seed,
        variation_seed=request.subseed,
        variation_strength=request.subseed_strength,
        batch_size=request.batch_size,
        batch_count=request.n_iter,
        width=_side(request.width),
        height=_side(request.height),
        eta=_eta(request, options, sampler),
        rng=options["randn_source"],
        zero_terminal_snr=options["sd_noise_schedule"] != "Default",
        image_format=_FORMATS[options[FORMAT]],
        image_quality=options["jpeg_quality"],
        save=request.save_images,
        extensions=scripts.extensions,
        sd_upscale=scripts.sd_upscale,
        **_refiner(request, scripts),
    )
    if request.scheduler:
        params["schedule"] = request.scheduler
    if options[CHECKPOINT]:
        params["checkpoint"] = options[CHECKPOINT]
    if options[VAE]:
        params["vae"] = options[VAE]
    if request.tiling if request.tiling is not None else options["tiling"]:
        params.update(tiling_x=True, tiling_y=True)
    if request.seed_resize_from_w > 0 and request.seed_resize_from_h > 0:
        params["seed_resize_width"] = _side(request.seed_resize_from_w)
        params["seed_resize_height"] = _side(request.seed_resize_from_h)
    for name, field in (("s_churn", "s_churn"), ("s_tmin", "s_tmin"), ("s_tmax", "s_tmax"), ("s_noise", "s_noise"),
                        ("s_min_uncond", "negative_guidance_min_sigma")):  # fmt: skip
        if getattr(request, name) is not None:
            params[field] = getattr(request, name)
    if request.restore_faces or (request.restore_faces is None and options["face_restoration"]):
        model = options["face_restoration_model"] or AUTOMATIC
        if tools.restores(model):
            params["faces"] = {"model": model, "codeformer_weight": options["code_former_weight"]}
        else:
            notes.append(
                f'restore_faces had no effect: there is no model "{model}" in models/GFPGAN or models/Codeformer.'
            )
    return params, notes


def _refiner(request: Generation, scripts: Scripts) -> dict[str, Any]:
    """Another checkpoint for the end, by the fields of the request or as the script that stands for them there."""
    name, switch_at = scripts.refiner or (request.refiner_checkpoint, request.refiner_switch_at)
    if not name or name == "None":
        return {}
    return {"refiner": name} if switch_at is None else {"refiner": name, "refiner_switch_at": switch_at}


def _side(pixels: int) -> int:
    """Whole latent cells, rounded down as there; what is below a cell is left to be refused."""
    return pixels // SIDE_MULTIPLE * SIDE_MULTIPLE if pixels > SIDE_MULTIPLE else pixels


def _eta(request: Generation, options: dict[str, Any], sampler: str) -> float | None:
    """The request's own, else the option for its kind of sampler, None where that has the sampler's own value."""
    if request.eta is not None:
        return request.eta
    name, default = ("eta_ddim", 0.0) if find_sampler(sampler)[0].timestep_space else ("eta_ancestral", 1.0)
    value: float = options[name]
    return None if value == default else value


def _hires(request: Txt2Img, params: dict[str, Any], keep: Keep) -> dict[str, Any]:
    """The second pass. The old `firstphase` size makes the request's size the target."""
    hires: dict[str, Any] = {
        "upscaler": request.hr_upscaler or "Latent",
        "scale": request.hr_scale,
        "width": max(0, request.hr_resize_x),
        "height": max(0, request.hr_resize_y),
        "steps": request.hr_second_pass_steps,
        "denoising_strength": request.denoising_strength,
        "prompt": request.hr_prompt,
        "negative_prompt": request.hr_negative_prompt,
    }
    if request.firstphase_width and request.firstphase_height:
        hires.update(width=params["width"], height=params["height"])
        params.update(width=_side(request.firstphase_width), height=_side(request.firstphase_height))
    for field, name in (
        ("sampler", request.hr_sampler_name),
        ("schedule", request.hr_scheduler),
        ("checkpoint", request.hr_checkpoint_name),
    ):
        if name and not name.casefold().startswith(_SAME):
            hires[field] = name
    if request.hr_cfg is not None:
        hires["cfg_scale"] = request.hr_cfg
    if request.firstpass_image:
        hires["first_pass"] = keep(decode_picture(request.firstpass_image, "firstpass_image"))
    return hires


def _init(request: Img2Img, options: dict[str, Any]) -> dict[str, Any]:
    noise = request.initial_noise_multiplier
    return {
        "resize_mode": _choice("resize_mode", RESIZE_MODES, request.resize_mode),
        "denoising_strength": request.denoising_strength,
        "exact_steps": options["img2img_fix_steps"],
        "noise_multiplier": options["initial_noise_multiplier"] if noise is None else noise,
        "extra_noise": options["img2img_extra_noise"],
        "color_correction": options["img2img_color_correction"],
        "background": options["img2img_background_color"].lower(),
    }


def _inpaint(request: Img2Img, options: dict[str, Any], mask: str) -> dict[str, Any]:
    both = request.mask_blur
    return {
        "mask": mask,
        "invert": bool(request.inpainting_mask_invert),
        "blur_x": request.mask_blur_x if both is None else both,
        "blur_y": request.mask_blur_y if both is None else both,
        "fill": _choice("inpainting_fill", FILLS, request.inpainting_fill),
        "only_masked": request.inpaint_full_res,
        "padding": request.inpaint_full_res_padding,
        "round_mask": request.mask_round,
        "conditioning_mask_strength": options["inpainting_mask_weight"],
    }


def _choice(name: str, choices: Sequence[str], number: int) -> str:
    if not 0 <= number < len(choices):
        listed = ", ".join(f"{n} {choice}" for n, choice in enumerate(choices))
        raise InvalidParams(f"{name} cannot be {number}.", f"Choices: {listed}.")
    return choices[number]
