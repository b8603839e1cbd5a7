"""SwarmUI: JSON in the `parameters` chunk, with the settings under `sui_image_params`."""

from __future__ import annotations

from typing import Any

from webui.infotext.bounded_json import text_of
from webui.infotext.dialects.common import (
    as_dict,
    as_list,
    keep_rest,
    lora_tags,
    paired,
    put_comfy_sampler,
    stem,
    with_tags,
)
from webui.infotext.model import Reading, Resource

_USED = frozenset(
    {
        "prompt", "negativeprompt", "loras", "loraweights", "steps", "cfgscale", "seed", "width", "height", "sampler",
        "scheduler", "model", "vae", "clipstopatlayer", "variationseed", "variationseedstrength",
        "rescalecfgmultiplier", "sigmamin", "sigmamax", "rho", "swarm_version", "date", "images",
    }
)  # fmt: skip


def read(value: dict[str, Any]) -> Reading | None:
    params = value.get("sui_image_params")
    if not isinstance(params, dict):
        return None
    tags = lora_tags(paired(as_list(params.get("loras")), as_list(params.get("loraweights"))))
    reading = Reading("SwarmUI", with_tags(text_of(params.get("prompt")), tags), text_of(params.get("negativeprompt")))
    reading.put("Steps", params.get("steps"))
    put_comfy_sampler(reading, params.get("sampler"), params.get("scheduler"))
    reading.put("CFG scale", params.get("cfgscale"))
    reading.put("Seed", params.get("seed"))
    reading.put_size(params.get("width"), params.get("height"))
    reading.put("Model", stem(params.get("model")))
    vae = text_of(params.get("vae"))
    if vae not in ("", "Automatic", "None"):
        reading.put("VAE", vae)
    layer = text_of(params.get("clipstopatlayer"))
    if layer.startswith("-"):
        reading.put("Clip skip", layer[1:])
    if params.get("variationseedstrength"):
        reading.put("Variation seed", params.get("variationseed"))
        reading.put("Variation seed strength", params.get("variationseedstrength"))
    reading.put("CFG rescale", params.get("rescalecfgmultiplier"))
    reading.put("Schedule min sigma", params.get("sigmamin"))
    reading.put("Schedule max sigma", params.get("sigmamax"))
    reading.put("Schedule rho", params.get("rho"))
    reading.put("RNG", "CPU")
    keep_rest(reading, params, _USED)
    for entry in as_list(value.get("sui_models"))[:100]:
        model = as_dict(entry)
        kind = "lora" if model.get("param") == "loras" else "checkpoint" if model.get("param") == "model" else "model"
        reading.resources.append(Resource(kind, stem(model.get("name")), text_of(model.get("hash")).removeprefix("0x")))
    return reading
