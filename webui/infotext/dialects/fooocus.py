"""Fooocus: JSON in `parameters` with `fooocus_scheme`, and the JSON of its log."""

from __future__ import annotations

import re
from typing import Any

from webui.infotext.bounded_json import text_of
from webui.infotext.dialects.common import as_list, keep_rest, lora_tags, put_comfy_sampler, stem, with_tags
from webui.infotext.model import Reading, Resource

_NAMES = {
    "prompt": "Prompt",
    "negative_prompt": "Negative Prompt",
    "steps": "Steps",
    "resolution": "Resolution",
    "guidance_scale": "Guidance Scale",
    "base_model": "Base Model",
    "base_model_hash": "Base Model Hash",
    "sampler": "Sampler",
    "scheduler": "Scheduler",
    "seed": "Seed",
    "vae": "VAE",
    "clip_skip": "CLIP Skip",
}
_DIGITS = re.compile(r"\d{1,6}")
_LOG_LORA = re.compile(r"LoRA \d{1,3}|lora_combined_\d{1,3}")


def read(value: dict[str, Any]) -> Reading | None:
    scheme = value.get("metadata_scheme") or value.get("Metadata Scheme")
    if scheme != "fooocus" and not {"base_model", "Base Model"} & value.keys():
        return None
    read_name = {key: value.get(key, value.get(label)) for key, label in _NAMES.items()}
    loras = [entry for entry in as_list(value.get("loras")) if isinstance(entry, list) and len(entry) >= 2]
    networks = [(name, weight, weight) for name, weight, *_ in loras]
    for key, entry in value.items():
        if isinstance(entry, str) and _LOG_LORA.fullmatch(key):
            *_, name, weight = ["", *entry.split(" : ")][-2:]
            networks.append((name, weight, weight))
    prompt = with_tags(text_of(read_name["prompt"]), lora_tags(networks))
    reading = Reading("Fooocus", prompt, text_of(read_name["negative_prompt"]))
    reading.put("Steps", read_name["steps"])
    put_comfy_sampler(reading, read_name["sampler"], read_name["scheduler"])
    reading.put("CFG scale", read_name["guidance_scale"])
    reading.put("Seed", read_name["seed"])
    sides = _DIGITS.findall(text_of(read_name["resolution"])[:40])
    if len(sides) == 2:
        reading.put_size(*sides)
    reading.put("Model hash", text_of(read_name["base_model_hash"])[:10])
    reading.put("Model", stem(read_name["base_model"]))
    vae = text_of(read_name["vae"])
    if vae and not vae.startswith("Default"):
        reading.put("VAE", vae)
    reading.put("Clip skip", read_name["clip_skip"])
    reading.put("RNG", "CPU")
    keep_rest(reading, value, {*_NAMES, *_NAMES.values(), "metadata_scheme", "Metadata Scheme", "created_by"})
    for name, _, *digest in loras:
        reading.resources.append(Resource("lora", stem(name), text_of(digest[0]) if digest else ""))
    return reading
