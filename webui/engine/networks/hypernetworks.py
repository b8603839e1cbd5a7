"""Hypernetworks: small networks in front of the keys and values of each attention.

The form is that of the NovelAI leak of 2022, as AUTOMATIC1111 trains and saves it: for each width of an attention's
input two networks of linear layers, one for the keys and one for the values, whose output is added to the input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from webui.engine.files.weights import Weights
from webui.errors import BadModelFile, UnsupportedModel

_NAME = re.compile(r"(\d{1,5})\.([01])\.linear\.(\d{1,3})\.(weight|bias)")
_OLD_NAME = re.compile(r"(\d{1,5})\.([01])\.linear([12])\.(weight|bias)")  # before there were more than two layers

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "leakyrelu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "swish": F.hardswish,
    "hardswish": F.hardswish,
    "hardtanh": F.hardtanh,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


@dataclass(frozen=True, slots=True)
class Step:
    """A linear layer (`weight` two-dimensional) or a layer norm, and whether the activation follows it."""

    weight: Tensor
    bias: Tensor
    activated: bool

    def __call__(self, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        weight, bias = self.weight.to(x), self.bias.to(x)
        x = F.linear(x, weight, bias) if weight.ndim == 2 else F.layer_norm(x, weight.shape, weight, bias)
        return activation(x) if self.activated else x


@dataclass(frozen=True, slots=True)
class Hypernetwork:
    """`pairs`: width of an attention's input -> the networks for keys and values."""

    pairs: dict[int, tuple[tuple[Step, ...], tuple[Step, ...]]]
    activation: Callable[[Tensor], Tensor]

    def change(self, x: Tensor, side: int, strength: float) -> Tensor:
        """The input of keys (side 0) or values (1), (B, tokens, width), with what the hypernetwork adds."""
        pair = self.pairs.get(x.shape[-1])
        if pair is None:
            return x
        added = x
        for step in pair[side]:
            added = step(added, self.activation)
        return x + added * strength


def load_hypernetwork(weights: Weights) -> Hypernetwork:
    """From an open file; the settings are in its header, where the conversion of a .pt puts them.

    Raises `BadModelFile`, or `UnsupportedModel` for an activation that is not known.
    """
    name = _said(weights, "activation_func", "linear")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise UnsupportedModel(f'Its activation function "{name!s:.40}" is not known.')
    activate_last = _said(weights, "activate_output", True) is True
    layers: dict[tuple[int, int], dict[int, dict[str, Tensor]]] = {}
    for tensor in weights.tensors:
        match, old = _NAME.fullmatch(tensor), _OLD_NAME.fullmatch(tensor)
        found = match or old
        if found:
            place = int(found[3]) - (1 if old else 0)
            side = layers.setdefault((int(found[1]), int(found[2])), {})
            side.setdefault(place, {})[found[4]] = weights.tensor(tensor).float().clone()
    pairs = {}
    for width in {width for width, _ in layers}:
        if (width, 0) in layers and (width, 1) in layers:
            pairs[width] = tuple(_steps(layers[width, side], width, activate_last) for side in (0, 1))
    if not pairs:
        raise BadModelFile("The file holds no hypernetwork.")
    return Hypernetwork({width: (pair[0], pair[1]) for width, pair in pairs.items()}, ACTIVATIONS[name])


def _steps(layers: dict[int, dict[str, Tensor]], width: int, activate_last: bool) -> tuple[Step, ...]:
    ordered = [layers[place] for place in sorted(layers)]
    if any({"weight", "bias"} - set(layer) for layer in ordered):
        raise BadModelFile("A layer of the hypernetwork lacks its weight or bias.")
    linear = [i for i, layer in enumerate(ordered) if layer["weight"].ndim == 2]
    last = linear[-1] if linear else -1
    steps = []
    size = width
    for i, layer in enumerate(ordered):
        weight = layer["weight"]
        if weight.ndim not in (1, 2) or weight.shape[-1] != size or layer["bias"].shape != weight.shape[:1]:
            raise BadModelFile("The layers of the hypernetwork do not fit together.")
        size = weight.shape[0]
        steps.append(Step(weight, layer["bias"], i in linear and (activate_last or i != last)))
    if size != width:
        raise BadModelFile("The layers of the hypernetwork do not fit together.")
    return tuple(steps)


def _said(weights: Weights, key: str, usual: Any) -> Any:
    """A setting of the file. None in it is the usual value."""
    try:
        value = json.loads(weights.metadata.get(key, "null"))
    except ValueError:
        return usual
    return usual if value is None else value


class HypernetworkAttachment:
    """Hypernetworks on a UNet, in the order in which they are applied. `detach` takes them off without a trace."""

    def __init__(self, unet: Any, networks: Sequence[tuple[Hypernetwork, float]]) -> None:
        self._handles = []
        for path, layer in unet.named_modules():
            side = {"to_k": 0, "to_v": 1}.get(path.rpartition(".")[2])
            if side is not None:
                self._handles.append(layer.register_forward_pre_hook(_hook(networks, side)))

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _hook(networks: Sequence[tuple[Hypernetwork, float]], side: int) -> Callable[[Any, tuple[Tensor]], tuple[Tensor]]:
    def change(_layer: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
        x = inputs[0]
        for network, strength in networks:
            x = network.change(x, side, strength)
        return (x,)

    return change
