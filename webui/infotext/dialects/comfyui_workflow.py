"""ComfyUI's drawn workflow as the graph its interface sends: widget values get their names back."""

from __future__ import annotations

from typing import Any

from webui.infotext.bounded_json import text_of
from webui.infotext.dialects.common import as_dict, as_list

MAX_NODES = 5000
BYPASSED = "(bypassed)"
_MUTED, _BYPASSED = 2, 4  # values of a node's "mode"

# The widgets of the usual nodes, in the order in which a workflow lists their values.
_WIDGETS: dict[str, tuple[str, ...]] = {
    "KSampler": ("seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        "add_noise", "noise_seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler",
        "start_at_step", "end_at_step", "return_with_leftover_noise",
    ),
    "SamplerCustom": ("add_noise", "noise_seed", "control_after_generate", "cfg"),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "KarrasScheduler": ("steps", "sigma_max", "sigma_min", "rho"),
    "ExponentialScheduler": ("steps", "sigma_max", "sigma_min"),
    "PolyexponentialScheduler": ("steps", "sigma_max", "sigma_min", "rho"),
    "RandomNoise": ("noise_seed", "control_after_generate"),
    "CFGGuider": ("cfg",),
    "CLIPTextEncode": ("text",),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "CheckpointLoader": ("config_name", "ckpt_name"),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "VAELoader": ("vae_name",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "RescaleCFG": ("multiplier",),
    "ModelSamplingDiscrete": ("sampling", "zsnr"),
    "PrimitiveNode": ("value",),
}  # fmt: skip


def nodes_of_workflow(workflow: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{id: {"class_type", "inputs"}} of a workflow; muted nodes are left out, bypassed ones only forward."""
    links = {
        str(link[0]): [str(link[1]), link[2]]
        for link in as_list(workflow.get("links"))
        if isinstance(link, list) and len(link) >= 5
    }
    nodes: dict[str, dict[str, Any]] = {}
    for entry in as_list(workflow.get("nodes"))[:MAX_NODES]:
        node = as_dict(entry)
        kind = text_of(node.get("type"))
        if not kind or node.get("mode") == _MUTED:
            continue
        inputs: dict[str, Any] = {}
        values = node.get("widgets_values")
        if node.get("mode") == _BYPASSED:
            kind = BYPASSED
        elif isinstance(values, dict):
            inputs.update(values)
        else:
            inputs.update(zip(_widgets(node, kind), as_list(values), strict=False))
        for item in as_list(node.get("inputs")):
            link = text_of(as_dict(item).get("link"))
            if link in links:
                inputs[text_of(as_dict(item).get("name"))] = links[link]
        nodes[text_of(node.get("id"))] = {"class_type": kind, "inputs": inputs}
    return nodes


def _widgets(node: dict[str, Any], kind: str) -> list[str]:
    """The names of a node's widgets: known, or as newer versions write them beside the inputs."""
    if kind in _WIDGETS:
        return list(_WIDGETS[kind])
    named = [text_of(as_dict(as_dict(item).get("widget")).get("name")) for item in as_list(node.get("inputs"))]
    return [name for name in named if name]
