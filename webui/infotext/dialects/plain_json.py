"""JSON with familiar names that belongs to no program above: requests of this program's and similar interfaces."""

from __future__ import annotations

from typing import Any

from webui.infotext.bounded_json import text_of
from webui.infotext.dialects.common import keep_rest
from webui.infotext.model import Reading

_KEYS = {
    "steps": "Steps",
    "sampler": "Sampler",
    "sampler_name": "Sampler",
    "sampler_index": "Sampler",
    "schedule": "Schedule type",
    "scheduler": "Schedule type",
    "cfg_scale": "CFG scale",
    "guidance_scale": "CFG scale",
    "scale": "CFG scale",
    "seed": "Seed",
    "width": "Size-1",
    "height": "Size-2",
    "model": "Model",
    "checkpoint": "Model",
    "sd_model_name": "Model",
    "sd_model_hash": "Model hash",
    "vae": "VAE",
    "clip_skip": "Clip skip",
    "variation_seed": "Variation seed",
    "subseed": "Variation seed",
    "variation_strength": "Variation seed strength",
    "subseed_strength": "Variation seed strength",
    "rng": "RNG",
    "eta": "Eta",
}


def read(value: dict[str, Any]) -> Reading | None:
    if not isinstance(value.get("prompt"), str):
        return None
    reading = Reading("JSON", value["prompt"], text_of(value.get("negative_prompt")), complete=False)
    for name, key in _KEYS.items():
        if key not in reading.fields:
            reading.put(key, value.get(name))
    if ("Size-1" in reading.fields) != ("Size-2" in reading.fields):
        reading.fields.pop("Size-1", None)
        reading.fields.pop("Size-2", None)
    keep_rest(reading, value, {*_KEYS, "prompt", "negative_prompt"})
    return reading
