"""Prompts to conditioning: chunks of 77 token ids through the text encoders, emphasis, schedules, AND parts.

SDXL has two encoders, whose vectors stand side by side, and a pooled vector of the prompt's first chunk besides.

Semantics are those of AUTOMATIC1111 (prompt.md sections 3, 4, 6, 7, 8), so that a prompt means
the same in both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from webui.engine.compute.threads import suited, text_flop
from webui.engine.files.dims import END, TextDims
from webui.engine.memory.residency import Residency
from webui.engine.networks.embeddings import Embedding, inserted
from webui.prompt import Chunk, PromptPlan, ScheduledText
from webui.sampling import to_device

CACHE_BYTES = 64 * 2**20

Chunker = Callable[[str], Sequence[Chunk]]


class _Held(Protocol):
    @property
    def nbytes(self) -> int: ...


H = TypeVar("H", bound=_Held)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text as the UNet is told it: `tokens` (n, D) and, where the family has one, `pooled` (P,). fp32."""

    tokens: Tensor
    pooled: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes + (self.pooled.nbytes if self.pooled is not None else 0)

    def zeroed(self) -> Encoded:
        """Of the same shape, saying nothing at all."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return Encoded(torch.zeros_like(self.tokens), pooled)


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A loaded text encoder and how its family uses it."""

    module: Any
    dims: TextDims

    def skip(self, clip_skip: int) -> int:
        """Which layer from the end of `module` is taken, from 1; `clip_skip` counts in the encoder as published.

        In SDXL it has no say: AUTOMATIC1111 always takes the layer that its UNet was trained with.
        """
        asked = self.dims.trained_skip if self.dims.fixed else max(clip_skip, self.dims.trained_skip)
        wanted = asked - self.dims.dropped
        return min(wanted, self.dims.layers)


