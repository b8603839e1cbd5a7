"""The UNet as the samplers see it: conditions in, clean pictures out, one call for prompt and negative prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from webui.engine.text import Conditioning
from webui.errors import NanDetected
from webui.sampling import CondOutputs, GuidedDenoiser, ModelDenoiser, Prediction

GPU_LOOKS_EVERY = 8  # calls


Added = tuple[Tensor, Tensor] | None


class Stopped(Exception):
    """The batch in the making has to end now."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What SDXL is told in numbers beside the prompt (Podell et al. 2023, section 2.2), each (n,) fp32 on the CPU.

    Base: original height and width, top and left of the crop, target height and width. Refiner: an aesthetic score in
    place of the target, another one beside the negative prompt.
    """

    prompt: Tensor
    negative: Tensor


def guidance_embedding(cfg_scale: float, width: int) -> Tensor:
    """The CFG scale as an LCM's UNet is told it (1, width), in fp32.

    Sines and cosines of 1,000 w, as for a timestep (Luo et al. 2023, section 4.3, after Meng et al. 2023). w = 0 is no
    guidance there, what users call a scale of 1.
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * (-math.log(10_000) / max(1, half - 1)))
    angles = 1000 * (cfg_scale - 1) * frequencies
    return torch.nn.functional.pad(torch.cat((angles.sin(), angles.cos())), (0, width % 2))[None]


class UnetEvaluator:
    """`evaluate(x, sigma, call, with_uncond)` for `GuidedDenoiser`.

    Prompt parts and negative prompt of a picture run in one call of the UNet when they have the same number of tokens.
    On a CPU each picture has a call of its own: what a matrix product or a convolution gives depends there, in the last
    bit, on the size of the batch, and a picture must not depend on which others are made with it. A full-size model
    loses nothing by that (measured: 5 % at most).
    """

    def __init__(
        self,
        unet: Any,
        conditioning: Conditioning,
        table: Tensor,
        prediction: Prediction,
        *,
        dtype: torch.dtype,
        quantize: bool,
        check: Callable[[], None],
        sizes: Sizes | None = None,
        channels: Tensor | None = None,
        guidance: Tensor | None = None,
        begin: Callable[[int], None] | None = None,
        apart: bool = False,
    ) -> None:
        """`sizes`: for SDXL. `channels` (1, C, H/8, W/8), shared by all pictures, go into the UNet behind the latents,
        not scaled with them: mask and masked picture of inpainting models. `guidance` (1, width): for an LCM, which
        guides itself; it is never asked about the negative prompt. `begin` is told the number of each call first.
        `apart`: one picture and one prompt a call, which takes the least memory.
        """
        self._unet = unet
        self._conditioning = conditioning
        self._dtype = dtype
        self._check = check
        self._sizes = sizes
        self._channels = channels
        self._begin = begin
        self._apart = apart
        self._guidance = guidance
        self._context: Tensor | None = None
        self._added: dict[str, Tensor] | None = None
        self._denoiser = ModelDenoiser(self._predict, table, prediction, quantize=quantize)

    def __call__(self, x: Tensor, sigma: Tensor, call: int, with_uncond: bool) -> CondOutputs:
        """See `webui.sampling.guidance.Evaluate`. Raises whatever `check` raises, before anything is computed."""
        self._check()
        if self._begin is not None:
            self._begin(call)
        if self._conditioning.prepare is not None:
            self._conditioning.prepare(call)
        prompts, uncond = self._conditioning.at(call, with_uncond and self._guidance is None)
        added, added_uncond = self._vectors(call, prompts.shape[0])
        weights = self._conditioning.weights
        if uncond is not None and uncond.shape[0] == prompts.shape[1] and not self._apart:
            outputs = self._run(x, sigma, torch.cat((prompts, uncond[None])), _joined(added, added_uncond))
            return CondOutputs(list(zip(outputs[:-1], weights, strict=True)), outputs[-1])
        outputs = self._run(x, sigma, prompts, added)
        negative = None if uncond is None else self._run(x, sigma, uncond[None], added_uncond)[0]
        return CondOutputs(list(zip(outputs, weights, strict=True)), negative)

    def _vectors(self, call: int, prompts: int) -> tuple[Added, Added]:
        """What goes with the prompts and with the negative prompt: pooled vectors (N, P) and sizes (N, n)."""
        pooled = self._conditioning.pooled_at(call)
        if pooled is None or self._sizes is None:
            return None, None
        cond, uncond = pooled
        negative = (uncond[None], self._sizes.negative[None])
        return (cond, self._sizes.prompt.expand(prompts, -1)), negative

    def _run(self, x: Tensor, sigma: Tensor, context: Tensor, added: Added) -> Tensor:
        """Clean pictures (N, B, C, H, W) for N contexts (N, tokens, D)."""
        count, batch = context.shape[0], x.shape[0]
        if self._apart and count > 1:
            each = [(context[i : i + 1], _row(added, i)) for i in range(count)]
            return torch.cat([self._run(x, sigma, prompt, vectors) for prompt, vectors in each])
        if (self._apart or x.device.type == "cpu") and batch > 1:
            singles = [self._together(x[i : i + 1], sigma[i : i + 1], context, added) for i in range(batch)]
            return torch.cat(singles, dim=1)
        return self._together(x, sigma, context, added) if count else x[None][:0]

    def _together(self, x: Tensor, sigma: Tensor, context: Tensor, added: Added) -> Tensor:
        count, batch = context.shape[0], x.shape[0]
        self._context = context.to(x.device, self._dtype).repeat_interleave(batch, dim=0)
        if added is not None:
            pooled, sizes = (vectors.to(x.device).repeat_interleave(batch, dim=0) for vectors in added)
            self._added = {"text_embeds": pooled.to(self._dtype), "time_ids": sizes}  # 4,200 has no bf16
        denoised = self._denoiser(x.repeat(count, 1, 1, 1), sigma.repeat(count))
        return denoised.reshape(count, batch, *x.shape[1:])

    def _predict(self, x: Tensor, t: Tensor) -> Tensor:
        if self._channels is not None:
            x = torch.cat((x, self._channels.to(x).expand(x.shape[0], -1, -1, -1)), dim=1)
        sample = x.to(self._dtype, memory_format=torch.channels_last)
        guidance = None if self._guidance is None else self._guidance.to(sample).expand(x.shape[0], -1)
        output: Tensor = self._unet(
            sample,
            t,
            encoder_hidden_states=self._context,
            timestep_cond=guidance,
            added_cond_kwargs=self._added,
            return_dict=False,
        )[0]
        return output.to(x.dtype)


