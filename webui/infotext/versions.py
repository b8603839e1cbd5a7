"""What the version in a text says about settings it does not name: old defaults of AUTOMATIC1111."""

from __future__ import annotations

import re

from webui.errors import InvalidParams
from webui.names import AUTOMATIC, SAMPLER_NAMES, SamplerName, ScheduleName, find_sampler

Version = tuple[int, int, int, int]

_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})(?:-(RC|\d{1,6}))?(?:-.*)?", re.IGNORECASE)
# Forge's own version, then that of the AUTOMATIC1111 it is built on: "f0.0.17v1.8.0rc-latest-276-g29be1da7".
_FORGE = re.compile(r"f\d{1,4}(?:\.\d{1,4}){0,3}(v\d{1,4}\.\d{1,4}\.\d{1,4})-?(rc)?(?![0-9a-z.]).*", re.IGNORECASE)
_OLD_DDIM = ("DDIM", "PLMS")
# A colon and a number at the end of a prompt; the tail alone is searched.
_TRAILING_NUMBER = re.compile(r":\s{0,100}[-+]?(?:\d+\.?|\d*\.\d+)\s{0,100}\Z")
_TAIL = 300  # characters
# The tags that AUTOMATIC1111 cuts out before it looks at a prompt's end.
_NETWORK = re.compile(r"<\w+:[^>]+>")


def parse_version(text: str | None) -> Version | None:
    """(major, minor, patch, commits after the release) of "v1.7.0-225-gabc"; None for every other program's version."""
    match = _VERSION.fullmatch((text or "").strip()[:200])
    if match is None:
        return None
    major, minor, patch, after = match.groups()
    commits = 0 if after is None else -1 if after.casefold() == "rc" else int(after)
    return int(major), int(minor), int(patch), commits


def _grown_from(text: str | None) -> Version | None:
    """The version of AUTOMATIC1111 that a text is from, also by way of Forge, which kept its samplers and prompts."""
    match = _FORGE.fullmatch((text or "").strip()[:200])
    return parse_version(text if match is None else f"{match[1]}-RC" if match[2] else match[1])


def apply_version_rules(prompts: str, fields: dict[str, str]) -> None:
    """Add the settings that versions before a change had without saying so."""
    version = parse_version(fields.get("Version"))
    if version is None:
        return
    if version < (1, 6, 0, 0):
        if "[" in prompts:
            fields.setdefault("Old prompt editing timelines", "True")
        if fields.get("Sampler") in _OLD_DDIM:
            fields.setdefault("Pad conds v0", "True")
    if version < (1, 7, 0, 225):
        fields.setdefault("Downcast alphas_cumprod", "True")
    if version < (1, 8, 0, 0) and "Refiner" in fields:
        fields.setdefault("Refiner switch by sampling steps", "True")


def old_schedule(fields: dict[str, str]) -> str | None:
    """The schedule that a sampler without a suffix had before 1.9, where "Automatic" and own defaults did not exist.

    "DPM++ 2M" was the uniform schedule there and is Karras now. None where nothing changed or the version is unknown.
    """
    found = _before_1_9(fields, "Sampler", "Schedule type")
    if found is None:
        return None
    sampler, schedule = found
    changed = schedule is None and sampler.default_schedule not in ("Uniform", "DDIM") and sampler.name != "Restart"
    return "Uniform" if changed and sampler.name in SAMPLER_NAMES and not sampler.own_schedule else None


def old_hires_schedule(fields: dict[str, str]) -> str | None:
    """The schedule that a sampler of the hires pass alone had before 1.9: by its name, and not the first pass's.

    None where the first pass's counts, as it does for a "Schedule type" too: an option for every sampler at the time.
    """
    found = None if "Schedule type" in fields else _before_1_9(fields, "Hires sampler", "Hires schedule type")
    if found is None:
        return None
    sampler, schedule = found
    if schedule is not None:
        return schedule.name
    return AUTOMATIC if sampler.own_schedule or sampler.timestep_space or sampler.name == "Restart" else "Uniform"


def _before_1_9(fields: dict[str, str], key: str, schedule_key: str) -> tuple[SamplerName, ScheduleName | None] | None:
    """The sampler under a key and the schedule in its name, of a text from before schedules were settings."""
    version = _grown_from(fields.get("Version"))
    if version is None or version >= (1, 9, 0, -1) or schedule_key in fields or key not in fields:
        return None
    try:
        return find_sampler(fields[key])
    except InvalidParams:
        return None


def needs_compatibility(prompt: str, negative_prompt: str, fields: dict[str, str]) -> bool:
    """Whether AUTOMATIC1111 read these prompts in another way than this program does by default.

    That is so for a prompt that ends in a number after a colon, without AND, and for BREAK inside brackets. Only a
    version of AUTOMATIC1111 or Forge, or none at all beside a hash of a model, says that the text is from there.
    """
    if _grown_from(fields.get("Version")) is None and ("Version" in fields or "Model hash" not in fields):
        return False
    prompt = _without_networks(prompt)
    if _TRAILING_NUMBER.search(prompt[-_TAIL:]) and " AND " not in prompt:
        return True
    return any("BREAK" in text and ("(" in text or "[" in text) for text in (prompt, negative_prompt))


def _without_networks(prompt: str) -> str:
    """The prompt without its `<lora:name:1>` tags. Linear: nothing is sought behind the last `>`."""
    end = prompt.rfind(">") + 1
    return _NETWORK.sub("", prompt[:end]) + prompt[end:]


def holds_written_out_choices(prompts: str, fields: dict[str, str]) -> bool:
    """Whether the prompts hold `{a|b}` or `__name__` as words: a picture's text is written after choices were made.

    Our own texts say so themselves ("Wildcards: False").
    """
    if fields.get("Version", "").startswith("Latent WebUI"):
        return False
    return prompts.count("__") > 1 or ("{" in prompts and "|" in prompts)
