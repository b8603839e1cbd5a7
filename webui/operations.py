"""What is done with a picture that is there already, or to one in the making: the groups of `GenerationParams`.

`init` starts from a picture (img2img), `inpaint` keeps a part of it, `hires` adds a second, larger pass, `sd_upscale`
enlarges a picture in tiles that are drawn anew, `extras` enlarges or repairs one without drawing, `faces` restores the
faces of what was made. A group that is None is switched off. Pictures are named by the sha256 of their file in the
store of inputs (`webui.inputs`), so a request is small, equal files are kept once, and a replay starts from the very
same bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from webui.names import AUTOMATIC, NO_MODEL, NO_UPSCALER, find_sampler, find_schedule

Reference = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
TargetSide = Annotated[int, Field(ge=0, le=16_384)]
ModelName = Annotated[str, Field(min_length=1, max_length=1024)]

ResizeMode = Literal["Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"]
VaeTiling = Literal["Automatic", "On", "Off"]
Fill = Literal["fill", "original", "latent noise", "latent nothing"]

MAX_PROMPT_LENGTH = 200_000  # characters
MAX_FRAME = 4096  # pixels added at one side
MAX_RESULT_PIXELS = 200 * 10**6  # of an enlarged picture; the sheets of scripts (extensions.grids) have the same bound
MAX_SOURCES = 2000  # pictures of one folder


class Plain(BaseModel):
    """The ground rules of every part of a request: frozen, strict types, no unknown fields, no NaN, one zero."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _one_zero(cls, value: Any) -> Any:
        """-0.0 equals 0.0 but is written otherwise; equal params have equal text."""
        if isinstance(value, tuple):
            return tuple(number + 0.0 if isinstance(number, float) else number for number in value)
        return value + 0.0 if isinstance(value, float) else value


