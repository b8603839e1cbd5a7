"""From a reading to `ParsedInfotext`: text values become fields of `GenerationParams`, each through its bounds.

Nothing from a text is trusted: a value goes through `make_params` alone and with the others, and what does not pass is
left out with the reason.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from webui.errors import InvalidParams, WebUIError
from webui.infotext import operations
from webui.infotext.keys import (
    DEFAULTS,
    EXTRA_KEYS,
    FIXED_KEYS,
    INFORMATION_KEYS,
    KEPT_WHEN_ABSENT,
    flag,
    integer,
    real,
)
from webui.infotext.model import NotUnderstood, ParsedInfotext, Reading, Resource, split_hashes
from webui.infotext.versions import holds_written_out_choices, needs_compatibility, old_schedule
from webui.infotext.writer import EXACT_NEGATIVE, EXACT_PROMPT
from webui.names import AUTOMATIC, find_sampler, find_schedule
from webui.params import SIDE_MULTIPLE, make_params

MAX_REPORTED = 200  # settings that were not understood
_SHOWN = 200  # characters of such a value
OWN_DIALECT = "Latent WebUI"
BAKED = "None"  # the VAE selection that means the one in the checkpoint
_NOT_HERE = "this program has no such setting"
# Fields that a text with settings would name if they were not the default.
_ABSENT_MEANS_DEFAULT = (
    *(key.field for key in (*FIXED_KEYS, *EXTRA_KEYS) if key.field not in KEPT_WHEN_ABSENT),
    "eta",
    "variation_strength",
    "seed_resize_width",
    "seed_resize_height",
    "dynamic_thresholding_percentile",
    "dynamic_thresholding_mimic_scale",
)
_TOGETHER = (
    ("width", "height"),
    ("s_tmin", "s_tmax"),
    ("sigma_min", "sigma_max"),
    ("seed_resize_width", "seed_resize_height"),
)


class _Collector:
    """Takes settings out of the fields, one after the other."""

    def __init__(self, reading: Reading) -> None:
        self.fields = reading.fields
        self.params: dict[str, Any] = {}
        self.used: set[str] = set()
        self.not_understood = list(reading.not_understood)

    def text(self, key: str) -> str | None:
        """The value of a key; one that was taken for a size is put together again."""
        if key in self.fields:
            self.used.add(key)
            return self.fields[key]
        first, second = f"{key}-1", f"{key}-2"
        if first in self.fields and second in self.fields:
            self.used |= {first, second}
            return f"{self.fields[first]}x{self.fields[second]}"
        return None

    def reject(self, key: str, value: str, reason: str) -> None:
        if len(self.not_understood) < MAX_REPORTED:
            self.not_understood.append(NotUnderstood(key, value[:_SHOWN], reason))

    def put(self, key: str, written: str, **params: Any) -> None:
        """Take these fields over if they are within their bounds."""
        try:
            make_params(params)
        except InvalidParams as error:
            self.reject(key, written, _reason(error))
            return
        self.params.update(params)

    def number(self, key: str, read: Any) -> Any:
        """The value of a key as a number or flag, None (and reported) when it is none."""
        text = self.text(key)
        if text is None:
            return None
        try:
            return read(text)
        except (ValueError, InvalidOperation):
            self.reject(key, text, "it is not a value this setting can have")
            return None


def _reason(error: WebUIError) -> str:
    return error.message.removeprefix("request: ")


def finish(reading: Reading) -> ParsedInfotext:
    """The typed result. Never raises."""
    take = _Collector(reading)
    exact, exact_negative = take.text(EXACT_PROMPT), take.text(EXACT_NEGATIVE)
    prompt = reading.prompt if exact is None else exact
    negative = reading.negative_prompt if exact_negative is None else exact_negative
    if prompt or reading.complete:
        take.put("Prompt", prompt, prompt=prompt)
    if negative or reading.complete:
        take.put("Negative prompt", negative, negative_prompt=negative)
    _simple(take)
    _sampler(take)
    _sizes(take)
    _model(take)
    _seeds(take)
    _rest(take)
    operations.read(take, complete=reading.complete)
    if reading.complete and reading.dialect == OWN_DIALECT and take.text("VAE") is None:
        take.params["vae"] = _vae_of_ours(reading.fields)
    if reading.complete and needs_compatibility(prompt, negative, reading.fields):
        take.params.setdefault("prompt_compatibility", True)
    if reading.complete and holds_written_out_choices(prompt + negative, reading.fields):
        take.params.setdefault("wildcards", False)
    if reading.complete:
        for name in _ABSENT_MEANS_DEFAULT:
            take.params.setdefault(name, getattr(DEFAULTS, name))
        take.params.setdefault("rng", "GPU")  # the default where the key was made
    _fit_together(take)
    for name, value in reading.fields.items():
        if name not in take.used and name not in INFORMATION_KEYS:
            take.reject(name, value, _NOT_HERE)
    return ParsedInfotext(
        reading.dialect,
        prompt,
        negative,
        reading.fields,
        take.params,
        tuple(take.not_understood),
        tuple(dict.fromkeys([*_named_models(reading.fields), *reading.resources])),
    )


def _named_models(fields: dict[str, str]) -> list[Resource]:
    """The model files that the known keys name."""
    models = [
        Resource(kind, fields.get(name, ""), fields.get(digest, ""))
        for kind, name, digest in (("checkpoint", "Model", "Model hash"), ("vae", "VAE", "VAE hash"))
        if name in fields or digest in fields
    ]
    for kind, key in (("lora", "Lora hashes"), ("embedding", "TI hashes")):
        models += [Resource(kind, name, digest) for name, digest in split_hashes(fields.get(key, "")).items()]
    return models


def _simple(take: _Collector) -> None:
    for key in (*FIXED_KEYS, *EXTRA_KEYS):
        for name in key.names:
            value = take.number(name, key.read)
            if value is not None:
                take.put(name, take.text(name) or "", **{key.field: value})
                break
    for name, field, read in (("Steps", "steps", integer), ("CFG scale", "cfg_scale", real)):
        value = take.number(name, read)
        if value is not None:
            take.put(name, take.text(name) or "", **{field: value})
    if (rng := take.text("RNG")) is not None:
        take.put("RNG", rng, rng=rng.strip().upper())


def _sampler(take: _Collector) -> None:
    """Sampler and schedule; a schedule in an old combined name that is the sampler's own becomes "Automatic"."""
    name, schedule_name = take.text("Sampler"), take.text("Schedule type")
    if schedule_name is None:
        schedule_name = take.text("Scheduler") or old_schedule(take.fields)
    schedule = AUTOMATIC if name is not None else None
    if schedule_name is not None:
        try:
            schedule = find_schedule(schedule_name).name
        except InvalidParams as error:
            take.reject("Schedule type", schedule_name, str(error))
    if name is not None:
        try:
            sampler, own = find_sampler(name)
        except InvalidParams as error:
            take.reject("Sampler", name, str(error))
        else:
            take.params["sampler"] = sampler.name
            if own is not None and schedule == AUTOMATIC and own.name != sampler.default_schedule:
                schedule = own.name
            eta = take.number("Eta DDIM" if sampler.timestep_space else "Eta", real)
            take.used |= {"Eta", "Eta DDIM"}
            if eta is not None:
                take.put("Eta", str(eta), eta=eta)
    if schedule is not None:
        take.params["schedule"] = schedule


