"""NovelAI: `Software: NovelAI`, the prompt in `Description`, and JSON in `Comment`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webui.infotext.bounded_json import load, text_of
from webui.infotext.dialects.common import as_dict
from webui.infotext.model import Reading

_SAMPLERS = {
    "k_euler": "Euler",
    "k_euler_ancestral": "Euler a",
    "k_dpm_2": "DPM2",
    "k_dpm_2_ancestral": "DPM2 a",
    "k_dpmpp_2s_ancestral": "DPM++ 2S a",
    "k_dpmpp_2m": "DPM++ 2M",
    "k_dpmpp_sde": "DPM++ SDE",
    "k_dpmpp_2m_sde": "DPM++ 2M SDE",
    "k_heun": "Heun",
    "k_lms": "LMS",
    "plms": "PLMS",
    "ddim": "DDIM",
    "ddim_v3": "DDIM",
}
_SCHEDULES = {"karras": "Karras", "exponential": "Exponential", "polyexponential": "Polyexponential"}


def read(value: dict[str, Any]) -> Reading | None:
    """The JSON of the comment alone, as it may be pasted."""
    return _read(value, "", None) if "uc" in value and "scale" in value else None


def read_chunks(chunks: Mapping[str, str], size: tuple[int, int] | None) -> Reading | None:
    if "NovelAI" not in chunks.get("Software", "")[:100]:
        return None
    comment = load(chunks.get("Comment", ""))
    return _read(as_dict(comment), chunks.get("Description", ""), size)


def _read(comment: dict[str, Any], description: str, size: tuple[int, int] | None) -> Reading:
    reading = Reading("NovelAI", description or text_of(comment.get("prompt")), text_of(comment.get("uc")))
    reading.put("Steps", comment.get("steps"))
    reading.put("Sampler", _SAMPLERS.get(text_of(comment.get("sampler")), "Euler a"))
    reading.put("Schedule type", _SCHEDULES.get(text_of(comment.get("noise_schedule"))))
    reading.put("CFG scale", comment.get("scale"))
    reading.put("Seed", comment.get("seed"))
    width, height = size or (comment.get("width"), comment.get("height"))
    reading.put_size(width, height)
    reading.put("CFG rescale", comment.get("cfg_rescale") or None)
    # What AUTOMATIC1111 adds: NovelAI's first models use the last but one layer and this noise offset.
    reading.put("Clip skip", 2)
    reading.put("ENSD", 31337)
    return reading