def clean_text(value: str) -> str:
    """One kind of line end, no control characters. Raises ValueError for a lone surrogate."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("holds a broken character (a lone surrogate); delete it and type it again") from None
    value = value.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(ch for ch in value if ch >= " " or ch in "\n\t")


class Frame(Plain):
    """Outpainting: pixels of the picture as it was given that are added at each side, drawn by the model."""

    left: int = Field(0, ge=0, le=MAX_FRAME)
    top: int = Field(0, ge=0, le=MAX_FRAME)
    right: int = Field(0, ge=0, le=MAX_FRAME)
    bottom: int = Field(0, ge=0, le=MAX_FRAME)


class Init(Plain):
    """img2img: noise is added to this picture's latents, and the sampler goes on from there.

    `resize_mode`: stretched; cut to the aspect ratio in the middle; the missing edges filled by stretching the
    outermost rows or columns; or stretched as latents. `denoising_strength` is the share of the schedule that is run:
    0 keeps the picture, 1 forgets it. With `exact_steps` that share has `steps` steps, otherwise it has the same share
    of them (AUTOMATIC1111's default). Without a width and height the picture's own are taken.

    An `image` of None is a form that waits for its picture, such as one read from a parameters text; it is refused
    when the job is submitted.
    """

    image: Reference | None = None
    resize_mode: ResizeMode = "Just resize"
    denoising_strength: Share = 0.75
    exact_steps: bool = False
    noise_multiplier: float = Field(1.0, ge=0.0, le=1.5)  # of the noise that is added at the start
    extra_noise: Share = 0.0  # more of it, on top: detail where the sampler has none of its own to add
    color_correction: bool = False  # give the result the colours of this picture
    background: str = Field("#ffffff", pattern=r"^#[0-9a-f]{6}$")  # shows through where the picture is transparent
    frame: Frame | None = None  # outpainting; needs `inpaint`


class SoftInpainting(Plain):
    """Gradual masks: how much of the picture is kept follows from the mask's greys, the noise level and the change."""

    schedule_bias: float = Field(1.0, ge=0.0, le=8.0)  # above 1: the kept part is held less in early steps
    preservation_strength: float = Field(0.5, ge=0.0, le=8.0)
    transition_contrast_boost: float = Field(4.0, ge=1.0, le=32.0)
    mask_influence: Share = 0.0  # of the mask itself on the final blending
    difference_threshold: float = Field(0.5, ge=0.0, le=8.0)  # a change of this size is half shown
    difference_contrast: float = Field(2.0, ge=0.0, le=8.0)


class Inpaint(Plain):
    """Draw a part of `init`'s picture anew and keep the rest bit for bit. White is drawn.

    Without a `mask`: the added frame when there is one, else where the picture is transparent. A mask of another size
    than the picture is stretched over it. `blur` is the standard deviation of a Gaussian in pixels. `only_masked`
    works on the masked rectangle, `padding` pixels larger, at the full width and height of the request.
    `fill` is what stands under the mask at the start.
    """

    mask: Reference | None = None
    invert: bool = False
    blur_x: int = Field(4, ge=0, le=256)
    blur_y: int = Field(4, ge=0, le=256)
    fill: Fill = "original"
    only_masked: bool = False
    padding: int = Field(32, ge=0, le=1024)  # pixels of the given picture
    round_mask: bool = True  # the mask on latents is either 0 or 1; soft inpainting keeps its greys
    conditioning_mask_strength: Share = 1.0  # inpainting checkpoints: how far the masked part is hidden from them
    soft: SoftInpainting | None = None


class Hires(Plain):
    """A second pass: the first one's picture is enlarged and denoised again at the larger size.

    `upscaler`: one of the "Latent" names (on latents), "Lanczos", "Nearest", "None", or an upscaler model's name. The
    target is `scale` times the first pass, or `width` x `height`: one of them 0 keeps the ratio, both together cut
    what is too much. 0 steps, None and "" mean "as in the first pass". `first_pass` is a finished picture to take
    instead of making the first pass.
    """

    upscaler: ModelName = "Latent"
    scale: float = Field(2.0, ge=1.0, le=8.0)
    width: TargetSide = 0
    height: TargetSide = 0
    steps: int = Field(0, ge=0, le=1000)
    denoising_strength: Share = 0.7
    sampler: str | None = Field(None, max_length=64)
    schedule: str | None = Field(None, max_length=64)
    cfg_scale: float | None = Field(None, ge=0.0, le=100.0)
    prompt: str = Field("", max_length=MAX_PROMPT_LENGTH)
    negative_prompt: str = Field("", max_length=MAX_PROMPT_LENGTH)
    checkpoint: ModelName | None = None
    first_pass: Reference | None = None

    @field_validator("prompt", "negative_prompt", "upscaler", "checkpoint", mode="after")
    @classmethod
    def _clean_text(cls, value: str | None) -> str | None:
        return None if value is None else clean_text(value)

    @model_validator(mode="before")
    @classmethod
    def _canonical_names(cls, data: Any) -> Any:
        """Any alias and the old combined form become the canonical pair, as in the request itself."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if isinstance(data.get("schedule"), str):
            data["schedule"] = find_schedule(data["schedule"]).name
        if isinstance(data.get("sampler"), str):
            sampler, schedule = find_sampler(data["sampler"])
            data["sampler"] = sampler.name
            if schedule is not None and data.get("schedule") is None:
                data["schedule"] = schedule.name
        return data

    def sizes(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(width, height) that a first pass of that size is enlarged to, and what is left of it in the middle."""
        if not self.width and not self.height:
            size = (int(width * self.scale), int(height * self.scale))
        elif not self.height:
            size = (self.width, self.width * height // width)
        elif not self.width:
            size = (self.height * width // height, self.height)
        elif width / height < self.width / self.height:
            return (self.width, self.width * height // width), (self.width, self.height)
        else:
            return (self.height * width // height, self.height), (self.width, self.height)
        return size, size


class SdUpscale(Plain):
    """Enlarge `init`'s picture, draw it anew in tiles of the request's width and height, and join them."""

    upscaler: ModelName = "Lanczos"
    scale: float = Field(2.0, ge=1.0, le=8.0)
    overlap: int = Field(64, ge=0, le=512)  # pixels between neighbours


class Extras(Plain):
    """Enlarge a finished picture; nothing is drawn, and the rest of the request has no effect.

    The size is `scale` times the picture's own, or `width` x `height` when both are given; then `crop` cuts what is
    too much, otherwise the picture fits inside. The second upscaler is blended over the first.
    """

    image: Reference | None = None  # as with `Init`
    upscaler: ModelName = NO_UPSCALER
    upscaler_2: ModelName = NO_UPSCALER
    upscaler_2_visibility: Share = 0.0
    scale: float = Field(2.0, ge=0.25, le=8.0)
    width: TargetSide = 0
    height: TargetSide = 0
    crop: bool = True

    @field_validator("upscaler", "upscaler_2", mode="after")
    @classmethod
    def _clean_text(cls, value: str) -> str:
        return clean_text(value)

    @model_validator(mode="after")
    def _both_sides(self) -> Extras:
        if bool(self.width) != bool(self.height):
            raise ValueError("a target size needs both a width and a height")
        return self

    def sizes(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(width, height) that a picture of that size is enlarged to, and what is left of it in the middle."""
        if not self.width:
            size = max(1, int(width * self.scale)), max(1, int(height * self.scale))
            return size, size
        scales = self.width / width, self.height / height
        if self.crop:
            cover = max(scales)
            inner = max(self.width, round(width * cover)), max(self.height, round(height * cover))
            return inner, (self.width, self.height)
        size = max(1, round(width * min(scales))), max(1, round(height * min(scales)))
        return size, size


class FaceRestoration(Plain):
    """Restore the faces of the finished picture: each is found, aligned, given to a network that knows faces, put back.

    "Automatic" is the first face restoration model there is. The second one works on what the first has made.
    """

    model: ModelName = AUTOMATIC
    visibility: Share = 1.0  # how much of the restored face is seen
    model_2: ModelName = NO_MODEL
    visibility_2: Share = 0.0
    codeformer_weight: Share = 0.5  # 0: the best face; 1: the likeness. CodeFormer alone knows it

    @field_validator("model", "model_2", mode="after")
    @classmethod
    def _clean_text(cls, value: str) -> str:
        return clean_text(value)


class Source(Plain):
    """One picture of a folder; `name` is what it is called when something is said of it."""

    image: Reference
    name: str = Field("", max_length=255)

    @field_validator("name", mode="after")
    @classmethod
    def _clean_text(cls, value: str) -> str:
        return clean_text(value)
