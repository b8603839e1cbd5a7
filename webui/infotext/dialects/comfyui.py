"""ComfyUI: the graph that made the picture, as its interface sends it (`prompt`) or draws it (`workflow`).

The graph is walked backwards from what it saves: decoder, sampler, and from the sampler to its prompts, model, size and
seed. Of several sampling passes the first is read. Nodes that are not known are passed through where they only
forward something, and named otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from webui.infotext.bounded_json import load, text_of
from webui.infotext.dialects.comfyui_workflow import BYPASSED, nodes_of_workflow
from webui.infotext.dialects.common import as_dict, lora_tags, put_comfy_sampler, stem, with_tags
from webui.infotext.model import NotUnderstood, Reading

MAX_NODES = 5000
_MAX_HOPS = 200  # nodes followed along one line
_MAX_TEXTS = 50
_MAX_SAMPLERS = 50

_OUTPUTS = ("SaveImage", "PreviewImage", "SaveImageWebsocket", "SaveAnimatedWEBP", "SaveAnimatedPNG")
_TEXT_KEYS = (
    "text",
    "text_g",
    "text_l",
    "clip_l",
    "t5xxl",
    "prompt",
    "populated_text",
    "string",
    "value",
    "wildcard_text",
)
_NUMBER_KEYS = ("seed", "noise_seed", "value", "int", "number", "steps", "width", "height", "cfg", "float")


@dataclass(frozen=True, slots=True)
class Node:
    id: str
    kind: str
    inputs: dict[str, Any]


@dataclass(slots=True)
class _Graph:
    nodes: dict[str, Node]

    def linked(self, node: Node, name: str) -> Node | None:
        """The node that an input is connected to."""
        value = node.inputs.get(name)
        if isinstance(value, list) and len(value) == 2:
            return self.nodes.get(str(value[0]))
        return None

    def sources(self, node: Node) -> Iterator[Node]:
        for name in node.inputs:
            source = self.linked(node, name)
            if source is not None:
                yield source

    def upstream(self, start: Node) -> Iterator[Node]:
        """`start` and everything it depends on, nearest first, each once."""
        seen = {start.id}
        level = [start]
        while level:
            yield from level
            below: list[Node] = []
            for node in level:
                for source in self.sources(node):
                    if source.id not in seen:
                        seen.add(source.id)
                        below.append(source)
            level = below

    def value(self, node: Node, *names: str) -> str:
        """The first of these inputs as text; a connected one is followed to where it is written."""
        for name in names:
            direct = text_of(node.inputs.get(name))
            if direct:
                return direct
            source = self.linked(node, name)
            for _ in range(_MAX_HOPS):
                if source is None:
                    break
                keys = _TEXT_KEYS if name in _TEXT_KEYS else (name, *_NUMBER_KEYS, *_TEXT_KEYS)
                found = next((text for key in keys if (text := text_of(source.inputs.get(key)))), "")
                if found:
                    return found
                source = next(self.sources(source), None)
        return ""


def read(value: dict[str, Any]) -> Reading | None:
    """A `prompt` object, a `workflow` object, or an object that holds one of them."""
    nodes = _nodes(value)
    if nodes is None:
        return None
    graph = _Graph(nodes)
    reading = Reading("ComfyUI")
    samplers = _samplers(graph)
    if not samplers:
        reading.complete = False
        reading.not_understood.append(NotUnderstood("workflow", "", "it has no sampler that is known here"))
        return reading
    sampler = samplers[-1]
    if len(samplers) > 1:
        note = "of several sampling passes the first was read"
        reading.not_understood.append(NotUnderstood("workflow", f"{len(samplers)} passes", note))
    _read_sampler(graph, sampler, reading)
    return reading


def _nodes(value: dict[str, Any]) -> dict[str, Node] | None:
    if isinstance(value.get("nodes"), list):
        raw = nodes_of_workflow(value)
    elif value and any(isinstance(node, dict) and "class_type" in node for node in value.values()):
        raw = value
    else:
        for key in ("prompt", "workflow"):
            inner = value.get(key)
            inner = load(inner) if isinstance(inner, str) and inner.lstrip().startswith("{") else inner
            if isinstance(inner, dict) and (found := _nodes_once(inner)) is not None:
                return found
        return None
    return {
        str(key): Node(str(key), text_of(node.get("class_type")), as_dict(node.get("inputs")))
        for key, node in list(raw.items())[:MAX_NODES]
        if isinstance(node, dict)
    }


def _nodes_once(value: dict[str, Any]) -> dict[str, Node] | None:
    """`_nodes` without looking into a further level."""
    known = isinstance(value.get("nodes"), list) or any(
        isinstance(node, dict) and "class_type" in node for node in value.values()
    )
    return _nodes(value) if known else None


def _is_sampler(node: Node) -> bool:
    inputs = node.inputs
    guided = "positive" in inputs and ("steps" in inputs or "sigmas" in inputs)
    return guided or ("guider" in inputs and "sigmas" in inputs)


def _samplers(graph: _Graph) -> list[Node]:
    """The sampler nodes behind the outputs, the last pass first."""
    outputs = [node for node in graph.nodes.values() if node.kind in _OUTPUTS] or list(graph.nodes.values())[-1:]
    found: dict[str, Node] = {}
    for output in outputs[:20]:
        for node in graph.upstream(output):
            if _is_sampler(node) and len(found) < _MAX_SAMPLERS:
                found.setdefault(node.id, node)
        if found:
            break
    if not found:
        loose = [node for node in graph.nodes.values() if _is_sampler(node)]
        found = {node.id: node for node in loose[:_MAX_SAMPLERS]}
    # The first pass is the one whose latent comes from no other sampler.
    first = [node for node in found.values() if not _behind(graph, node, found)]
    rest = [node for node in found.values() if node not in first]
    return [*rest, *first[:1]] if first else rest


def _behind(graph: _Graph, sampler: Node, samplers: dict[str, Node]) -> bool:
    latent = graph.linked(sampler, "latent_image") or graph.linked(sampler, "samples")
    return latent is not None and any(node.id in samplers for node in graph.upstream(latent))


def _read_sampler(graph: _Graph, sampler: Node, reading: Reading) -> None:
    guider = graph.linked(sampler, "guider") or sampler
    sigmas = graph.linked(sampler, "sigmas") or sampler
    method = graph.linked(sampler, "sampler") or sampler
    noise = graph.linked(sampler, "noise") or sampler
    reading.put("Steps", graph.value(sigmas, "steps"))
    schedule = graph.value(sigmas, "scheduler")
    if not schedule and sigmas is not sampler:  # a node of its own for each schedule: KarrasScheduler
        schedule = sigmas.kind.removesuffix("Scheduler").lower()
    put_comfy_sampler(reading, graph.value(method, "sampler_name"), schedule)
    reading.put("CFG scale", graph.value(guider, "cfg"))
    reading.put("Seed", graph.value(noise, "noise_seed", "seed"))
    latent = graph.linked(sampler, "latent_image")
    for node in graph.upstream(latent) if latent else ():
        if "width" in node.inputs and "height" in node.inputs:
            reading.put_size(graph.value(node, "width"), graph.value(node, "height"))
            break
    reading.put("RNG", "CPU")
    _read_model(graph, guider, reading)
    reading.prompt = with_tags(_texts(graph, guider, ("positive", "conditioning")), reading.prompt)
    reading.negative_prompt = _texts(graph, guider, ("negative",))
    denoise = graph.value(sigmas, "denoise")
    if denoise not in ("", "1", "1.0"):
        reading.put("Denoising strength", denoise)


def _read_model(graph: _Graph, guider: Node, reading: Reading) -> None:
    """Checkpoint, LoRAs, clip skip and what else stands between the checkpoint and the sampler."""
    networks: list[tuple[Any, Any, Any]] = []
    model = graph.linked(guider, "model")
    for node in graph.upstream(model) if model else ():
        inputs = node.inputs
        if "lora_name" in inputs:
            unet = graph.value(node, "strength_model")
            networks.append((graph.value(node, "lora_name"), graph.value(node, "strength_clip") or unet, unet))
        elif "ckpt_name" in inputs or "unet_name" in inputs:
            if "Model" not in reading.fields:
                reading.put("Model", stem(graph.value(node, "ckpt_name", "unet_name")))
        elif node.kind == "RescaleCFG":
            reading.put("CFG rescale", graph.value(node, "multiplier"))
        elif node.kind == "ModelSamplingDiscrete":
            if inputs.get("zsnr") is True:
                reading.put("Noise Schedule", "Zero Terminal SNR")
        elif "model" in inputs and node.kind != BYPASSED:
            reading.not_understood.append(
                NotUnderstood("workflow", node.kind[:80], "this node has no counterpart here")
            )
    reading.prompt = lora_tags(reversed(networks))
    for name in ("positive", "conditioning"):
        source = graph.linked(guider, name)
        for node in graph.upstream(source) if source else ():
            layer = text_of(node.inputs.get("stop_at_clip_layer"))
            if layer.startswith("-") and "Clip skip" not in reading.fields:
                reading.put("Clip skip", layer[1:])
    for node in graph.nodes.values():
        if "vae_name" in node.inputs and "VAE" not in reading.fields:
            reading.put("VAE", graph.value(node, "vae_name"))


def _texts(graph: _Graph, guider: Node, names: tuple[str, ...]) -> str:
    """The prompt behind a conditioning input: the text it comes from, several joined as they are combined."""
    start = next((node for name in names if (node := graph.linked(guider, name))), None)
    if start is None:
        return ""
    texts: list[str] = []
    separator = " AND "
    stack, seen = [start], {start.id}
    while stack and len(texts) < _MAX_TEXTS:
        node = stack.pop()
        if node.kind == "ConditioningConcat":
            separator = " BREAK "
        if node.kind == "ConditioningZeroOut":
            continue
        text = graph.value(node, *(key for key in _TEXT_KEYS if key in node.inputs)) if _has_text(node) else ""
        if text:
            texts.append(text)
            continue
        conditionings = [
            source
            for name, source in ((name, graph.linked(node, name)) for name in node.inputs)
            if source is not None and ("conditioning" in name or name in names) and source.id not in seen
        ]
        seen.update(source.id for source in conditionings)
        stack += reversed(conditionings)
    return separator.join(dict.fromkeys(texts))


def _has_text(node: Node) -> bool:
    return any(key in node.inputs for key in _TEXT_KEYS)
