"""Prompts to conditioning: chunks of 77 token ids through the CLIP text encoder, emphasis, schedules, AND parts.

Semantics are those of AUTOMATIC1111 (prompt.md sections 3, 4, 6, 7, 8), so that a prompt means
the same in both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from webui.engine.residency import Residency
from webui.prompt import Chunk, PromptPlan, ScheduledText

CACHE_BYTES = 64 * 2**20

Chunker = Callable[[str], Sequence[Chunk]]


class ChunkCache:
    """Encoded chunks across jobs, bounded in bytes; the least recently used go first."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._held = 0
        self._entries: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The entry, made when it is not there."""
        found = self._entries.get(key)
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


@dataclass(frozen=True, slots=True)
class Schedule:
    """Encoded texts (tokens, D), each valid up to and including a denoiser call."""

    entries: tuple[tuple[int, Tensor], ...]

    def at(self, call: int) -> Tensor:
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

    def at(self, call: int, with_uncond: bool) -> tuple[Tensor, Tensor | None]:
        """(prompts (N, tokens, D), negative prompt (tokens, D) or None) for this denoiser call."""
        prompts = _stacked([schedule.at(call) for _, schedule in self.parts])
        uncond = self.negative.at(call) if with_uncond else None
        if self.empty is not None and uncond is not None:
            tokens = max(prompts.shape[1], uncond.shape[0])
            prompts = torch.stack([_padded(prompt, tokens, self.empty) for prompt in prompts])
            uncond = _padded(uncond, tokens, self.empty)
        return prompts, uncond

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(weight for weight, _ in self.parts)


class PromptEncoder:
    """One checkpoint's text encoder. `key` tells checkpoints apart in the cache."""

    def __init__(
        self, model: Any, key: Hashable, cache: ChunkCache, device: torch.device, residency: Residency
    ) -> None:
        self._model = model
        self._key = key
        self._cache = cache
        self._device = device
        self._residency = residency
        self.layers: int = model.config.num_hidden_layers

    def condition(
        self, plan: PromptPlan, chunk: Chunker, *, clip_skip: int, emphasis: str, pad_conds: bool
    ) -> Conditioning:
        """Encode everything a prompt says at any step. `chunk` splits a text into chunks of 77 ids with weights.

        `clip_skip` 1 takes the last layer's output, n the n-th last (at most as many as there are), always through the
        final layer norm.
        """
        skip = min(clip_skip, self.layers)

        def schedule(texts: Sequence[ScheduledText]) -> Schedule:
            encoded = self._encode([chunk(scheduled.text) for scheduled in texts], chunk, skip, emphasis)
            return Schedule(tuple((s.end_step, e) for s, e in zip(texts, encoded, strict=True)))

        empty = self._encode([chunk("")], chunk, skip, "Ignore")[0] if pad_conds else None
        parts = tuple((part.weight, schedule(part.schedule)) for part in plan.parts)
        return Conditioning(parts, schedule(plan.negative), empty)

    def _encode(self, texts: list[Sequence[Chunk]], chunk: Chunker, skip: int, emphasis: str) -> list[Tensor]:
        """The texts of one schedule, each (77 * chunks, D) in fp32. All get the chunk count of the longest.

        They share the mean that "Original" emphasis keeps, as they do where they are encoded as one batch.
        """
        count = max(len(chunks) for chunks in texts)
        if any(len(chunks) < count for chunks in texts):
            filler = list(chunk(""))
            texts = [[*chunks, *(filler * (count - len(chunks)))] for chunks in texts]
        columns = []
        for i in range(count):
            z = torch.stack([self._hidden(chunks[i].ids, skip) for chunks in texts])
            weights = torch.tensor([chunks[i].weights for chunks in texts], device=z.device)
            columns.append(emphasised(z, weights, emphasis))
        return list(torch.cat(columns, dim=1))

    def _hidden(self, ids: tuple[int, ...], skip: int) -> Tensor:
        """(77, D) fp32. One chunk a call: the result must not depend on what else is asked for at the same time."""
        return self._cache.get((self._key, skip, ids), lambda: self._run(ids, skip))

    def _run(self, ids: tuple[int, ...], skip: int) -> Tensor:
        tokens = torch.tensor([ids], dtype=torch.long, device=self._device)
        with self._residency.using(self._model) as model:
            output = model(input_ids=tokens, output_hidden_states=skip > 1)
            hidden = output.last_hidden_state if skip == 1 else model.final_layer_norm(output.hidden_states[-skip])
        encoded: Tensor = hidden[0].float()
        return encoded


def emphasised(z: Tensor, weights: Tensor, mode: str) -> Tensor:
    """Weigh each token's vector: z (texts, 77, D), weights (texts, 77).

    "Original" restores the mean over all of z, "No norm" does not, "Ignore" and "None" leave z as it is.
    """
    if mode not in ("Original", "No norm") or bool((weights == 1).all()):
        return z
    weighted = z * weights.to(z.dtype)[:, :, None]
    if mode == "No norm":
        return weighted
    mean = weighted.mean()
    return weighted * (z.mean() / mean) if float(mean) != 0 else weighted


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
