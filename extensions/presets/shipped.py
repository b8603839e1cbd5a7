"""The presets that ship, for the families that the catalog knows. Values are those that the models' authors advise."""

from __future__ import annotations

from webui.extensions import Preset

SD1, SD2, SDXL = ("SD1", "SD1 inpainting"), ("SD2",), ("SDXL", "SDXL inpainting")

SHIPPED = (
    Preset("Fast", {"sampler": "DPM++ 2M", "schedule": "Karras", "steps": 15, "cfg_scale": 6.0}, SD1 + SD2, "15 steps"),
    Preset(
        "Quality",
        {"sampler": "DPM++ 2M SDE", "schedule": "Exponential", "steps": 35, "cfg_scale": 6.5},
        SD1 + SD2,
        "35 steps with fresh noise in each",
    ),
    Preset("Fast", {"sampler": "DPM++ 2M", "schedule": "Karras", "steps": 20, "cfg_scale": 5.0}, SDXL, "20 steps"),
    Preset(
        "Quality",
        {"sampler": "DPM++ 2M SDE", "schedule": "Karras", "steps": 40, "cfg_scale": 6.0},
        SDXL,
        "40 steps with fresh noise in each",
    ),
    Preset(
        "LCM 4 steps",
        {"sampler": "LCM", "schedule": "SGM Uniform", "steps": 4, "cfg_scale": 1.5},
        SD1 + SDXL,
        "For LCM checkpoints, or any with an LCM LoRA in the prompt",
    ),
    Preset(
        "Lightning 8 steps",
        {"sampler": "Euler", "schedule": "SGM Uniform", "steps": 8, "cfg_scale": 1.0},
        SDXL,
        "For Lightning checkpoints and LoRAs",
    ),
    Preset(
        "Turbo 4 steps",
        {"sampler": "Euler a", "schedule": "Turbo", "steps": 4, "cfg_scale": 1.0},
        SD2 + SDXL,
        "For Turbo checkpoints",
    ),
)
