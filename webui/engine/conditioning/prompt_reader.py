"""From a picture's prompts to what the UNet is told, with the networks that they name."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import replace

from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.engine.conditioning.notes import notes_on
from webui.engine.conditioning.prompts import EncodedPrompts
from webui.engine.conditioning.text import Additions, Conditioning, PromptEncoder
from webui.engine.networks.active import ActiveNetworks
from webui.engine.networks.library import NetworkLibrary
from webui.events import Event, Loaded, Loading, Warning
from webui.names import find_sampler
from webui.params import GenerationParams
from webui.prompt import EmbeddingNames, PromptPlan, chunk_text, clip_tokenizer, denoiser_calls, parse_prompt


class PromptReader:
    """Reads the prompts of a job's pictures for one checkpoint.

    What had no effect is added to `notes`; LoRAs that are attached anew are told as `Loading` and `Loaded`.
    """

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        encoder: PromptEncoder,
        library: NetworkLibrary,
        notes: list[Warning],
        emit: Callable[[Event], None],
        calls: int,
        first: GenerationParams | None = None,
        *,
        refines: bool = False,
    ) -> None:
        """`calls`: denoiser calls of the pass, of which one that starts from a picture has fewer than its steps need;
        the shares of networks are of these, and those of a prompt's schedule of the steps.

        `first` is the first pass's request where these are prompts of the hires pass: its steps come before.
        `refines`: the checkpoint draws the end of a pass, and what it does not take the other one may.
        """
        self._checkpoint = checkpoint
        self._encoder = encoder
        self._library = library
        self._notes = notes
        self._emit = emit
        self._calls = calls
        self._first = first
        self._refines = refines

    def encode(self, params: GenerationParams) -> EncodedPrompts:
        """The prompts of `params`, encoded with the networks that they name, which are attached now."""
        plan = _plan(params, None, self._first)
        active = self._library.select(plan, self._checkpoint, max(1, self._calls))
        embeddings, unused = self._library.embeddings_in(plan, active, self._checkpoint, params)
        vectors = {name: used.embedding for name, used in embeddings.items()}
        names = EmbeddingNames({name: e.vectors for name, e in vectors.items()}, clip_tokenizer()) if vectors else None
        if names is not None:
            plan = _plan(params, names, self._first)  # what is too long depends on them
        passes, started = active.adapters.passes, time.perf_counter()

        def condition(networks: Hashable) -> Conditioning:
            return self._condition(params, plan, names, Additions(networks, vectors))

        conditioning = replace(active.conditioned(condition), prepare=active.prepare)
        active.prepare(0)
        if active.adapters.passes != passes:
            self._tell(active, time.perf_counter() - started)
        partly = [
            Warning("network", f'Of the LoRA "{lora.tag.name}", {text}.')
            for lora, text, whole in active.report()
            if not whole
        ]
        drawing = [lora.model for lora in active.loras if lora.tag.unet_weight]
        notes = notes_on(params, plan, self._checkpoint, [*active.warnings, *partly, *unused], drawing)
        if self._refines:
            notes = [_of_refiner(note) for note in notes if note not in self._notes]
        self._notes += notes
        return EncodedPrompts(conditioning, self._library.used(active, embeddings))

    def _condition(
        self, params: GenerationParams, plan: PromptPlan, names: EmbeddingNames | None, additions: Additions
    ) -> Conditioning:
        tokenizer = clip_tokenizer()
        return self._encoder.condition(
            plan,
            lambda text: chunk_text(
                text,
                tokenizer,
                emphasis=params.emphasis,
                comma_backtrack=params.comma_backtrack,
                compatible=params.prompt_compatibility,
                embeddings=names,
            ),
            clip_skip=params.clip_skip,
            emphasis=params.emphasis,
            pad_conds=params.pad_conds,
            additions=additions,
        )

    def _tell(self, active: ActiveNetworks, seconds: float) -> None:
        for lora, text, _ in active.report():
            name, model = lora.tag.name, lora.model
            self._emit(Loading("lora", name, f"LoRA {name} ({model.variant}): {text}"))
            self._emit(Loaded("lora", name, model.short_hash, str(model.path), {"total": seconds}))


def _of_refiner(note: Warning) -> Warning:
    return replace(note, text=f"In the refiner's part: {note.text}")


def _calls(params: GenerationParams) -> int:
    info, _ = find_sampler(params.sampler)
    return denoiser_calls(params.steps, info.second_order)


def _plan(params: GenerationParams, embeddings: EmbeddingNames | None, first: GenerationParams | None) -> PromptPlan:
    return parse_prompt(
        params.prompt,
        params.negative_prompt,
        steps=_calls(params if first is None else first),
        hires_steps=None if first is None else _calls(params),
        emphasis=params.emphasis,
        tokenizer=clip_tokenizer(),
        comma_backtrack=params.comma_backtrack,
        compatible=params.prompt_compatibility,
        old_timelines=params.old_prompt_timelines,
        embeddings=embeddings,
    )