def _row(added: Added, i: int) -> Added:
    return None if added is None else (added[0][i : i + 1], added[1][i : i + 1])


def _joined(prompts: Added, negative: Added) -> Added:
    if prompts is None or negative is None:
        return None
    return torch.cat((prompts[0], negative[0])), torch.cat((prompts[1], negative[1]))


class Watch:
    """Keeps the latest clean pictures of a batch and stops at the first number that is none.

    Reading the answer waits for the device, so a GPU is asked at every eighth call only (a NaN does not go away, and
    `decode` looks again at the end); a CPU is asked at every call.
    """

    def __init__(self, model: str, precision: str) -> None:
        self._model = model
        self._precision = precision
        self._calls = 0
        self.denoised: Tensor | None = None

    def see(self, denoised: Tensor) -> None:
        """Raises `NanDetected`, naming model and precision."""
        self._calls += 1
        due = denoised.device.type == "cpu" or self._calls % GPU_LOOKS_EVERY == 0
        if due and not bool(torch.isfinite(denoised).all()):
            raise NanDetected(
                f"The UNet of {self._model} gave invalid numbers (NaN) in {self._precision} at call {self._calls}.",
                _ADVICE.get(self._precision, _DAMAGED),
            )
        self.denoised = denoised


class GroupedDenoiser:
    """A denoiser for `sample` whose pictures may have different prompts.

    Pictures that share a conditioning are guided together by one `GuidedDenoiser`, exactly as if they were a batch of
    their own: so a batch equals its singles whatever its prompts are. `conditionings` has one entry a picture.
    """

    def __init__(
        self,
        conditionings: Sequence[Conditioning],
        denoiser_of: Callable[[Conditioning], GuidedDenoiser],
        watch: Watch,
    ) -> None:
        rows: dict[int, list[int]] = {}
        for row, conditioning in enumerate(conditionings):
            rows.setdefault(id(conditioning), []).append(row)
        self._groups = [(group, denoiser_of(conditionings[group[0]])) for group in rows.values()]
        self._watch = watch

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The guided clean pictures (B, C, H, W). Raises `NanDetected`."""
        return self.at_level(x, sigma, float(sigma.max()))

    def at_level(self, x: Tensor, sigma: Tensor, level: float) -> Tensor:
        """The same; `level` is the greatest value of `sigma` as a number."""
        denoised = self._joined([guided.at_level(x[rows], sigma[rows], level) for rows, guided in self._parts(x)], x)
        self._watch.see(denoised)
        return denoised

    def with_uncond(self, x: Tensor, sigma: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """(guided, unconditional) clean pictures for CFG++."""
        answers = [guided.with_uncond(x[rows], sigma[rows], level) for rows, guided in self._parts(x)]
        denoised, uncond = (self._joined([answer[i] for answer in answers], x) for i in range(2))
        self._watch.see(denoised)
        return denoised, uncond

    def _parts(self, x: Tensor) -> list[tuple[Any, GuidedDenoiser]]:
        """Which pictures each denoiser answers for: all of them, as they are, where there is one."""
        if len(self._groups) == 1:
            return [(slice(None), self._groups[0][1])]
        return [(torch.tensor(rows, device=x.device), guided) for rows, guided in self._groups]

    def _joined(self, answers: list[Tensor], x: Tensor) -> Tensor:
        """The answers of the groups in the order of the pictures."""
        if len(answers) == 1:
            return answers[0]
        joined = torch.empty_like(x)
        for (rows, _), answer in zip(self._groups, answers, strict=True):
            joined[torch.tensor(rows, device=x.device)] = answer.to(joined.dtype)
        return joined


_DAMAGED = "The file is damaged, or the settings of the sampler are extreme; choose another checkpoint."
_ADVICE = {
    "fp16": 'Set the precision to bf16 or fp32 ("--no-half"), or choose another checkpoint.',
    "bf16": 'Set the precision to fp32 ("--no-half"), or choose another checkpoint.',
}
