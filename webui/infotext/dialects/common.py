"""What several dialects share: the names of samplers and schedules, and LoRAs as tags of the prompt."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from webui.infotext.bounded_json import text_of
from webui.infotext.model import Reading

MAX_NETWORKS = 100

# ComfyUI's names, which Fooocus and SwarmUI use, too. A suffix "_gpu" only says where the noise is drawn.
_COMFY_SAMPLERS = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "euler_cfg_pp": "Euler CFG++",
    "heun": "Heun",
    "heunpp2": "HeunPP2",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "lms": "LMS",
    "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "ddpm": "DDPM",
    "lcm": "LCM",
    "tcd": "TCD",
    "ipndm": "IPNDM",
    "ipndm_v": "IPNDM_V",
    "deis": "DEIS",
    "restart": "Restart",
    "ddim": "DDIM",
    "uni_pc": "UniPC",
    "uni_pc_bh2": "UniPC",
}
_COMFY_SCHEDULES = {
    "normal": "Normal",
    "karras": "Karras",
    "exponential": "Exponential",
    "polyexponential": "Polyexponential",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
    "ddim_uniform": "DDIM",
    "beta": "Beta",
    "kl_optimal": "KL Optimal",
    "turbo": "Turbo",
    "align_your_steps": "Align Your Steps",
}


def put_comfy_sampler(reading: Reading, sampler: Any, schedule: Any) -> None:
    """Sampler and schedule under our names; an unknown one keeps its own and is reported as such later."""
    name, kind = text_of(sampler), text_of(schedule)
    reading.put("Sampler", _COMFY_SAMPLERS.get(name.removesuffix("_gpu"), name))
    reading.put("Schedule type", _COMFY_SCHEDULES.get(kind, kind))


def stem(name: Any) -> str:
    """The file name of a model without folder and suffix, whichever system the path is from."""
    text = text_of(name)[:1024]
    file = PurePosixPath(PureWindowsPath(text).name).name
    for suffix in (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft"):
        if file.lower().endswith(suffix):
            return file[: -len(suffix)]
    return file


def lora_tags(networks: Iterable[tuple[Any, Any, Any]]) -> str:
    """`<lora:name:te:unet>` for each (name, text-encoder weight, UNet weight); a weight of None is 1."""
    tags: list[str] = []
    for name, te, unet in networks:
        clean = stem(name).replace(":", "").replace(">", "").strip()
        if not clean or len(tags) >= MAX_NETWORKS:
            continue
        te_text, unet_text = (text_of(weight) or "1" for weight in (te, unet))
        tags.append(f"<lora:{clean}:{te_text}>" if te_text == unet_text else f"<lora:{clean}:{te_text}:{unet_text}>")
    return "".join(tags)


def paired(names: list[Any], weights: list[Any]) -> list[tuple[Any, Any, Any]]:
    """(name, weight, weight) for two lists side by side; missing weights are None."""
    return [(name, *(2 * (weights[i : i + 1] or [None]))) for i, name in enumerate(names)]


def with_tags(prompt: str, tags: str) -> str:
    """A prompt with the tags after it."""
    return f"{prompt} {tags}".strip() if tags else prompt


def keep_rest(reading: Reading, values: dict[str, Any], used: Iterable[str]) -> None:
    """Show the settings that were not mapped, under their own names; long and nested ones are left out."""
    taken = set(used)
    for key, value in list(values.items())[:200]:
        text = text_of(value) if not isinstance(value, bool) else str(value)
        if text and key not in taken and len(text) <= 500:
            reading.fields.setdefault(key[:80], text)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