def _sizes(take: _Collector) -> None:
    for key, names in (
        ("Size", ("width", "height")),
        ("Seed resize from", ("seed_resize_width", "seed_resize_height")),
    ):
        written = take.text(key)
        if written is None:
            continue
        sides = written.split("x")
        try:
            width, height = (integer(side) for side in sides)
        except ValueError:
            take.reject(key, written, "it is not a size like 512x768")
            continue
        if key == "Size" and min(width, height) == 0:  # a request whose size was left to the checkpoint
            continue
        fitted = width // SIDE_MULTIPLE * SIDE_MULTIPLE, height // SIDE_MULTIPLE * SIDE_MULTIPLE
        before = len(take.not_understood)
        take.put(key, written, **dict(zip(names, fitted, strict=True)))
        if fitted != (width, height) and len(take.not_understood) == before:
            take.reject(key, written, f"rounded down to {fitted[0]}x{fitted[1]}, whole latent cells")


def _model(take: _Collector) -> None:
    name, digest = take.text("Model"), take.text("Model hash")
    alias = digest if name is None else f"{name} [{digest}]" if digest else name
    if alias is not None:
        take.put("Model", alias, checkpoint=alias)
    if (vae := take.text("VAE")) is not None:
        take.put("VAE", vae, vae=vae)


def _vae_of_ours(fields: dict[str, str]) -> str:
    """The VAE selection of a text of our own that names none.

    A picture's text, which has the hash of the model that drew it, would name any but the baked one. "Automatic" might
    choose another by now: a file that came since, or the settings'. A request's text has no hash, and a sheet's is of
    many pictures; there it was left to the default.
    """
    return BAKED if "Model hash" in fields and "Grid layout" not in fields else DEFAULTS.vae


def _seeds(take: _Collector) -> None:
    seed = take.number("Seed", integer)
    if seed is not None:
        take.put("Seed", str(seed), seed=seed)
    variation, strength = take.number("Variation seed", integer), take.number("Variation seed strength", real)
    if strength is not None:
        take.put("Variation seed strength", str(strength), variation_strength=strength)
    if variation is not None:
        take.put("Variation seed", str(variation), variation_seed=variation)


def _rest(take: _Collector) -> None:
    """Dynamic thresholding, and the batch size of old texts."""
    enabled = take.number("Dynamic thresholding enabled", flag)
    percent = take.number("Threshold percentile", _percent)
    scale = take.number("Mimic scale", real)
    if percent is not None and enabled:
        take.put("Threshold percentile", str(percent), dynamic_thresholding_percentile=percent)
    if scale is not None:
        take.put("Mimic scale", str(scale), dynamic_thresholding_mimic_scale=scale)
    take.text("Batch size")  # the text is of one picture


def _percent(text: str) -> float:
    if len(text) > 64:
        raise ValueError("it is too long for a number")
    return float(Decimal(text) / 100)


def _fit_together(take: _Collector) -> None:
    """Leave out the pairs that are possible alone but not together."""
    for names in _TOGETHER:
        group = {name: take.params[name] for name in names if name in take.params}
        try:
            make_params(group)
        except WebUIError as error:
            for name in group:
                del take.params[name]
            take.reject(" and ".join(names), ", ".join(map(str, group.values())), _reason(error))
    try:
        make_params(take.params)
    except WebUIError as error:  # no pair at fault: nothing of the text is certain any more
        take.params = {key: take.params[key] for key in ("prompt", "negative_prompt") if key in take.params}
        take.reject("", "", _reason(error))
