"""What can be varied along an axis: how values are read, how one is put into the params, what a change costs."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from webui.errors import InvalidParams
from webui.extensions import Desk
from webui.names import find_sampler, find_schedule
from webui.operations import Hires, Init, Inpaint
from webui.params import RANDOM_SEED_LIMIT, GenerationParams, make_params

from . import lists

Put = Callable[[GenerationParams, Any], GenerationParams]


@dataclass(frozen=True, slots=True)
class Axis:
    """One kind of axis. `read(text, params, desk)` gives its values, checked; `put` makes the params of a cell.

    `cost` orders the loops: the costliest to change is the outermost. `plain`: the legend has the value alone.
    """

    name: str
    read: Callable[[str, GenerationParams, Desk], Sequence[Any]]
    put: Put
    cost: float = 0.0
    plain: bool = False
    show: Callable[[Any], str] = str

    def label(self, value: Any) -> str:
        return self.show(value) if self.plain else f"{self.name}: {self.show(value)}"


def _field(name: str) -> Put:
    return lambda params, value: params.changed(**{name: value})


def _hires(name: str) -> Put:
    """A field of the second pass; the axis makes no sense without one."""

    def put(params: GenerationParams, value: Any) -> GenerationParams:
        if params.hires is None:
            raise InvalidParams("An axis of the second pass needs one.", "Switch hires fix on.")
        return params.changed(hires=Hires.model_validate({**params.hires.model_dump(), name: value}).model_dump())

    return put


def _init(name: str) -> Put:
    """A field of the picture that is started from."""

    def put(params: GenerationParams, value: Any) -> GenerationParams:
        if params.init is None:
            raise InvalidParams("An axis of img2img needs a picture to start from.", "Use it in img2img.")
        return params.changed(init=Init.model_validate({**params.init.model_dump(), name: value}).model_dump())

    return put


def _inpaint(name: str) -> Put:
    """A field of the part that is drawn anew."""

    def put(params: GenerationParams, value: Any) -> GenerationParams:
        if params.inpaint is None:
            raise InvalidParams("An axis of inpaint needs a mask.", "Use it in inpaint.")
        changed = Inpaint.model_validate({**params.inpaint.model_dump(), name: value})
        return params.changed(inpaint=changed.model_dump())

    return put


def _denoising(params: GenerationParams, value: float) -> GenerationParams:
    put = _init if params.init is not None or params.hires is None else _hires
    return put("denoising_strength")(params, value)


def _integers(text: str, _params: GenerationParams, _desk: Desk) -> list[int]:
    return lists.integers(text)


def _reals(text: str, _params: GenerationParams, _desk: Desk) -> list[float]:
    return lists.reals(text)


def _flags(text: str, _params: GenerationParams, _desk: Desk) -> list[bool]:
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    found = lists.words(text)
    for word in found:
        if word.casefold() not in known:
            raise InvalidParams(f'"{word[:60]}" is neither on nor off.', "Write True or False.")
    return [known[word.casefold()] for word in found]


def _seeds(text: str, params: GenerationParams, _desk: Desk) -> list[int]:
    """A -1 becomes a seed that follows from the request's own, so that the plot can be made again."""
    draw = random.Random(f"xyz-plot/{params.seed}")
    return [draw.randrange(RANDOM_SEED_LIMIT) if seed == -1 else seed for seed in lists.integers(text)]


def _samplers(text: str, _params: GenerationParams, _desk: Desk) -> list[str]:
    for word in lists.words(text):
        find_sampler(word)
    return lists.words(text)


def _put_sampler(params: GenerationParams, value: str) -> GenerationParams:
    """An old combined name ("DPM++ 2M Karras") brings its schedule; a plain one leaves the request's."""
    sampler, schedule = find_sampler(value)
    return params.changed(sampler=sampler.name, **({"schedule": schedule.name} if schedule else {}))


