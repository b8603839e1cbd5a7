"""Easy Diffusion: one text chunk a setting, or the same as JSON, under the request's names or the page's labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webui.infotext.bounded_json import text_of
from webui.infotext.dialects.common import as_list, keep_rest, lora_tags, paired, put_comfy_sampler, stem, with_tags
from webui.infotext.model import Reading

_LABELS = {
    "prompt": "Prompt",
    "negative_prompt": "Negative Prompt",
    "seed": "Seed",
    "use_stable_diffusion_model": "Stable Diffusion model",
    "use_vae_model": "VAE model",
    "clip_skip": "Clip Skip",
    "sampler_name": "Sampler",
    "width": "Width",
    "height": "Height",
    "num_inference_steps": "Steps",
    "guidance_scale": "Guidance Scale",
    "use_lora_model": "LoRA model",
    "lora_alpha": "LoRA Strength",
}
_MARKS = frozenset({"use_stable_diffusion_model", "num_inference_steps", "Stable Diffusion model", "Guidance Scale"})
_SAMPLERS = {
    "euler_a": "euler_ancestral",
    "dpm2": "dpm_2",
    "dpm2_a": "dpm_2_ancestral",
    "dpmpp_2s_a": "dpmpp_2s_ancestral",
}


def read(value: dict[str, Any]) -> Reading | None:
    request = value.get("reqBody")
    if isinstance(request, dict):
        value = request
    if not _MARKS & value.keys():
        return None
    found = {key: value.get(key, value.get(label)) for key, label in _LABELS.items()}
    networks = paired(_several(found["use_lora_model"]), _several(found["lora_alpha"]))
    prompt = with_tags(text_of(found["prompt"]), lora_tags(networks))
    reading = Reading("Easy Diffusion", prompt, text_of(found["negative_prompt"]))
    reading.put("Steps", found["num_inference_steps"])
    sampler = text_of(found["sampler_name"])
    put_comfy_sampler(reading, _SAMPLERS.get(sampler, sampler), None)
    reading.put("CFG scale", found["guidance_scale"])
    reading.put("Seed", found["seed"])
    reading.put_size(found["width"], found["height"])
    reading.put("Model", stem(found["use_stable_diffusion_model"]))
    vae = stem(found["use_vae_model"])
    if vae and vae != "None":
        reading.put("VAE", vae)
    if text_of(found["clip_skip"]).casefold() == "true" or found["clip_skip"] is True:
        reading.put("Clip skip", 2)
    keep_rest(reading, value, {*_LABELS, *_LABELS.values()})
    return reading


def read_chunks(chunks: Mapping[str, str]) -> Reading | None:
    return read(dict(chunks))


def _several(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip(" '\"") for part in value.strip("[]").split(",")] if value not in ("", "None") else []
    return as_list(value) or ([] if value is None else [value])