class ChunkCache:
    """Encoded chunks across jobs, bounded in bytes; the least recently used go first."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._held = 0
        self._entries: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], H]) -> H:
        """The entry, made when it is not there."""
        found: H | None = self._entries.get(key)
        if found is None:
            found = make()
            self._entries[key] = found
            self._held += found.nbytes
            while self._held > self._limit and len(self._entries) > 1:
                _, oldest = self._entries.popitem(last=False)
                self._held -= oldest.nbytes
        else:
            self._entries.move_to_end(key)
        return found

    def clear(self) -> None:
        self._entries.clear()
        self._held = 0

    @property
    def bytes(self) -> int:
        return self._held

    @property
    def entries(self) -> int:
        return len(self._entries)

    @property
    def limit(self) -> int:
        return self._limit


@dataclass(frozen=True, slots=True)
class Schedule:
    """Encoded texts, each valid up to and including a denoiser call."""

    entries: tuple[tuple[int, Encoded], ...]

    def at(self, call: int) -> Encoded:
        """The first entry whose end is not before `call`, counted from 0 (A1111: so the first lasts one longer)."""
        return next((encoded for end, encoded in self.entries if call <= end), self.entries[-1][1])


@dataclass(frozen=True, slots=True)
class Conditioning:
    """All that the UNet is told about the picture: AND parts with their weights, and the negative prompt.

    `empty` is the encoding of one empty chunk (77, D), with which the shorter of prompt and negative prompt is padded
    where that is asked for; None: they run as they are, apart from each other.
    """

    parts: tuple[tuple[float, Schedule], ...]
    negative: Schedule
    empty: Tensor | None = None
    prepare: Callable[[int], None] | None = None  # has the UNet ready for a denoiser call: LoRAs on or off

    def at(self, call: int, with_uncond: bool) -> tuple[Tensor, Tensor | None]:
        """(prompts (N, tokens, D), negative prompt (tokens, D) or None) for this denoiser call."""
        prompts = _stacked([schedule.at(call).tokens for _, schedule in self.parts])
        uncond = self.negative.at(call).tokens if with_uncond else None
        if self.empty is not None and uncond is not None:
            tokens = max(prompts.shape[1], uncond.shape[0])
            prompts = torch.stack([_padded(prompt, tokens, self.empty) for prompt in prompts])
            uncond = _padded(uncond, tokens, self.empty)
        return prompts, uncond

    def pooled_at(self, call: int) -> tuple[Tensor, Tensor] | None:
        """(pooled prompts (N, P), pooled negative prompt (P,)) for this denoiser call; None in families without."""
        prompts = [schedule.at(call).pooled for _, schedule in self.parts]
        negative = self.negative.at(call).pooled
        if negative is None:
            return None
        return torch.stack([pooled for pooled in prompts if pooled is not None]), negative

    def encoded_at(self, call: int) -> tuple[Encoded, ...]:
        """The texts of this denoiser call: while they are the same objects, the UNet is told the same."""
        return (*(schedule.at(call) for _, schedule in self.parts), self.negative.at(call))

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(weight for weight, _ in self.parts)


def in_turn(runs: Sequence[tuple[int, Conditioning]]) -> Conditioning:
    """One conditioning that is each of `runs` up to and including its call, and the last one to the end.

    They have the same parts; only what the texts are encoded to differs.
    """
    if len(runs) == 1:
        return runs[0][1]

    def joined(schedules: Sequence[Schedule]) -> Schedule:
        entries: list[tuple[int, Encoded]] = []
        first = 0
        for (last, _), schedule in zip(runs, schedules, strict=True):
            lasting = [entry for entry in schedule.entries if entry[0] >= first] or [schedule.entries[-1]]
            for end, encoded in lasting:
                entries.append((min(end, last), encoded))
                if end >= last:
                    break
            else:
                entries.append((last, lasting[-1][1]))
            first = last + 1
        return Schedule(tuple(entries))

    conditionings = [conditioning for _, conditioning in runs]
    parts = tuple(
        (weight, joined([c.parts[i][1] for c in conditionings])) for i, (weight, _) in enumerate(conditionings[0].parts)
    )
    return replace(conditionings[0], parts=parts, negative=joined([c.negative for c in conditionings]))


@dataclass(frozen=True, slots=True)
class Additions:
    """What is added to the text encoders for a prompt: a key of the networks that are attached to them, and the textual
    inversion embeddings that the prompt names.
    """

    networks: Hashable = ()
    embeddings: Mapping[str, Embedding] = field(default_factory=dict, hash=False)


NO_ADDITIONS = Additions()


class PromptEncoder:
    """The text encoders of one checkpoint. `key` tells checkpoints apart in the cache.

    `zero_empty_negative`: a negative prompt without a word is zeros instead of what the encoders make of nothing, as
    SDXL was trained.
    """

    def __init__(
        self,
        encoders: Sequence[TextEncoder],
        key: Hashable,
        cache: ChunkCache,
        device: torch.device,
        residency: Residency,
        *,
        zero_empty_negative: bool = False,
    ) -> None:
        self._encoders = tuple(encoders)
        self._key = key
        self._cache = cache
        self._device = device
        self._residency = residency
        self._zero_empty_negative = zero_empty_negative

    def condition(
        self,
        plan: PromptPlan,
        chunk: Chunker,
        *,
        clip_skip: int,
        emphasis: str,
        pad_conds: bool,
        additions: Additions = NO_ADDITIONS,
    ) -> Conditioning:
        """Encode everything a prompt says at any step. `chunk` splits a text into chunks of 77 ids with weights.

        `clip_skip` 1 takes the last layer's output, n the n-th last (at most as many as there are, and none behind the
        one that the UNet was trained with; SDXL ignores it). `chunk` places embeddings that are in `additions` alone.
        """

        def schedule(texts: Sequence[ScheduledText]) -> Schedule:
            chunks = [chunk(scheduled.text) for scheduled in texts]
            encoded = self._encode(chunks, chunk, clip_skip, emphasis, additions)
            return Schedule(tuple((s.end_step, e) for s, e in zip(texts, encoded, strict=True)))

        with self._residency.visits():
            negative = schedule(plan.negative)
            if self._zero_empty_negative and not any(scheduled.text.strip() for scheduled in plan.negative):
                negative = Schedule(tuple((end, encoded.zeroed()) for end, encoded in negative.entries))
            empty = self._encode([chunk("")], chunk, clip_skip, "Ignore", additions)[0].tokens if pad_conds else None
            parts = tuple((part.weight, schedule(part.schedule)) for part in plan.parts)
            return Conditioning(parts, negative, empty)

    def _encode(
        self, texts: list[Sequence[Chunk]], chunk: Chunker, clip_skip: int, emphasis: str, additions: Additions
    ) -> list[Encoded]:
        """The texts of one schedule, each with 77 tokens a chunk. All get the chunk count of the longest.

        They share the mean that "Original" emphasis keeps, as they do where they are encoded as one batch; each encoder
        has a mean of its own.
        """
        count = max(len(chunks) for chunks in texts)
        if any(len(chunks) < count for chunks in texts):
            filler = list(chunk(""))
            texts = [[*chunks, *(filler * (count - len(chunks)))] for chunks in texts]
        columns, pooled = [], list[Tensor | None]([None] * len(texts))
        for i in range(count):
            weights = torch.tensor([chunks[i].weights for chunks in texts])
            sides = []
            for number, encoder in enumerate(self._encoders):
                hidden = [self._hidden(number, chunks[i], encoder.skip(clip_skip), additions) for chunks in texts]
                sides.append(emphasised(torch.stack([h.tokens for h in hidden]), weights, emphasis))
                if i == 0 and encoder.dims.projection:
                    pooled = [h.pooled for h in hidden]
            columns.append(sides[0] if len(sides) == 1 else torch.cat(sides, dim=-1))
        tokens = torch.cat(columns, dim=1)
        return [Encoded(one, vector) for one, vector in zip(tokens, pooled, strict=True)]

    def _hidden(self, number: int, chunk: Chunk, skip: int, additions: Additions) -> Encoded:
        """One chunk, (77, D). One a call: the result must not depend on what else is asked for at the same time."""
        placed = [(place.position, additions.embeddings[place.name]) for place in chunk.embeddings]
        names = tuple((position, embedding.key) for position, embedding in placed)
        tables = [(position, embedding.tables[number]) for position, embedding in placed]
        return self._cache.get(
            (self._key, additions.networks, number, skip, chunk.ids, names),
            lambda: self._run(self._encoders[number], chunk.ids, skip, tables),
        )

    def _run(
        self, encoder: TextEncoder, ids: tuple[int, ...], skip: int, tables: Sequence[tuple[int, Tensor]]
    ) -> Encoded:
        dims = encoder.dims
        tokens = to_device(torch.tensor([_padded_ids(ids, dims)], dtype=torch.long), self._device)
        work = text_flop(encoder.module, tokens.shape[1])
        with self._residency.using(encoder.module) as model, inserted(model, tables), suited(work, self._device):
            output = model(input_ids=tokens, output_hidden_states=skip > 1 or not dims.normed)
            body = model.text_model if dims.projection else model
            if skip == 1 and dims.normed:
                hidden = output.last_hidden_state
            else:
                hidden = output.hidden_states[-skip]
                hidden = body.final_layer_norm(hidden) if dims.normed else hidden
            pooled = output.text_embeds[0].float() if dims.projection else None
        return Encoded(hidden[0].float(), pooled)


def _padded_ids(ids: tuple[int, ...], dims: TextDims) -> tuple[int, ...]:
    """The ids with the encoder's own padding after the first end token."""
    if dims.padding == END or END not in ids:
        return ids
    length = ids.index(END) + 1
    return ids[:length] + (dims.padding,) * (len(ids) - length)


