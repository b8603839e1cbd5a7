"""The bodies of requests, field by field with AUTOMATIC1111's names and defaults.

As lenient as there: numbers may be written as text, unknown fields are ignored, null means "not given". Only true and
false are no numbers here, and NaN is none. What a value may be is decided when it becomes `GenerationParams`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from webui.errors import printable

MAX_NAME = 1024  # characters
MAX_IMAGES = 64  # in one request


def _no_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


def _as_number(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def _is_finite(value: Any) -> bool:
    """Whether all numbers in a JSON value are some."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, float) and not math.isfinite(one):
            return False
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return True


Whole = Annotated[int, BeforeValidator(_no_flag)]
Real = Annotated[float, BeforeValidator(_no_flag)]
Switch = Annotated[int, BeforeValidator(_as_number), Field(ge=0, le=1)]
Name = Annotated[str, Field(max_length=MAX_NAME)]


class Body(BaseModel):
    """What all bodies share."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for key, value in data.items():
            if not _is_finite(value):
                raise ValueError(f"{printable(key)} holds a number that is none (NaN or infinite)")
        return {key: value for key, value in data.items() if value is not None}


class Generation(Body):
    """The fields that txt2img and img2img share."""

    prompt: str = ""
    negative_prompt: str = ""
    styles: list[Name] | None = Field(None, max_length=1000)
    seed: Whole = -1
    subseed: Whole = -1
    subseed_strength: Real = 0.0
    seed_resize_from_h: Whole = -1
    seed_resize_from_w: Whole = -1
    sampler_name: Name | None = None
    sampler_index: Name = "Euler"
    scheduler: Name | None = None
    batch_size: Whole = 1
    n_iter: Whole = 1
    steps: Whole = 50
    cfg_scale: Real = 7.0
    width: Whole = 512
    height: Whole = 512
    restore_faces: bool | None = None
    tiling: bool | None = None
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    eta: Real | None = None
    denoising_strength: Real = 0.75
    s_min_uncond: Real | None = None
    s_churn: Real | None = None
    s_tmax: Real | None = None
    s_tmin: Real | None = None
    s_noise: Real | None = None
    override_settings: dict[str, Any] = Field(default_factory=dict, max_length=1000)
    override_settings_restore_afterwards: bool = True
    refiner_checkpoint: Name | None = None
    refiner_switch_at: Real | None = None
    disable_extra_networks: bool = False
    comments: dict[str, Any] = Field(default_factory=dict, max_length=1000)
    script_name: Name | None = None
    script_args: list[Any] = Field(default_factory=list, max_length=1000)
    alwayson_scripts: dict[str, Any] = Field(default_factory=dict, max_length=100)
    send_images: bool = True
    save_images: bool = False
    force_task_id: Annotated[str, Field(max_length=200)] | None = None
    infotext: str | None = None


class Txt2Img(Generation):
    """POST /sdapi/v1/txt2img."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "prompt": "a red apple on a table",
                "negative_prompt": "blurry",
                "sampler_name": "DPM++ 2M",
                "scheduler": "Karras",
                "steps": 20,
                "width": 512,
                "height": 512,
                "seed": 7,
            }
        }
    )

    enable_hr: bool = False
    firstphase_width: Whole = 0
    firstphase_height: Whole = 0
    hr_scale: Real = 2.0
    hr_upscaler: Name | None = None
    hr_second_pass_steps: Whole = 0
    hr_resize_x: Whole = 0
    hr_resize_y: Whole = 0
    hr_checkpoint_name: Name | None = None
    hr_sampler_name: Name | None = None
    hr_scheduler: Name | None = None
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    hr_cfg: Real | None = None
    firstpass_image: str | None = None


class Img2Img(Generation):
    """POST /sdapi/v1/img2img. Pictures are base64, with or without a data URI around it."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "init_images": ["data:image/png;base64,..."],
                "prompt": "a green apple on a table",
                "denoising_strength": 0.6,
                "sampler_name": "Euler a",
                "steps": 20,
                "width": 512,
                "height": 512,
            }
        }
    )

    init_images: list[str] = Field(default_factory=list, max_length=MAX_IMAGES)
    resize_mode: Whole = 0
    image_cfg_scale: Real | None = None
    mask: str | None = None
    mask_blur: Whole | None = None
    mask_blur_x: Whole = 4
    mask_blur_y: Whole = 4
    mask_round: bool = True
    inpainting_fill: Whole = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: Whole = 0
    inpainting_mask_invert: Switch = 0
    initial_noise_multiplier: Real | None = None
    include_init_images: bool = False


class Extras(Body):
    """What the two extras routes share."""

    resize_mode: Switch = 0
    show_extras_results: bool = True
    gfpgan_visibility: Annotated[Real, Field(ge=0, le=1)] = 0.0
    codeformer_visibility: Annotated[Real, Field(ge=0, le=1)] = 0.0
    codeformer_weight: Annotated[Real, Field(ge=0, le=1)] = 0.0
    upscaling_resize: Annotated[Real, Field(gt=0, le=8)] = 2.0
    upscaling_resize_w: Annotated[Whole, Field(ge=1)] = 512
    upscaling_resize_h: Annotated[Whole, Field(ge=1)] = 512
    upscaling_crop: bool = True
    upscaler_1: Name = "None"
    upscaler_2: Name = "None"
    extras_upscaler_2_visibility: Annotated[Real, Field(ge=0, le=1)] = 0.0
    upscale_first: bool = False


class ExtrasSingle(Extras):
    """POST /sdapi/v1/extra-single-image."""

    image: str = ""


class NamedImage(Body):
    data: str
    name: Name = ""


class ExtrasBatch(Extras):
    """POST /sdapi/v1/extra-batch-images."""

    imageList: list[NamedImage] = Field(default_factory=list, max_length=MAX_IMAGES)  # noqa: N815


class ImageBody(Body):
    """POST /sdapi/v1/png-info."""

    image: str = ""


class ProgressOf(Body):
    """POST /internal/progress: one task by the name that its request gave it in `force_task_id`."""

    id_task: Annotated[str, Field(max_length=200)] = ""
    id_live_preview: Whole = -1
    live_preview: bool = True


class Detection(Body):
    """POST /controlnet/detect; the two names of the pictures are those of two versions."""

    controlnet_module: Name = "none"
    controlnet_input_images: list[str] = Field(default_factory=list, max_length=MAX_IMAGES)
    controlnet_images: list[str] = Field(default_factory=list, max_length=MAX_IMAGES)
