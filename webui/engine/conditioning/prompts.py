"""What each picture of a job is told: its own prompts once wildcards are chosen, encoded once per text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webui.engine.conditioning.text import Conditioning
from webui.engine.networks.used import UsedNetwork
from webui.events import Warning
from webui.params import GenerationParams
from webui.prompt import expand_wildcards, has_wildcards

Encode = Callable[[GenerationParams], "EncodedPrompts"]


@dataclass(frozen=True, slots=True)
class EncodedPrompts:
    """What a picture is conditioned on, and the networks that its prompts name."""

    conditioning: Conditioning
    networks: tuple[UsedNetwork, ...] = ()


def picture_params(params: GenerationParams, index: int, root: Path) -> tuple[GenerationParams, tuple[Warning, ...]]:
    """The job's params with the prompts of picture `index`, and what could not be chosen.

    The choice follows from the picture's own seed, so the picture made alone has the same prompts. The result needs no
    wildcard files to be made again: where text is left that they would change, `wildcards` is switched off in it.
    `params` itself comes back where there is nothing to choose.
    """
    hires = params.hires
    texts = (params.prompt, params.negative_prompt)
    more_texts = (hires.prompt, hires.negative_prompt) if hires is not None else ()
    if not any(map(has_wildcards, (*texts, *more_texts))):
        return params, ()
    if not params.wildcards:
        note = "Wildcards are switched off: __name__ and {a|b} in the prompt were read as words."
        return params, (Warning("wildcard", note),)
    seed, _ = params.seeds_of(index)

    def chosen(prompt: str, negative: str) -> tuple[str, str]:
        words, told = expand_wildcards(prompt, seed=seed, root=root)
        unwanted, more = expand_wildcards(negative, seed=seed, root=root, stream="negative prompt")
        warnings.extend((*told, *more))
        return words, unwanted

    warnings: list[Warning] = []
    prompt, negative = chosen(*texts)
    fields: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative}
    second: tuple[str, ...] = ()
    if hires is not None:  # equal words choose alike in both passes
        second = chosen(hires.prompt, hires.negative_prompt)
        fields["hires"] = {**hires.model_dump(), "prompt": second[0], "negative_prompt": second[1]}
    settled = not any(map(has_wildcards, (prompt, negative, *second)))
    return params.changed(**fields, wildcards=settled), tuple(dict.fromkeys(warnings))


class PicturePrompts:
    """The prompts of a job's pictures. Keeps what it encoded until the next batch has its own."""

    def __init__(
        self,
        params: GenerationParams,
        root: Path,
        encode: Encode,
        warn: Callable[[Warning], None],
        told: Callable[[GenerationParams], GenerationParams] = lambda chosen: chosen,
    ) -> None:
        """`told` makes of a picture's params those that it is encoded with: the hires pass has prompts of its own."""
        self._params = params
        self._told = told
        self._root = root
        self._encode = encode
        self._warn = warn
        self._chosen: dict[int, GenerationParams] = {}
        self._encoded: dict[tuple[str, str], EncodedPrompts] = {}

    def params_of(self, index: int) -> GenerationParams:
        """The job's params with the prompts of picture `index`."""
        if index not in self._chosen:
            chosen, warnings = picture_params(self._params, index, self._root)
            self._chosen[index] = chosen
            for warning in warnings:
                self._warn(warning)
        return self._chosen[index]

    def of_batch(self, first: int, count: int) -> list[Conditioning]:
        """What each picture of a batch is conditioned on; pictures with the same prompts share one object."""
        self._chosen = {index: chosen for index, chosen in self._chosen.items() if index >= first}
        encoded: dict[tuple[str, str], EncodedPrompts] = {}
        pictures = []
        for index in range(first, first + count):
            chosen = self._told(self.params_of(index))
            key = (chosen.prompt, chosen.negative_prompt)
            if key not in encoded:
                encoded[key] = self._encoded.get(key) or self._encode(chosen)
            pictures.append(encoded[key].conditioning)
        self._encoded = encoded
        return pictures

    def networks_of(self, index: int) -> tuple[UsedNetwork, ...]:
        """The networks of picture `index` of the batch that was encoded last."""
        chosen = self._told(self.params_of(index))
        return self._encoded[chosen.prompt, chosen.negative_prompt].networks
