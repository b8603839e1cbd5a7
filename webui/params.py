"""`GenerationParams`: the one immutable description of what to make. Nothing else decides a picture.

Validated once, at the door (strict types, bounds, no NaN), frozen afterwards; it travels as canonical JSON through the
queue, the history and replay. Field names are the field's own terms; the parameters text inside a picture
(`webui.infotext`) is another writing of the same facts.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from webui.errors import InvalidParams
from webui.extension_values import ExtensionValues, Scalar, plain_values
from webui.names import AUTOMATIC, find_sampler, find_schedule
from webui.operations import MAX_PROMPT_LENGTH as MAX_PROMPT_LENGTH
from webui.operations import (
    MAX_SOURCES,
    Extras,
    FaceRestoration,
    Hires,
    Init,
    Inpaint,
    Plain,
    SdUpscale,
    Source,
    VaeTiling,
    clean_text,
)

MAX_SEED = 2**63 - 1
RANDOM_SEED_LIMIT = 2**32 - 2  # the range that every other tool can read back
MAX_PIXELS = 64 * 2**20  # of one picture
MAX_PICTURES = 10_000  # of one job
SIDE_MULTIPLE = 8  # one latent cell
WHOLE_JOB = -1  # the index of a picture that the whole job made, such as a grid

Side = Annotated[int, Field(ge=16, le=16_384, multiple_of=SIDE_MULTIPLE)]
Size = Annotated[int, Field(ge=0, le=16_384)]  # pixels, of no grid
Seed = Annotated[int, Field(ge=-1, le=MAX_SEED)]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Kind = Literal["txt2img", "img2img", "extras"]


class GenerationParams(Plain):
    """What to make, in full. Equal params on the same machine and versions give equal pixels.

    A seed of -1 and a `None` for checkpoint or size mean "choose for me"; the door fills them in
    (`with_fixed_seeds`, `webui.catalog`) before the job is queued, so that a queued job is complete.
    """

    # What is in the picture
    prompt: str = Field("", max_length=MAX_PROMPT_LENGTH)
    negative_prompt: str = Field("", max_length=MAX_PROMPT_LENGTH)
    clip_skip: int = Field(1, ge=1, le=12)
    emphasis: Literal["Original", "No norm", "Ignore", "None"] = "Original"
    comma_backtrack: int = Field(20, ge=0, le=74)  # tokens
    pad_conds: bool = False  # pad the shorter of prompt and negative prompt, so that both run in one batch
    old_prompt_timelines: bool = False  # `when` of [from:to:when] as versions of AUTOMATIC1111 before 1.6 read it
    wildcards: bool = True  # choose for `__name__` and `{a|b}` by the picture's seed; False: they are words
    read_as_words: str = Field("", max_length=4096)  # names of embeddings, with commas, that are plain words here
    prompt_compatibility: bool = False  # read prompts as AUTOMATIC1111 does, faults included (webui.prompt.plan)

    # Which networks draw it
    checkpoint: str | None = Field(None, max_length=1024)  # any alias the catalog knows; None = the selected one
    vae: str = Field(AUTOMATIC, max_length=1024)  # "Automatic", "None" (the baked one) or a file name

    # Size and number
    width: Side | None = None  # pixels; None = the checkpoint's native size
    height: Side | None = None
    batch_size: int = Field(1, ge=1, le=64)  # pictures drawn together
    batch_count: int = Field(1, ge=1, le=1000)  # batches, one after the other

    # Another checkpoint for the rest of the steps
    refiner: str | None = Field(None, min_length=1, max_length=1024)  # any alias the catalog knows; None = none
    refiner_switch_at: Unit = 0.8  # of the way through the trained timesteps
    refiner_switch_by_steps: bool = False  # of the steps instead, as AUTOMATIC1111 before 1.8 did

    # What SDXL is told about size and crop (0: the picture's own size), and its refiner about beauty
    original_width: Size = 0
    original_height: Size = 0
    crop_left: Size = 0
    crop_top: Size = 0
    target_width: Size = 0
    target_height: Size = 0
    aesthetic_score: float = Field(6.0, ge=0.0, le=10.0)
    negative_aesthetic_score: float = Field(2.5, ge=0.0, le=10.0)

    # Sampling
    sampler: str = Field("DPM++ 2M", max_length=64)
    schedule: str = Field(AUTOMATIC, max_length=64)
    steps: int = Field(20, ge=1, le=1000)
    cfg_scale: float = Field(7.0, ge=0.0, le=100.0)
    eta: float | None = Field(None, ge=0.0, le=10.0)  # None = the sampler's own (1 ancestral and SDE, 0 DDIM)
    s_churn: float = Field(0.0, ge=0.0, le=1000.0)
    s_tmin: float = Field(0.0, ge=0.0, le=1e6)
    s_tmax: float = Field(0.0, ge=0.0, le=1e6)  # 0 = no upper bound
    s_noise: float = Field(1.0, ge=0.0, le=10.0)
    sigma_min: float = Field(0.0, ge=0.0, le=1e6)  # 0 = the model's
    sigma_max: float = Field(0.0, ge=0.0, le=1e6)  # 0 = the model's
    rho: float = Field(0.0, ge=0.0, le=100.0)  # 0 = the schedule's
    beta_alpha: float = Field(0.6, gt=0.0, le=100.0)
    beta_beta: float = Field(0.6, gt=0.0, le=100.0)
    sigmas: tuple[Annotated[float, Field(ge=0.0, le=1e6)], ...] | None = Field(None, min_length=1, max_length=1001)
    discard_penultimate_sigma: bool = False  # for every sampler, not only those defined so
    sgm_noise_multiplier: bool = False
    quantize_timesteps: bool = False
    zero_terminal_snr: bool = False

    # Guidance
    cfg_rescale: Unit = 0.0
    negative_guidance_min_sigma: float = Field(0.0, ge=0.0, le=1e6)
    negative_guidance_all_steps: bool = False
    skip_early_cfg: Unit = 0.0  # share of the steps that run without guidance at the start
    guidance_end: Unit = 1.0  # share of the steps after which there is none any more
    dynamic_thresholding_percentile: Unit = 0.0  # 0 = off; 0.995 is usual
    dynamic_thresholding_mimic_scale: float = Field(7.0, ge=0.0, le=100.0)

    # Faster, not exact
    feature_reuse: int = Field(1, ge=1, le=10)  # denoiser calls for which the UNet's deep features are kept; 1 = none

    # Noise
    seed: Seed = -1
    rng: Literal["CPU", "GPU", "NV"] = "CPU"
    variation_seed: Seed = -1
    variation_strength: Unit = 0.0
    seed_resize_width: Annotated[int, Field(ge=0, le=16_384, multiple_of=SIDE_MULTIPLE)] = 0  # 0 = off
    seed_resize_height: Annotated[int, Field(ge=0, le=16_384, multiple_of=SIDE_MULTIPLE)] = 0
    ensd: int = Field(0, ge=-(2**31), le=2**31 - 1)  # eta noise seed delta

    # Pictures to start from and passes to add; see `webui.operations`
    init: Init | None = None
    inpaint: Inpaint | None = None
    hires: Hires | None = None
    sd_upscale: SdUpscale | None = None
    extras: Extras | None = None
    faces: FaceRestoration | None = None  # of the finished picture, drawn or enlarged
    sources: tuple[Source, ...] = Field((), max_length=MAX_SOURCES)  # a folder: `init` or `extras` for each of these
    vae_tiling: VaeTiling = "Automatic"  # in tiles: where memory would not suffice, always, or never
    tiling_x: bool = False  # the left edge continues the right one
    tiling_y: bool = False

    # The saved file
    save: bool = True  # False: the pictures go to whoever asked, from memory, and are kept nowhere
    image_format: Literal["png", "jpeg", "webp", "avif"] = "png"
    image_quality: int = Field(90, ge=1, le=100)  # of all but PNG, which is lossless

    # What extensions add: {"name": {"field": value}}, frozen
    extensions: ExtensionValues = ()

    @field_validator("prompt", "negative_prompt", "read_as_words", "checkpoint", "vae", "refiner", mode="after")
    @classmethod
    def _clean_text(cls, value: str | None) -> str | None:
        return None if value is None else clean_text(value)

    @model_validator(mode="before")
    @classmethod
    def _canonical_names(cls, data: Any) -> Any:
        """Any alias and the old combined form ("DPM++ 2M Karras") become the canonical pair."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if isinstance(data.get("sources"), list):
            data["sources"] = tuple(data["sources"])  # JSON has no tuple, and strict validation asks for one
        if isinstance(data.get("schedule"), str):
            data["schedule"] = find_schedule(data["schedule"]).name
        if isinstance(data.get("sampler"), str):
            sampler, schedule = find_sampler(data["sampler"])
            data["sampler"] = sampler.name
            if schedule is not None and data.get("schedule", AUTOMATIC) == AUTOMATIC:
                data["schedule"] = schedule.name
        return data

    @model_validator(mode="after")
    def _bounds_together(self) -> GenerationParams:
        if self.width and self.height and self.width * self.height > MAX_PIXELS:
            raise ValueError(f"width x height is above {MAX_PIXELS // 2**20} megapixels")
        if self.pictures > MAX_PICTURES:
            raise ValueError(f"batch count x batch size is above {MAX_PICTURES} pictures")
        for name in ("seed", "variation_seed"):
            if getattr(self, name) + self.pictures - 1 > MAX_SEED:
                raise ValueError(f"{name} counts up to above {MAX_SEED} over the pictures of the job")
        if self.s_tmax and self.s_tmin > self.s_tmax:
            raise ValueError("s_tmin is above s_tmax")
        if self.sigma_min and self.sigma_max and self.sigma_min >= self.sigma_max:
            raise ValueError("sigma_min is not below sigma_max")
        if bool(self.seed_resize_width) != bool(self.seed_resize_height):
            raise ValueError("seed resize needs both a width and a height")
        self._check_operations()
        return self

    def _check_operations(self) -> None:
        if self.init is None:
            for name in ("inpaint", "sd_upscale"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} needs a picture to start from (init)")
        elif self.hires is not None:
            raise ValueError("hires is for pictures made from nothing; with init, set a larger size or use sd_upscale")
        elif self.init.frame is not None and self.inpaint is None:
            raise ValueError("init.frame adds pixels that have to be drawn; add inpaint")
        if self.sources and self.init is None and self.extras is None:
            raise ValueError("sources says for which pictures something is done; add init or extras, which say what")
        if self.sd_upscale is not None and self.inpaint is not None:
            raise ValueError("sd_upscale draws the whole picture anew; leave inpaint out")

    @property
    def kind(self) -> Kind:
        """What the job does."""
        if self.extras is not None:
            return "extras"
        return "txt2img" if self.init is None else "img2img"

    @property
    def inputs(self) -> tuple[str, ...]:
        """References of the pictures it needs from the store of inputs, in order, each once."""
        found = (
            self.init and self.init.image,
            self.inpaint and self.inpaint.mask,
            self.hires and self.hires.first_pass,
            self.extras and self.extras.image,
            *(source.image for source in self.sources),
        )
        return tuple(dict.fromkeys(reference for reference in found if reference))

    def for_source(self, number: int) -> GenerationParams:
        """The request for picture `number` of its folder alone; all of them start from the same seed."""
        name = "init" if self.extras is None else "extras"
        group = {**(getattr(self, name) or Init()).model_dump(), "image": self.sources[number].image}
        return self.changed(sources=(), **{name: group})

    @property
    def extension_values(self) -> dict[str, dict[str, Scalar]]:
        """The values of the extensions that take part, by name."""
        return plain_values(self.extensions)

    def without_extension(self, name: str) -> GenerationParams:
        """The same request without the values of one extension."""
        return self.changed(extensions={key: values for key, values in self.extension_values.items() if key != name})

    @property
    def pictures(self) -> int:
        """How many pictures the job makes; of a folder, for each picture in it."""
        return self.batch_count * self.batch_size

    def with_fixed_seeds(self) -> GenerationParams:
        """The same request with every -1 seed drawn, so that it can be repeated."""
        drawn = {
            name: secrets.randbelow(RANDOM_SEED_LIMIT)
            for name in ("seed", "variation_seed")
            if getattr(self, name) == -1
        }
        return self.changed(**drawn) if drawn else self

    def changed(self, **fields: Any) -> GenerationParams:
        """A validated copy with some fields replaced."""
        return make_params({**self.model_dump(), **fields})

    def seeds_of(self, index: int) -> tuple[int, int]:
        """(seed, variation seed) of picture `index` of the job; of a picture of the `WHOLE_JOB`, the job's own.

        Pictures count up the seed; with a variation strength they keep it and count up the variation seed.
        """
        index = max(index, 0)
        if self.variation_strength > 0:
            return self.seed, self.variation_seed + index
        return self.seed + index, self.variation_seed + index

    def single(self, index: int) -> GenerationParams:
        """The params that make picture `index` of this job alone, equal to the last bit."""
        if index == WHOLE_JOB:
            return self
        seed, variation_seed = self.seeds_of(index)
        return self.changed(seed=seed, variation_seed=variation_seed, batch_size=1, batch_count=1)

    def second_pass(self) -> GenerationParams:
        """The hires pass as a request of its own, at its final size in whole latent cells. Raises `InvalidParams`."""
        hires = self.hires
        if hires is None or not self.width or not self.height:
            raise ValueError("a hires pass follows a first pass whose size is known")
        _, (width, height) = hires.sizes(self.width, self.height)
        return self.changed(
            hires=None,
            width=width // SIDE_MULTIPLE * SIDE_MULTIPLE,
            height=height // SIDE_MULTIPLE * SIDE_MULTIPLE,
            steps=hires.steps or self.steps,
            sampler=hires.sampler or self.sampler,
            schedule=hires.schedule or self.schedule,
            cfg_scale=self.cfg_scale if hires.cfg_scale is None else hires.cfg_scale,
            prompt=hires.prompt or self.prompt,
            negative_prompt=hires.negative_prompt or self.negative_prompt,
            checkpoint=hires.checkpoint or self.checkpoint,
        )

    def canonical_json(self) -> str:
        """All fields, keys sorted, no spaces: equal params have equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def fingerprint(self) -> str:
        """sha256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


def make_params(data: dict[str, Any]) -> GenerationParams:
    """Validate a request. Raises `InvalidParams` with one sentence that names every field at fault."""
    try:
        return GenerationParams.model_validate(data)
    except ValidationError as error:
        raise InvalidParams(_sentence(error), "Correct the value and try again.") from None


def params_from_json(text: str | bytes) -> GenerationParams:
    """Read what `canonical_json` wrote, or a client's JSON. Raises `InvalidParams`."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidParams("The request is not valid JSON.", "Send one JSON object.") from None
    if not isinstance(data, dict):
        raise InvalidParams("The request is not a JSON object.", "Send one JSON object with the fields to set.")
    if isinstance(data.get("sigmas"), list):
        data["sigmas"] = tuple(data["sigmas"])  # JSON has no tuple, and strict validation asks for one
    return make_params(data)


def _sentence(error: ValidationError) -> str:
    parts = []
    for item in error.errors(include_url=False, include_input=False):
        where = ".".join(str(p)[:80] for p in item["loc"] if p != "constrained-int") or "request"
        message = item["msg"].removeprefix("Value error, ")
        parts.append(f"{where}: {message[:1].lower()}{message[1:]}")
        if len(parts) == 5:
            break
    return "; ".join(parts) + "."
