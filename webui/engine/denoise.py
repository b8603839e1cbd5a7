"""The UNet as the samplers see it: conditions in, clean pictures out, one call for prompt and negative prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from webui.engine.conditioning.telling import Rows, Sizes, Telling, Told
from webui.engine.conditioning.text import Conditioning
from webui.engine.memory.fetching import Fetch, Fetched
from webui.errors import NanDetected
from webui.sampling import CondOutputs, GuidedDenoiser, ModelDenoiser, Prediction, to_device

GPU_LOOKS_EVERY = 8  # calls


class Stopped(Exception):
    """The batch in the making has to end now."""


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
    """`webui.sampling.Evaluate` for `GuidedDenoiser`.

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
        self._telling = Telling(conditioning, sizes, dtype, apart=apart)
        self._dtype = dtype
        self._check = check
        self._channels = channels
        self._begin = begin
        self._apart = apart
        self._guidance = guidance
        self._rows: Rows  # of the call of the UNet that comes next
        self._denoiser = ModelDenoiser(self._predict, table, prediction, quantize=quantize)

    def __call__(self, x: Tensor, sigma: Tensor, call: int, with_uncond: bool, _level: float) -> CondOutputs:
        """See `webui.sampling.guidance.Evaluate`. Raises whatever `check` raises, before anything is computed."""
        self._check()
        if self._begin is not None:
            self._begin(call)
        if self._conditioning.prepare is not None:
            self._conditioning.prepare(call)
        guided = with_uncond and self._guidance is None
        weights = self._conditioning.weights
        outputs = [one for told in self._telling.at(call, guided, x.device) for one in self._run(x, sigma, told)]
        conds = list(zip(outputs[: len(weights)], weights, strict=True))
        return CondOutputs(conds, outputs[-1] if guided else None)

    def _run(self, x: Tensor, sigma: Tensor, told: Told) -> Tensor:
        """Clean pictures (N, B, C, H, W) for N texts."""
        batch = x.shape[0]
        if (self._apart or x.device.type == "cpu") and batch > 1:
            singles = [self._together(x[i : i + 1], sigma[i : i + 1], told) for i in range(batch)]
            return torch.cat(singles, dim=1)
        return self._together(x, sigma, told)

    def _together(self, x: Tensor, sigma: Tensor, told: Told) -> Tensor:
        count, batch = told.count, x.shape[0]
        self._rows = told.rows(batch)
        denoised = self._denoiser(x.repeat(count, 1, 1, 1), sigma.repeat(count))
        return denoised.reshape(count, batch, *x.shape[1:])

    def _predict(self, x: Tensor, t: Tensor) -> Tensor:
        rows = self._rows
        count = x.shape[0]
        if self._channels is not None:
            self._channels = to_device(self._channels, x.device, x.dtype)
            x = torch.cat((x, self._channels.expand(count, -1, -1, -1)), dim=1)
        sample = x.to(self._dtype, memory_format=torch.channels_last)
        if self._guidance is not None:
            self._guidance = to_device(self._guidance, x.device, self._dtype)
        output: Tensor = self._unet(
            sample,
            t,
            encoder_hidden_states=rows.context,
            timestep_cond=None if self._guidance is None else self._guidance.expand(count, -1),
            added_cond_kwargs=rows.added,
            return_dict=False,
        )[0]
        return output.to(x.dtype)


class Watch:
    """Keeps the latest clean pictures of a batch and stops at a number that is none.

    A CPU is asked at every call, a GPU at every eighth (a NaN does not go away, and `decode` looks again at the end).
    Nobody waits for its answer where there is a way to `fetch` it: it is read at the first call after it has come.
    """

    def __init__(self, model: str, precision: str, fetch: Fetch | None) -> None:
        self._model = model
        self._precision = precision
        self._fetch = fetch
        self._calls = 0
        self._look: _Look | None = None  # on its way
        self.denoised: Tensor | None = None

    def see(self, denoised: Tensor) -> None:
        """Raises `NanDetected`, naming model and precision."""
        self._calls += 1
        if self._look is not None and self._look.answer.ready:
            look, self._look = self._look, None
            self._judge(look.answer.get()[0], look.call)
        if self._look is None and (denoised.device.type == "cpu" or self._calls % GPU_LOOKS_EVERY == 0):
            sound = torch.isfinite(denoised).all()
            if self._fetch is None:
                self._judge(sound, self._calls)
            else:
                self._look = _Look(self._fetch((sound,)), self._calls)
        self.denoised = denoised

    def _judge(self, sound: Tensor, call: int) -> None:
        if not bool(sound):
            raise NanDetected(
                f"The UNet of {self._model} gave invalid numbers (NaN) in {self._precision} at call {call}.",
                _ADVICE.get(self._precision, _DAMAGED),
            )


class _Look(NamedTuple):
    """Whether the pictures of a call were sound, told when the GPU knows it."""

    answer: Fetched
    call: int


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
        self._groups = [(torch.tensor(group), denoiser_of(conditionings[group[0]])) for group in rows.values()]
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
        self._groups = [(to_device(rows, x.device), guided) for rows, guided in self._groups]
        return list(self._groups)

    def _joined(self, answers: list[Tensor], x: Tensor) -> Tensor:
        """The answers of the groups in the order of the pictures."""
        if len(answers) == 1:
            return answers[0]
        joined = torch.empty_like(x)
        for (rows, _), answer in zip(self._groups, answers, strict=True):
            joined[rows] = answer.to(joined.dtype)
        return joined


_DAMAGED = "The file is damaged, or the settings of the sampler are extreme; choose another checkpoint."
_ADVICE = {
    "fp16": 'Set the precision to bf16 or fp32 ("--no-half"), or choose another checkpoint.',
    "bf16": 'Set the precision to fp32 ("--no-half"), or choose another checkpoint.',
}