def emphasised(z: Tensor, weights: Tensor, mode: str) -> Tensor:
    """Weigh each token's vector: z (texts, 77, D), weights (texts, 77) in the machine's memory.

    "Original" restores the mean over all of z, "No norm" does not, "Ignore" and "None" leave z as it is.
    """
    if mode not in ("Original", "No norm") or bool((weights == 1).all()):
        return z
    weighted = z * to_device(weights, z.device, z.dtype)[:, :, None]
    if mode == "No norm":
        return weighted
    mean = weighted.mean()
    return weighted * torch.where(mean == 0, torch.ones_like(mean), z.mean() / mean)


def _stacked(encoded: list[Tensor]) -> Tensor:
    """(N, tokens, D); shorter ones are extended by their last token's vector."""
    tokens = max(e.shape[0] for e in encoded)
    return torch.stack([e if e.shape[0] == tokens else _extended(e, tokens) for e in encoded])


def _extended(encoded: Tensor, tokens: int) -> Tensor:
    return torch.cat((encoded, encoded[-1:].expand(tokens - encoded.shape[0], -1)))


def _padded(encoded: Tensor, tokens: int, empty: Tensor) -> Tensor:
    """Extended to `tokens` by whole empty chunks."""
    missing = (tokens - encoded.shape[0]) // empty.shape[0]
    return torch.cat((encoded, *([empty] * missing))) if missing else encoded
