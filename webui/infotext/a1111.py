"""The text of AUTOMATIC1111 and of everything that writes like it: Forge, SD.Next, Fooocus, Civitai, this program."""

from __future__ import annotations

import math
import re

from webui.infotext.keys import EXTRA_KEYS, FIXED_KEYS, INFORMATION_KEYS
from webui.infotext.lines import NEGATIVE_MARK, split_prompts
from webui.infotext.model import NotUnderstood, Reading
from webui.infotext.quoting import Pair, split_pairs, split_size, unquote
from webui.infotext.versions import apply_version_rules

MAX_KEYS = 2000
_MIN_PAIRS = 3  # fewer, and the last line is a part of the prompt
_STEPS = re.compile(r"\bSteps: ?\d")
_NETWORK_HASH = re.compile(r"\s*\([0-9a-fA-F]{1,64}\)\Z")
_FIRST_PASS_AREA = 512 * 512  # pixels
_FIRST_PASS_MULTIPLE = 64
_COMMON_KEYS = frozenset({"Steps", "Sampler", "CFG scale", "Seed", "Size", "Model", "Schedule type"})


def read_a1111(text: str) -> Reading:
    """Take the text apart. Linear; never raises. Without a settings line everything is prompt."""
    lines = text.strip().split("\n")
    pairs = split_pairs(lines[-1], MAX_KEYS)
    if len(pairs) < _MIN_PAIRS:
        prompt, negative = split_prompts(lines)
        return Reading("text", prompt, negative, complete=False)
    *lines, settings_line = lines
    on_one_line = _prompt_on_settings_line(settings_line, pairs)
    if on_one_line is not None:
        head, settings_line = on_one_line
        before, mark, after = head.partition(NEGATIVE_MARK)
        lines += [before.rstrip(" ,"), *([f"{NEGATIVE_MARK}{after.rstrip(' ,')}"] if mark else [])]
        pairs = split_pairs(settings_line, MAX_KEYS)
    prompt, negative = split_prompts(lines)
    reading = Reading("A1111", prompt, negative)
    for pair in pairs:
        value = unquote(pair.value)
        size = split_size(value)
        if size:
            reading.fields[f"{pair.key}-1"], reading.fields[f"{pair.key}-2"] = size
        else:
            reading.fields[pair.key] = value
    if len(pairs) == MAX_KEYS:
        reading.not_understood.append(NotUnderstood("", "", f"settings after the first {MAX_KEYS:,} were not read"))
    reading.dialect = _dialect(reading.fields)
    _first_pass_size(reading.fields)
    _old_networks(reading)
    apply_version_rules(reading.prompt + reading.negative_prompt, reading.fields)
    return reading


def _prompt_on_settings_line(line: str, pairs: list[Pair]) -> tuple[str, str] | None:
    """(prompts, settings) of a line that holds both, as SD.Next allows; None when it begins with a known setting."""
    known = _COMMON_KEYS | INFORMATION_KEYS | {name for key in (*FIXED_KEYS, *EXTRA_KEYS) for name in key.names}
    first = pairs[0]
    if not line[: first.start].strip() and first.key in known:
        return None
    steps = _STEPS.search(line)
    return (line[: steps.start()], line[steps.start() :]) if steps and steps.start() else None


def _dialect(fields: dict[str, str]) -> str:
    """The program that wrote the settings, as far as they show it."""
    version = fields.get("Version", "")
    if version.startswith("Latent WebUI"):
        return "Latent WebUI"
    if version.startswith("f") or "Distilled CFG Scale" in fields or "Module 1" in fields:
        return "Forge"
    if "Civitai resources" in fields or "Civitai metadata" in fields:
        return "Civitai"
    if version.startswith("Fooocus") or "Fooocus V2 Expansion" in fields or "Performance" in fields:
        return "Fooocus"
    if fields.get("App") == "SD.Next" or "Backend" in fields or "Parser" in fields:
        return "SD.Next"
    return "A1111"


def _first_pass_size(fields: dict[str, str]) -> None:
    """Before the hires settings of 2023: "Size" was the final size, "First pass size" the one to start with."""
    names = ("First pass size-1", "First pass size-2", "Size-1", "Size-2")
    if not all(fields.get(name, "").isdecimal() and len(fields[name]) <= 6 for name in names):
        return
    first_width, first_height, width, height = (int(fields[name]) for name in names)
    if not (width and height):
        return
    if not (first_width and first_height):
        scale = math.sqrt(_FIRST_PASS_AREA / (width * height))
        first_width, first_height = (
            math.ceil(scale * side / _FIRST_PASS_MULTIPLE) * _FIRST_PASS_MULTIPLE for side in (width, height)
        )
    fields["Size-1"], fields["Size-2"] = str(first_width), str(first_height)
    fields["Hires resize-1"], fields["Hires resize-2"] = str(width), str(height)


def _old_networks(reading: Reading) -> None:
    """Hypernetworks and LoRAs that old versions and an extension kept in settings become tags of the prompt."""
    fields = reading.fields
    if name := fields.get("Hypernet"):
        reading.prompt += f"<hypernet:{name}:{fields.get('Hypernet strength', '1.0')}>"
    tags = []
    for key, value in fields.items():
        number = key.removeprefix("AddNet Model ")
        if number != key and fields.get(f"AddNet Module {number}") == "LoRA":
            name = _NETWORK_HASH.sub("", value[:300])
            tags.append(f"<lora:{name}:{fields.get(f'AddNet Weight A {number}', '1.0')}>")
    if tags:
        reading.prompt += "\n" + "".join(tags)
