"""Which key of the parameters text holds which field of `GenerationParams`.

Keys are AUTOMATIC1111's or, for what only an extension has there, the extension's; keys of our own stand for what has
no name elsewhere. The fields that need more than one key (size, sampler, model, eta, dynamic thresholding) are
written and read in `writer` and `typed` themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from webui.infotext import bounded_json
from webui.params import GenerationParams

DEFAULTS = GenerationParams()


@dataclass(frozen=True, slots=True)
class Key:
    """A field that has one key of its own, written when it differs from its default."""

    key: str
    field: str
    read: Callable[[str], Any]
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.key, *self.aliases)


def integer(text: str) -> int:
    """A whole number as people and programs write it ("20", "20.0"). Raises ValueError."""
    if len(text) > 40:
        raise ValueError("it is too long for a number")
    head, dot, tail = text.strip().partition(".")
    if dot and tail.strip("0"):
        raise ValueError("it is not a whole number")
    return int(head)


def real(text: str) -> float:
    """Raises ValueError. NaN and infinities are left to the bounds of the field."""
    if len(text) > 64:
        raise ValueError("it is too long for a number")
    return float(text)


def flag(text: str) -> bool:
    """Raises ValueError."""
    folded = text.strip().casefold()
    if folded in ("true", "1", "yes", "on"):
        return True
    if folded in ("false", "0", "no", "off"):
        return False
    raise ValueError("it is neither True nor False")


def sigmas(text: str) -> tuple[float, ...]:
    """Raises ValueError."""
    if len(text) > 64_000:
        raise ValueError("it is too long a list")
    return tuple(real(number) for number in text.split(",")) if text.strip() else ()


def zero_terminal_snr(text: str) -> bool:
    """The key "Noise Schedule" has two values. Raises ValueError."""
    known = {"default": False, "zero terminal snr": True}
    if text.strip().casefold() not in known:
        raise ValueError("there is no such noise schedule")
    return known[text.strip().casefold()]


def extension_values(text: str) -> dict[str, Any]:
    """The values of extensions, as the JSON that the writer makes of them. Raises ValueError."""
    value = bounded_json.load(text)
    if not isinstance(value, dict):
        raise ValueError("it is not an object of extensions")
    return value


# Before the settings that scripts add, in AUTOMATIC1111's order.
FIXED_KEYS = (
    Key("Clip skip", "clip_skip", integer),
    Key("ENSD", "ensd", integer, ("Eta noise seed delta",)),
)

# The settings that scripts add there, in the order they are written here.
EXTRA_KEYS = (
    Key("NGMS", "negative_guidance_min_sigma", real),
    Key("NGMS all steps", "negative_guidance_all_steps", flag),
    Key("Skip Early CFG", "skip_early_cfg", real),
    Key("Guidance end", "guidance_end", real),
    Key("Feature reuse", "feature_reuse", integer),
    Key("CFG rescale", "cfg_rescale", real, ("CFG Rescale", "CFG Rescale Phi")),
    Key("Sigma churn", "s_churn", real),
    Key("Sigma tmin", "s_tmin", real),
    Key("Sigma tmax", "s_tmax", real),
    Key("Sigma noise", "s_noise", real),
    Key("Schedule max sigma", "sigma_max", real),
    Key("Schedule min sigma", "sigma_min", real),
    Key("Schedule rho", "rho", real),
    Key("Beta schedule alpha", "beta_alpha", real),
    Key("Beta schedule beta", "beta_beta", real),
    Key("Custom sigmas", "sigmas", sigmas),
    Key("Discard penultimate sigma", "discard_penultimate_sigma", flag),
    Key("SGM noise multiplier", "sgm_noise_multiplier", flag),
    Key("Noise Schedule", "zero_terminal_snr", zero_terminal_snr),
    Key("Quantize timesteps", "quantize_timesteps", flag),
    Key("Pad conds", "pad_conds", flag),
    Key("Old prompt editing timelines", "old_prompt_timelines", flag),
    Key("Emphasis", "emphasis", str),
    Key("Wildcards", "wildcards", flag),
    Key("Read as words", "read_as_words", str),
    Key("A1111 prompt parsing", "prompt_compatibility", flag),
    Key("Comma backtrack", "comma_backtrack", integer),
    Key("Refiner", "refiner", str),
    Key("Refiner switch at", "refiner_switch_at", real),
    Key("Refiner switch by sampling steps", "refiner_switch_by_steps", flag),
    Key("SDXL original width", "original_width", integer),
    Key("SDXL original height", "original_height", integer),
    Key("SDXL crop left", "crop_left", integer),
    Key("SDXL crop top", "crop_top", integer),
    Key("SDXL target width", "target_width", integer),
    Key("SDXL target height", "target_height", integer),
    Key("SDXL aesthetic score", "aesthetic_score", real),
    Key("SDXL negative aesthetic score", "negative_aesthetic_score", real),
    Key("VAE tiling", "vae_tiling", str),
    Key("Image format", "image_format", str),
    Key("Image quality", "image_quality", integer),
    Key("Extensions", "extensions", extension_values),
)

# Known keys that decide nothing by themselves: they name what was used, for whoever looks.
INFORMATION_KEYS = frozenset(
    {
        "Version", "User", "Lora hashes", "TI hashes", "Hashes", "Model hash", "VAE hash", "Size-1", "Size-2",
        "Created Date", "Civitai resources", "Civitai metadata", "Batch pos", "App", "Backend", "Hypernet",
        "Hypernet strength", "Software", "Source", "Time",
        "Script", "X Type", "X Values", "Y Type", "Y Values", "Z Type", "Z Values", "Fixed X Values",
        "Fixed Y Values", "Fixed Z Values", "Grid layout", "Grid cells",
    }
)  # fmt: skip

# What the pictures a text came from may say, but a request for a new one should not take over.
KEPT_WHEN_ABSENT = frozenset({"image_format", "image_quality"})
