"""Whether a job fits on the device as it is asked for, and how it is done where it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from webui.engine.estimate import USABLE, Choice, Need, choose, unet_activations, vae_activations
from webui.engine.latents.vae import SCALE, TILE_SIDES
from webui.engine.memory.usage import free_memory, give_back
from webui.engine.memory.weights import Weight, weigh
from webui.engine.passes import Pass
from webui.engine.shared import Tools


def fitting(tools: Tools, passes: Sequence[Pass]) -> Choice | None:
    """The least frugal way to run these passes in the memory that is free; None where there is nothing to decide.

    Where networks have no other memory than the device's, only the VAE has a choice, and decides by itself; and who set
    a limit for networks has decided.
    """
    device, residency = tools.device.device, tools.residency
    free = free_memory(device)
    if not residency.offloads or residency.limited or not free:
        return None
    own = {id(network): network for one in passes for network in _networks(one)}
    networks = {id(network): network for network in tools.store.networks} | own  # the store may not keep all of a job's
    weights = {number: weigh(network, device) for number, network in networks.items()}
    others = sum(weight.there for number, weight in weights.items() if number not in own)
    there = sum(weight.there for weight in weights.values())
    free += there
    mode = residency.mode
    needs = [needed(tools, one, weights, others) for one in passes]
    most = max(needs, key=lambda need: need.peak(mode, apart=tools.apart))
    # What is free counts the memory of recorded UNets, which nothing else can use.
    if tools.graphs.make_room(int(most.peak(mode, apart=tools.apart) / USABLE) - there):
        give_back(device)
    return choose(most, free, mode)


def needed(tools: Tools, one: Pass, weights: Mapping[int, Weight], others: int) -> Need:
    """What a pass takes on the device, beside `others` bytes of other jobs' weights. `weights`: by id of the network.

    AND parts of a prompt are not counted: they are known only later.
    """
    params, checkpoint, vae = one.params, one.checkpoint, one.vae
    height, width = (params.height or 0) // SCALE, (params.width or 0) // SCALE
    prompts = 1 if params.cfg_scale == 1 or checkpoint.guidance_dim else 2
    size, attention = tools.device.dtype.itemsize, tools.attention
    unets = [drawing.unet for drawing in one.checkpoints]
    texts = [encoder.module for drawing in one.checkpoints for encoder in drawing.text_encoders]
    whole = max(height, width) if params.vae_tiling == "Off" else TILE_SIDES[0]
    return Need(
        unet=sum(weights[id(unet)].all for unet in unets),
        texts=sum(weights[id(text)].all for text in texts),
        vae=weights[id(vae.module)].all,
        others=others,
        layer=max(weights[id(network)].largest_layer for network in _networks(one)),
        step=unet_activations(checkpoint.dims, height, width, prompts * params.batch_size, size, attention),
        least_step=unet_activations(checkpoint.dims, height, width, 1, size, attention),
        codec=vae_activations(vae.dims, min(height, whole), min(width, whole), vae.dtype.itemsize),
    )


def _networks(one: Pass) -> list[Any]:
    unets = [drawing.unet for drawing in one.checkpoints]
    texts = [encoder.module for drawing in one.checkpoints for encoder in drawing.text_encoders]
    return [*unets, *texts, one.vae.module]