def _schedules(text: str, _params: GenerationParams, _desk: Desk) -> list[str]:
    return [find_schedule(word).name for word in lists.words(text)]


def _checkpoints(text: str, _params: GenerationParams, desk: Desk) -> list[str]:
    return [desk.checkpoint(word) for word in lists.words(text)]


def _refiners(text: str, _params: GenerationParams, desk: Desk) -> list[str | None]:
    """Checkpoints, or None for a picture without a refiner."""
    return [None if word.casefold() == "none" else desk.checkpoint(word) for word in lists.words(text)]


def _vaes(text: str, _params: GenerationParams, desk: Desk) -> list[str]:
    return [desk.vae(word) for word in lists.words(text)]


def _choices(*known: str) -> Callable[[str, GenerationParams, Desk], list[str]]:
    def read(text: str, _params: GenerationParams, _desk: Desk) -> list[str]:
        by_folded = {name.casefold(): name for name in known}
        for word in lists.words(text):
            if word.casefold() not in by_folded:
                raise InvalidParams(f'There is no "{word[:60]}" here.', f"Choose of: {', '.join(known)}.")
        return [by_folded[word.casefold()] for word in lists.words(text)]

    return read


def _upscalers(text: str, _params: GenerationParams, desk: Desk) -> list[str]:
    """The desk knows upscalers; that is more than it promises to extensions that do not ship."""
    find = getattr(desk, "upscaler", str)
    return [find(word) for word in lists.words(text)]


def _replacements(text: str, params: GenerationParams, _desk: Desk) -> list[tuple[str, str]]:
    """(what is searched, what takes its place): the first word is searched, and stands for itself in the first cell."""
    found = lists.words(text, empty=True)
    if found and not found[0]:
        raise InvalidParams("Prompt S/R: the first value is empty.", "It is the text that is replaced.")
    if found and found[0] not in params.prompt and found[0] not in params.negative_prompt:
        raise InvalidParams(
            f'Prompt S/R: "{found[0][:60]}" is in neither prompt.', "The first value is the text that is replaced."
        )
    return [(found[0], word) for word in found]


def _replace(params: GenerationParams, value: tuple[str, str]) -> GenerationParams:
    before, after = value
    return params.changed(
        prompt=params.prompt.replace(before, after), negative_prompt=params.negative_prompt.replace(before, after)
    )


def _orders(text: str, params: GenerationParams, _desk: Desk) -> list[tuple[str, ...]]:
    for word in lists.words(text):
        if word not in params.prompt:
            raise InvalidParams(f'Prompt order: "{word[:60]}" is not in the prompt.', "Name parts of the prompt.")
    return lists.orders(text)


def _put_order(params: GenerationParams, value: tuple[str, ...]) -> GenerationParams:
    """The parts in this order, each at a place where one of them stood; the text between stays where it is."""
    places = sorted((params.prompt.find(word), word) for word in value)
    if places and places[0][0] < 0:  # another axis took it out
        raise InvalidParams(f'Prompt order: "{places[0][1][:60]}" is not in the prompt.', "Name parts of the prompt.")
    text, end = "", 0
    for (start, old), new in zip(places, value, strict=True):
        if start < end:
            raise InvalidParams("Prompt order: two of the parts overlap.", "Name parts that stand apart.")
        text += params.prompt[end:start] + new
        end = start + len(old)
    return params.changed(prompt=text + params.prompt[end:])


def _sizes(text: str, _params: GenerationParams, _desk: Desk) -> list[tuple[int, int]]:
    found = []
    for word in lists.words(text):
        match = re.fullmatch(r"\s*(\d{1,5})\s*[x×]\s*(\d{1,5})\s*", word)
        if match is None:
            raise InvalidParams(f'"{word[:60]}" is not a size.', "Write it like 512x768.")
        size = int(match[1]), int(match[2])
        make_params({"width": size[0], "height": size[1]})
        found.append(size)
    return found


