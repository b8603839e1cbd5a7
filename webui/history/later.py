"""Embeddings that came after a picture: where their names stand in its prompts, they were words when it was made."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from webui.catalog.lookup import embedding_name, embedding_vectors
from webui.errors import InvalidParams
from webui.names import find_sampler
from webui.params import GenerationParams
from webui.prompt import PromptPlan, clip_tokenizer, denoiser_calls, listed, names_in, parse_prompt, words_of


def as_then(params: GenerationParams, embeddings: Any, used: Collection[Any], checkpoint: Any) -> tuple[str, ...]:
    """The names that `params` would take for embeddings now and that were none: none of the files in `used` has them.

    `embeddings` are all that are here; those that are not made for `checkpoint` (None: unknown) are words anyway.
    """
    then = {listed(embedding_name(file)) for file in used} | words_of(params.read_as_words)
    new = [name for name in embedding_vectors(embeddings, checkpoint) if listed(name) not in then]
    if not new:
        return ()
    found: set[str] = set()
    for plan in _plans(params):
        found |= names_in(plan, new, clip_tokenizer(), emphasis=params.emphasis, compatible=params.prompt_compatibility)
    return tuple(sorted(found))


def with_words(read_as_words: str, names: Collection[str]) -> str:
    """The list with these names added."""
    return ", ".join([*filter(None, [read_as_words]), *(name.replace(",", " ") for name in names)])


def _plans(params: GenerationParams) -> list[PromptPlan]:
    """The prompts of each pass; [] where they cannot be read, which making the picture will say."""
    passes = [params]
    if params.hires is not None and params.width and params.height:
        passes.append(params.second_pass())
    try:
        return [
            parse_prompt(
                one.prompt,
                one.negative_prompt,
                steps=denoiser_calls(one.steps, find_sampler(one.sampler)[0].second_order),
                compatible=params.prompt_compatibility,
                old_timelines=params.old_prompt_timelines,
            )
            for one in passes
        ]
    except InvalidParams:
        return []
