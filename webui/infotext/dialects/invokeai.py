"""InvokeAI: `invokeai_metadata` (version 3 and later), `sd-metadata` (version 2), `Dream` (version 1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from webui.infotext.bounded_json import load, text_of
from webui.infotext.dialects.common import as_dict, as_list, keep_rest, lora_tags, stem, with_tags
from webui.infotext.model import Reading, Resource

# diffusers' schedulers; a suffix "_k" is the Karras schedule.
_SAMPLERS = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "deis": "DEIS",
    "dpmpp_2s": "DPM++ 2S a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_3m": "DPM++ 3M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "kdpm_2": "DPM2",
    "kdpm_2_a": "DPM2 a",
    "lms": "LMS",
    "pndm": "PLMS",
    "plms": "PLMS",
    "unipc": "UniPC",
    "lcm": "LCM",
    "tcd": "TCD",
    # version 1 and 2
    "k_lms": "LMS",
    "k_euler": "Euler",
    "k_euler_a": "Euler a",
    "k_heun": "Heun",
    "k_dpm_2": "DPM2",
    "k_dpm_2_a": "DPM2 a",
    "k_dpmpp_2": "DPM++ 2M",
    "k_dpmpp_2_a": "DPM++ 2S a",
}
_USED = frozenset(
    {
        "positive_prompt", "negative_prompt", "width", "height", "seed", "steps", "cfg_scale", "scheduler", "model",
        "vae", "loras", "clip_skip", "cfg_rescale_multiplier", "rand_device", "app_version",
    }
)  # fmt: skip
_DREAM = re.compile(r'\s*"((?:[^"\\]|\\.)*)"(.*)', re.DOTALL)
_DREAM_OPTION = re.compile(r"-([A-Za-z])\s*(\S+)")
_DREAM_KEYS = {"s": "Steps", "S": "Seed", "W": "Size-1", "H": "Size-2", "C": "CFG scale"}


def read(value: dict[str, Any]) -> Reading | None:
    nested = value.get("invokeai_metadata")
    if isinstance(nested, dict):
        value = nested
    if isinstance(value.get("image"), dict) and "prompt" in value["image"]:
        return _read_version_2(value)
    if "positive_prompt" not in value:
        return None
    tags = lora_tags(
        (_model_name(as_dict(entry).get("model") or as_dict(entry).get("lora")), weight, weight)
        for entry in as_list(value.get("loras"))
        for weight in (as_dict(entry).get("weight"),)
    )
    prompt = with_tags(text_of(value["positive_prompt"]), tags)
    reading = Reading("InvokeAI", prompt, text_of(value.get("negative_prompt")))
    reading.put("Steps", value.get("steps"))
    _put_sampler(reading, value.get("scheduler"))
    reading.put("CFG scale", value.get("cfg_scale"))
    reading.put("Seed", value.get("seed"))
    reading.put_size(value.get("width"), value.get("height"))
    reading.put("Model", _model_name(value.get("model")))
    reading.put("VAE", _model_name(value.get("vae")))
    skipped = value.get("clip_skip")
    if isinstance(skipped, int) and skipped > 0:  # layers skipped, where others name the layer that is used
        reading.put("Clip skip", skipped + 1)
    reading.put("CFG rescale", value.get("cfg_rescale_multiplier") or None)
    reading.put("RNG", text_of(value.get("rand_device")).upper().replace("CUDA", "GPU") or "CPU")
    keep_rest(reading, value, _USED)
    digest = text_of(as_dict(value.get("model")).get("hash")).rpartition(":")[2]
    reading.resources.append(Resource("checkpoint", _model_name(value.get("model")), digest))
    return reading


def read_chunks(chunks: Mapping[str, str]) -> Reading | None:
    """The chunks of all three generations."""
    for name in ("invokeai_metadata", "sd-metadata"):
        value = load(chunks.get(name, ""))
        reading = read(value) if isinstance(value, dict) else None
        if reading is not None:
            return reading
    return _read_dream(chunks["Dream"]) if "Dream" in chunks else None


def _read_version_2(value: dict[str, Any]) -> Reading:
    image = value["image"]
    prompt = image["prompt"]
    if isinstance(prompt, list):
        prompt = " ".join(text_of(as_dict(part).get("prompt")) for part in prompt[:100])
    positive, negative = _bracketed_negative(text_of(prompt))
    reading = Reading("InvokeAI", positive, negative)
    reading.put("Steps", image.get("steps"))
    _put_sampler(reading, image.get("sampler"))
    reading.put("CFG scale", image.get("cfg_scale"))
    reading.put("Seed", image.get("seed"))
    reading.put_size(image.get("width"), image.get("height"))
    reading.put("Model", stem(value.get("model_weights")))
    return reading


def _read_dream(text: str) -> Reading | None:
    match = _DREAM.fullmatch(text[:100_000])
    if match is None:
        return None
    positive, negative = _bracketed_negative(match.group(1).replace('\\"', '"'))
    reading = Reading("InvokeAI", positive, negative)
    for letter, argument in _DREAM_OPTION.findall(match.group(2)):
        if letter in _DREAM_KEYS:
            reading.put(_DREAM_KEYS[letter], argument)
        elif letter == "A":
            _put_sampler(reading, argument)
    return reading


def _bracketed_negative(prompt: str) -> tuple[str, str]:
    """Until version 3 the negative prompt stood in square brackets inside the prompt."""
    negative = re.findall(r"\[([^\[\]]*)\]", prompt)
    return re.sub(r"\[[^\[\]]*\]", "", prompt).strip(), ", ".join(part.strip() for part in negative)


def _put_sampler(reading: Reading, scheduler: Any) -> None:
    name = text_of(scheduler)
    if name in _SAMPLERS:
        reading.put("Sampler", _SAMPLERS[name])
    elif name.removesuffix("_k") in _SAMPLERS:
        reading.put("Sampler", _SAMPLERS[name.removesuffix("_k")])
        reading.put("Schedule type", "Karras")
    else:
        reading.put("Sampler", name)


def _model_name(value: Any) -> str:
    model = as_dict(value)
    return text_of(model.get("name") or model.get("model_name")) or stem(value)
