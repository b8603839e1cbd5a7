"""What of a request has no effect on its picture, as far as prompt, model and catalog show it."""

from __future__ import annotations

import math

from webui.catalog import Catalog
from webui.catalog.lookup import find_network
from webui.engine.models import LoadedCheckpoint
from webui.errors import near_matches
from webui.events import Warning
from webui.params import GenerationParams
from webui.prompt import EmbeddingNames, ExtraNetwork, PromptPlan, clip_tokenizer, parse_pieces


def notes_on(
    params: GenerationParams, plan: PromptPlan, checkpoint: LoadedCheckpoint, catalog: Catalog
) -> list[Warning]:
    """Said under the picture, in this order: the prompt's own problems, networks, embeddings, settings."""
    notes = list(plan.warnings)
    notes += [Warning("network", _network_note(network, catalog)) for network in plan.networks]
    notes += _embedding_notes(params, plan, checkpoint, catalog)
    layers = min(encoder.dims.layers + encoder.dims.dropped for encoder in checkpoint.text_encoders)
    if params.clip_skip > layers:
        text = f"Clip skip {params.clip_skip} is more than this model's {layers} layers; {layers} was used."
        notes.append(Warning("clip_skip", text))
    if params.negative_prompt.strip() and _negative_cancels(params, plan):
        text = "The negative prompt had no effect: at CFG scale 1 it cancels out. Use a CFG scale above 1."
        notes.append(Warning("negative", text))
    return notes


def _negative_cancels(params: GenerationParams, plan: PromptPlan) -> bool:
    """u + 1 (c - u) = c; the samplers of CFG++ use u all the same."""
    weights = sum(part.weight for part in plan.parts)
    return math.isclose(params.cfg_scale, 1.0) and math.isclose(weights, 1.0) and "CFG++" not in params.sampler


def _network_note(network: ExtraNetwork, catalog: Catalog) -> str:
    if network.kind == "hypernet":
        return f"<hypernet:{network.name}> had no effect: hypernetworks are not used by this version."
    if find_network(catalog.loras, network.name) is None:
        near = near_matches(network.name, (model.stem for model in catalog.loras))
        return f'There is no LoRA "{network.name}" here, so its tag had no effect. {near}'.strip()
    return f"<{network.kind}:{network.name}> had no effect: this version does not load LoRAs yet."


def _embedding_notes(
    params: GenerationParams, plan: PromptPlan, checkpoint: LoadedCheckpoint, catalog: Catalog
) -> list[Warning]:
    """Embeddings whose names stand in the prompts: they are read as the words that their names are."""
    files = {model.stem: model for model in catalog.embeddings}
    if not files:
        return []
    tokenizer = clip_tokenizer()
    names = EmbeddingNames(dict.fromkeys(files, 1), tokenizer)
    found: dict[str, None] = {}
    for text in plan.texts():
        for piece in parse_pieces(text, emphasis=params.emphasis, compatible=params.prompt_compatibility):
            ids = tokenizer.encode(piece.text)
            found.update((match[0], None) for at in range(len(ids)) if (match := names.at(ids, at)))
    width = checkpoint.text_encoder.config.hidden_size
    notes = []
    for name in found:
        model = files[name]
        if model.context_dim and model.context_dim != width:
            why = f"it is made for {model.family} ({model.context_dim} numbers a token), this model has {width}"
        else:
            why = "this version does not load embeddings yet"
        notes.append(Warning("embedding", f'The embedding "{name}" was read as words: {why}.'))
    return notes
