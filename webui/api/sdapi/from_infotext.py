"""The `infotext` of a request: what it says fills every field that the request does not give itself."""

from __future__ import annotations

from typing import Any, TypeVar

from webui import infotext
from webui.api.sdapi.options import CHECKPOINT, FIELDS, VAE
from webui.api.sdapi.requests import Generation, Img2Img, Txt2Img

RESIZE_MODES = ("Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)")
FILLS = ("fill", "original", "latent noise", "latent nothing")

G = TypeVar("G", bound=Generation)

_OF_ALL = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "subseed": "variation_seed",
    "subseed_strength": "variation_strength",
    "seed_resize_from_w": "seed_resize_width",
    "seed_resize_from_h": "seed_resize_height",
    "sampler_name": "sampler",
    "scheduler": "schedule",
    "steps": "steps",
    "cfg_scale": "cfg_scale",
    "width": "width",
    "height": "height",
    "eta": "eta",
    "tiling": "tiling_x",
    "refiner_checkpoint": "refiner",
    "refiner_switch_at": "refiner_switch_at",
}
_OF_HIRES = {
    "hr_upscaler": "upscaler",
    "hr_scale": "scale",
    "hr_resize_x": "width",
    "hr_resize_y": "height",
    "hr_second_pass_steps": "steps",
    "denoising_strength": "denoising_strength",
    "hr_sampler_name": "sampler",
    "hr_scheduler": "schedule",
    "hr_cfg": "cfg_scale",
    "hr_prompt": "prompt",
    "hr_negative_prompt": "negative_prompt",
    "hr_checkpoint_name": "checkpoint",
}
_OF_INIT = {"denoising_strength": "denoising_strength", "initial_noise_multiplier": "noise_multiplier"}
_OF_INPAINT = {
    "mask_blur_x": "blur_x",
    "mask_blur_y": "blur_y",
    "inpaint_full_res": "only_masked",
    "inpaint_full_res_padding": "padding",
    "inpainting_mask_invert": "invert",
    "mask_round": "round_mask",
}
_OPTIONS = {**FIELDS, CHECKPOINT: "checkpoint", VAE: "vae", "randn_source": "rng"}


def with_infotext(request: G) -> G:
    """The whole request. What decides a picture and is an option there becomes one of this request alone."""
    if not request.infotext:
        return request
    found = infotext.parse(request.infotext).params
    values = _taken(found, _OF_ALL)
    if isinstance(request, Txt2Img) and (hires := found.get("hires")):
        values.update(_taken(hires, _OF_HIRES), enable_hr=True)
    if isinstance(request, Img2Img):
        values.update(_of_picture(found))
    given = request.model_fields_set
    values = {name: value for name, value in values.items() if name not in given}
    if "sampler_index" in given:
        values.pop("sampler_name", None)
    overrides = {key: found[field] for key, field in _OPTIONS.items() if found.get(field) is not None}
    if faces := found.get("faces"):
        values.setdefault("restore_faces", True)
        overrides |= {"face_restoration_model": faces["model"], "code_former_weight": faces["codeformer_weight"]}
    if found.get("zero_terminal_snr"):
        overrides["sd_noise_schedule"] = "Zero Terminal SNR"
    values["override_settings"] = {**overrides, **request.override_settings}
    return request.model_copy(update=values)


def _taken(found: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {name: found[ours] for name, ours in names.items() if found.get(ours) is not None}


def _of_picture(found: dict[str, Any]) -> dict[str, Any]:
    """What an infotext says of a picture to start from and its mask; the pictures themselves are in the request."""
    values: dict[str, Any] = {}
    if init := found.get("init"):
        values.update(_taken(init, _OF_INIT), resize_mode=RESIZE_MODES.index(init["resize_mode"]))
    if inpaint := found.get("inpaint"):
        values.update(_taken(inpaint, _OF_INPAINT), inpainting_fill=FILLS.index(inpaint["fill"]))
    return values
