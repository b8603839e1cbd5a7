"""`format`: the parameters text of a picture.

Three parts, each on its own line or lines: the prompt, `Negative prompt: ...` unless it is empty, and one line of
settings in AUTOMATIC1111's order, `Steps` first, so that every reader of the field understands it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import webui
from webui.infotext import operations
from webui.infotext.keys import DEFAULTS, EXTRA_KEYS, FIXED_KEYS
from webui.infotext.lines import NEGATIVE_MARK, split_prompts
from webui.infotext.quoting import quote
from webui.names import SAMPLER_NAMES
from webui.params import GenerationParams

VERSION = f"Latent WebUI {webui.__version__}"
EXACT_PROMPT, EXACT_NEGATIVE = "Exact prompt", "Exact negative prompt"


def format(
    params: GenerationParams,
    *,
    index: int = 0,
    model_name: str | None = None,
    model_hash: str | None = None,
    vae_name: str | None = None,
    vae_hash: str | None = None,
    version: str | None = VERSION,
    extra: Iterable[tuple[str, object]] = (),
) -> str:
    """The text for picture `index` of a job.

    `model_name` is the file's stem and `model_hash` the first 10 digits of its sha256; without a name the request's
    own is written. `vae_name` (with suffix) and `vae_hash` are given when an external VAE was used. `extra` adds
    settings after ours, for example `("Lora hashes", "name: 0123456789ab")`; a value of None is left out, and a key
    that is there already keeps its place with the new value.

    Every field that decides the picture is there if it differs from its default; the batch is not, for the text
    describes one picture. Prompts that the plain form would not give back exactly (lines with spaces at their ends,
    a line that begins with "Negative prompt:") are repeated as quoted settings.
    """
    seed, variation_seed = params.seeds_of(index)
    varied = params.variation_strength > 0
    settings: dict[str, object] = {
        "Steps": params.steps,
        "Sampler": params.sampler,
        "Schedule type": params.schedule,
        "CFG scale": _plain(params.cfg_scale),
        "Seed": seed,
        "Size": _size(params.width, params.height),
        "Model hash": model_hash,
        "Model": model_name if model_name is not None else params.checkpoint,
        "VAE hash": vae_hash,
        "VAE": vae_name if vae_name is not None else _unless_default(params, "vae"),
        "Variation seed": variation_seed if varied else None,
        "Variation seed strength": _plain(params.variation_strength) if varied else None,
        "Seed resize from": _size(params.seed_resize_width, params.seed_resize_height),
    }
    groups = operations.written(params)
    settings.update((key, groups.pop(key)) for key in operations.FIXED if key in groups)
    settings.update((key.key, _unless_default(params, key.field)) for key in FIXED_KEYS)
    settings["RNG"] = params.rng if params.rng != "GPU" else None
    if operations.TILING in groups:
        settings[operations.TILING] = groups.pop(operations.TILING)
    if params.eta is not None:
        settings["Eta DDIM" if SAMPLER_NAMES[params.sampler].timestep_space else "Eta"] = _plain(params.eta)
    settings.update((key.key, _unless_default(params, key.field)) for key in EXTRA_KEYS)
    settings.update(_dynamic_thresholding(params))
    settings.update(groups)
    lines = _prompt_lines(params, settings)
    own = set(settings)
    settings.update(extra)
    if version is not None:
        settings["Version"] = version
    pairs = (_pair(key, value, key in own) for key, value in settings.items() if value is not None)
    return "\n".join([*lines, ", ".join(pairs)]).strip()


def hash_list(hashes: Iterable[tuple[str, str]]) -> str | None:
    """The value of "Lora hashes" and "TI hashes" for (name, hash) pairs; None, which `format` leaves out, for none.

    Names lose the two signs that separate the list.
    """
    entries = [f"{name.replace(':', '').replace(',', '')}: {digits}" for name, digits in hashes if digits]
    return ", ".join(entries) or None


def _pair(key: str, value: object, keep: bool) -> str:
    """AUTOMATIC1111 writes a value that equals its key as the key alone; a setting of ours must come back."""
    text = str(value)
    if keep and text in ("", key):
        return f'{key}: "{text}"'
    return key if text == key else f"{key}: {quote(text)}"


def _prompt_lines(params: GenerationParams, settings: dict[str, object]) -> list[str]:
    """The lines before the settings; what they cannot say exactly goes into `settings`."""
    lines = [params.prompt] if params.prompt else []
    if params.negative_prompt:
        lines.append(f"{NEGATIVE_MARK} {params.negative_prompt}")
    read_back = split_prompts("\n".join(lines).lstrip().split("\n"))
    if read_back[0] != params.prompt:
        settings[EXACT_PROMPT] = params.prompt
    if read_back[1] != params.negative_prompt:
        settings[EXACT_NEGATIVE] = params.negative_prompt
    return lines


def _unless_default(params: GenerationParams, field: str) -> Any:
    """The field's text, or None when it has its default."""
    value = getattr(params, field)
    if value == getattr(DEFAULTS, field):
        return None
    if field == "extensions":
        return json.dumps(params.extension_values, ensure_ascii=False, sort_keys=True)
    if field == "zero_terminal_snr":
        return "Zero Terminal SNR"
    if isinstance(value, tuple):
        return ", ".join(_plain(number) for number in value)
    return _plain(value) if isinstance(value, float) else value


def _dynamic_thresholding(params: GenerationParams) -> dict[str, object]:
    """The keys of the extension of that name, which writes the percentile in percent."""
    percentile, scale = params.dynamic_thresholding_percentile, params.dynamic_thresholding_mimic_scale
    keys: dict[str, object] = {}
    if percentile > 0:
        keys["Dynamic thresholding enabled"] = True
    if percentile > 0 or scale != DEFAULTS.dynamic_thresholding_mimic_scale:
        keys["Mimic scale"] = _plain(scale)
    if percentile > 0:
        keys["Threshold percentile"] = format_decimal(Decimal(repr(percentile)) * 100)
    return keys


def format_decimal(number: Decimal) -> str:
    """All digits, no trailing zeros, no exponent unless it is a very small number."""
    text = str(number.normalize())
    return f"{number.normalize():f}" if "E+" in text else text


def _size(width: int | None, height: int | None) -> str | None:
    return f"{width or 0}x{height or 0}" if width or height else None


def _plain(number: float) -> str:
    """The shortest text that reads back as the same float, without a ".0"."""
    return repr(number).removesuffix(".0")
