"""Re-use of a UNet's deep features across steps (Ma et al. 2023, "DeepCache"): an approximation that is asked for.

What the deep levels of a UNet say changes little from step to step. So only every n-th call runs the whole network; the
calls between run its first convolution and the last pair of residual block and transformer, on what the levels below
said last. The picture differs a little, and more with a larger n.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from webui.engine.compute.graphs import Run, plain
from webui.engine.compute.threads import suited
from webui.engine.memory.residency import Residency


class ReusingUnet:
    """A UNet that comes to the device whenever it is called: two of them may take turns in one picture.

    `every`: how many calls one whole run is good for; 1 is exact, and keeps nothing. `flop`: the work of a call for
    each latent cell (`webui.engine.compute.threads`). `run`: how the network is run where nothing is kept.

    A call of the denoiser may run the UNet several times (prompts apart from each other, pictures one by one); they are
    told apart by their order within the call and by their shapes.
    """

    def __init__(self, unet: Any, residency: Residency, every: int, flop: float, run: Run = plain) -> None:
        self._unet = unet
        self._residency = residency
        self._every = every
        self._flop = flop
        self._run = run
        self._due = True
        self._place = 0
        self._features: dict[Hashable, Tensor] = {}

    def begin(self, call: int) -> None:
        """A denoiser call begins, counted from 0."""
        self._due = call % self._every == 0
        self._place = 0

    def __call__(self, sample: Tensor, timestep: Tensor, **named: Any) -> tuple[Tensor]:
        """The UNet's answer (B, C, h, w), whole or from kept features."""
        key = (self._place, sample.shape, named["encoder_hidden_states"].shape)
        self._place += 1
        work = self._flop * sample.shape[-2] * sample.shape[-1]  # of a picture, however many a call has
        with self._residency.using(self._unet) as unet, suited(work, sample.device):
            if not self._due and key in self._features:
                return (_from_features(unet, self._features[key], sample, timestep, **named),)
            if self._every == 1:
                return (self._run(unet, sample, timestep, **named),)
            whole, self._features[key] = _whole(unet, sample, timestep, **named)
            return (whole,)


def _whole(unet: Any, sample: Tensor, timestep: Tensor, **named: Any) -> tuple[Tensor, Tensor]:
    """The answer, and what came up to the last residual block: all of its input but the last skip connection."""
    seen: list[Tensor] = []
    last = unet.up_blocks[-1].resnets[-1]
    handle = last.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        answer: Tensor = unet(sample, timestep, **named)[0]
    finally:
        handle.remove()
    skip = unet.conv_in.out_channels
    return answer, seen[0][:, : seen[0].shape[1] - skip].contiguous(memory_format=torch.channels_last)


def _from_features(
    unet: Any,
    deep: Tensor,
    sample: Tensor,
    timestep: Tensor,
    *,
    encoder_hidden_states: Tensor,
    added_cond_kwargs: dict[str, Tensor] | None = None,
    timestep_cond: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """The UNet's beginning and end around features of an earlier call."""
    time = unet.time_embedding(unet.get_time_embed(sample=sample, timestep=timestep), timestep_cond)
    told = unet.get_aug_embed(
        emb=time, encoder_hidden_states=encoder_hidden_states, added_cond_kwargs=added_cond_kwargs
    )
    time = time if told is None else time + told
    block = unet.up_blocks[-1]
    x = block.resnets[-1](torch.cat((deep, unet.conv_in(sample)), dim=1), time)
    attentions = getattr(block, "attentions", None)
    if attentions is not None:
        x = attentions[-1](x, encoder_hidden_states=encoder_hidden_states, return_dict=False)[0]
    answer: Tensor = unet.conv_out(unet.conv_norm_out(x, silu=True))
    return answer
