"""What the UNet is told beside the picture: prompts, and for SDXL pooled prompts and sizes.

It is brought to the device once for as long as it stays the same, which is a whole picture as a rule, and not at each
call: a GPU would have to be waited for, and a recorded graph (`webui.engine.compute.graphs`) would be fed again and
again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from webui.engine.conditioning.text import Conditioning, Encoded
from webui.sampling import to_device


@dataclass(frozen=True, slots=True)
class Sizes:
    """What SDXL is told in numbers beside the prompt (Podell et al. 2023, section 2.2), each (n,) fp32 on the CPU.

    Base: original height and width, top and left of the crop, target height and width. Refiner: an aesthetic score in
    place of the target, another one beside the negative prompt.
    """

    prompt: Tensor
    negative: Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """Arguments of a call of the UNet, a row each."""

    context: Tensor  # (rows, tokens, D)
    added: dict[str, Tensor] | None  # "text_embeds" (rows, P) and "time_ids" (rows, n)


@dataclass(frozen=True, slots=True)
class Told:
    """`count` texts of equal length, for one call of the UNet: `tokens` (count, tokens, D), pooled (count, P), sizes
    (count, n) in fp32 (4,200 has no bf16).
    """

    tokens: Tensor
    pooled: Tensor | None = None
    sizes: Tensor | None = None
    _rows: dict[int, Rows] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return self.tokens.shape[0]

    def singles(self) -> list[Told]:
        """Each text by itself."""

        def row(vectors: Tensor | None, i: int) -> Tensor | None:
            return None if vectors is None else vectors[i : i + 1]

        return [Told(self.tokens[i : i + 1], row(self.pooled, i), row(self.sizes, i)) for i in range(self.count)]

    def rows(self, batch: int) -> Rows:
        """The texts for `batch` pictures each, text by text. The same objects for the same batch."""
        if batch not in self._rows:
            added = None
            if self.pooled is not None and self.sizes is not None:
                pooled, sizes = (vectors.repeat_interleave(batch, dim=0) for vectors in (self.pooled, self.sizes))
                added = {"text_embeds": pooled, "time_ids": sizes}
            self._rows[batch] = Rows(self.tokens.repeat_interleave(batch, dim=0), added)
        return self._rows[batch]


class Telling:
    """A conditioning as calls of the UNet, on the device and in the UNet's number format.

    `apart`: each text has a call of its own, which takes less memory.
    """

    def __init__(
        self, conditioning: Conditioning, sizes: Sizes | None, dtype: torch.dtype, *, apart: bool = False
    ) -> None:
        self._apart = apart
        self._conditioning = conditioning
        self._sizes = sizes
        self._dtype = dtype
        self._texts: tuple[Encoded, ...] = ()
        self._told: dict[tuple[torch.device, bool], tuple[Told, ...]] = {}

    def at(self, call: int, with_uncond: bool, device: torch.device) -> tuple[Told, ...]:
        """What is told in one call each: all prompts, and behind them the negative one, where it is asked for. Where it
        has not as many tokens as they, it has a call of its own.
        """
        texts = self._conditioning.encoded_at(call)
        if len(texts) != len(self._texts) or any(a is not b for a, b in zip(texts, self._texts, strict=True)):
            self._texts = texts
            self._told.clear()
        key = (device, with_uncond)
        if key not in self._told:
            told = self._at(call, with_uncond, device)
            self._told[key] = tuple(one for many in told for one in many.singles()) if self._apart else told
        return self._told[key]

    def _at(self, call: int, with_uncond: bool, device: torch.device) -> tuple[Told, ...]:
        prompts, uncond = self._conditioning.at(call, with_uncond)
        pooled = self._conditioning.pooled_at(call)
        first = self._uploaded(prompts, None if pooled is None else pooled[0], 0, device)
        if uncond is None:
            return (first,)
        second = self._uploaded(uncond[None], None if pooled is None else pooled[1][None], 1, device)
        if uncond.shape[0] != prompts.shape[1]:
            return first, second
        return (_joined(first, second),)

    def _uploaded(self, tokens: Tensor, pooled: Tensor | None, side: int, device: torch.device) -> Told:
        told = to_device(tokens, device, self._dtype)
        if pooled is None or self._sizes is None:
            return Told(told)
        sizes = (self._sizes.prompt, self._sizes.negative)[side].expand(tokens.shape[0], -1)
        return Told(told, to_device(pooled, device, self._dtype), to_device(sizes, device))


def _joined(first: Told, second: Told) -> Told:
    tokens = torch.cat((first.tokens, second.tokens))
    if first.pooled is None or second.pooled is None or first.sizes is None or second.sizes is None:
        return Told(tokens)
    return Told(tokens, torch.cat((first.pooled, second.pooled)), torch.cat((first.sizes, second.sizes)))