def _put_size(params: GenerationParams, value: tuple[int, int]) -> GenerationParams:
    return params.changed(width=value[0], height=value[1])


def _styles(text: str, _params: GenerationParams, desk: Desk) -> list[tuple[str, Desk]]:
    return [(word, desk) for word in lists.words(text)]


def _put_style(params: GenerationParams, value: tuple[str, Desk]) -> GenerationParams:
    name, desk = value
    return params if name.casefold() == "none" else desk.with_styles(params, [name])


NOTHING = "Nothing"
# In the order of AUTOMATIC1111's list; behind it those of our own.
AXES: tuple[Axis, ...] = (
    Axis("Seed", _seeds, _field("seed")),
    Axis("Var. seed", _seeds, _field("variation_seed")),
    Axis("Var. strength", _reals, _field("variation_strength")),
    Axis("Steps", _integers, _field("steps")),
    Axis("Hires steps", _integers, _hires("steps")),
    Axis("CFG Scale", _reals, _field("cfg_scale")),
    Axis("Prompt S/R", _replacements, _replace, plain=True, show=lambda pair: pair[1] or "without"),
    Axis("Prompt order", _orders, _put_order, plain=True, show=", ".join),
    Axis("Sampler", _samplers, _put_sampler, plain=True),
    Axis("Hires sampler", _samplers, _hires("sampler"), plain=True),
    Axis("Checkpoint name", _checkpoints, _field("checkpoint"), cost=1.0, plain=True),
    Axis("Negative Guidance minimum sigma", _reals, _field("negative_guidance_min_sigma")),
    Axis("Sigma Churn", _reals, _field("s_churn")),
    Axis("Sigma min", _reals, _field("s_tmin")),
    Axis("Sigma max", _reals, _field("s_tmax")),
    Axis("Sigma noise", _reals, _field("s_noise")),
    Axis("Schedule type", _schedules, _field("schedule"), plain=True),
    Axis("Schedule min sigma", _reals, _field("sigma_min")),
    Axis("Schedule max sigma", _reals, _field("sigma_max")),
    Axis("Schedule rho", _reals, _field("rho")),
    Axis("Beta schedule alpha", _reals, _field("beta_alpha")),
    Axis("Beta schedule beta", _reals, _field("beta_beta")),
    Axis("Eta", _reals, _field("eta")),
    Axis("Clip skip", _integers, _field("clip_skip")),
    Axis("Denoising", _reals, _denoising),
    Axis("Initial noise multiplier", _reals, _init("noise_multiplier")),
    Axis("Extra noise", _reals, _init("extra_noise")),
    Axis("Hires upscaler", _upscalers, _hires("upscaler"), plain=True),
    Axis("Cond. Image Mask Weight", _reals, _inpaint("conditioning_mask_strength")),
    Axis("VAE", _vaes, _field("vae"), cost=0.7),
    Axis("Styles", _styles, _put_style, plain=True, show=lambda pair: pair[0]),
    Axis("Always discard next-to-last sigma", _flags, _field("discard_penultimate_sigma")),
    Axis("SGM noise multiplier", _flags, _field("sgm_noise_multiplier")),
    Axis("Refiner checkpoint", _refiners, _field("refiner"), cost=1.0, plain=True, show=lambda name: name or "None"),
    Axis("Refiner switch at", _reals, _field("refiner_switch_at")),
    Axis("RNG source", _choices("CPU", "GPU", "NV"), _field("rng")),
    Axis("Size", _sizes, _put_size, show=lambda size: f"{size[0]}x{size[1]}"),
    Axis("CFG rescale", _reals, _field("cfg_rescale")),
    Axis("Skip early CFG", _reals, _field("skip_early_cfg")),
    Axis("Emphasis mode", _choices("Original", "No norm", "Ignore", "None"), _field("emphasis")),
    Axis("Guidance end", _reals, _field("guidance_end")),
    Axis("Feature reuse", _integers, _field("feature_reuse")),
)
