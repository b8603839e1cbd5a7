"""LoRA and its relatives on the networks of one loaded checkpoint."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from webui.engine.compute.layers import EIGHT_BITS, SCALE, dense_weight
from webui.engine.compute.storage import pack, scale_name
from webui.engine.memory.usage import is_out_of_memory
from webui.engine.networks.adapter import Change, change_of
from webui.engine.networks.algebra import Misfit
from webui.engine.networks.attachment import AttachmentSwitch, ChangedWeights, Home
from webui.engine.networks.hypernetworks import Hypernetwork, HypernetworkAttachment
from webui.engine.networks.layer_names import UNET, LayerPlace, layer_places
from webui.engine.networks.lora_file import Layer, LoraFile


@dataclass(frozen=True, slots=True)
class Strength:
    """A file of adapters and how strongly it acts on a network. `dyn_rank`: how many ranks of a LoRA, None for all."""

    file: LoraFile
    weight: float
    dyn_rank: int | None = None

    @property
    def key(self) -> Hashable:
        """Equal for equal effect: the file as it is on the disk, and the numbers."""
        return self.file.weights.path, self.file.weights.fingerprint, self.weight, self.dyn_rank


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """What became of the layers of a file. `reasons`: up to three layers that were skipped, each with the reason."""

    applied: int
    skipped: int
    reasons: tuple[str, ...]


class CheckpointAdapters:
    """What is attached to the networks of a checkpoint, and where the layers of a file belong in them.

    `networks`: "unet", "te1" and, with two text encoders, "te2".
    """

    def __init__(
        self,
        networks: Mapping[str, Any],
        home: torch.device | Home,
        *,
        text_home: torch.device | Home | None = None,
        device: torch.device | None = None,
    ) -> None:
        """`home` is where networks are kept when nothing runs, `text_home` text encoders, if not there; each may be a
        function that tells where that is now.

        Changed weights are computed on `device`, one layer after the other; where the layer is, if not given.
        """
        self._networks = dict(networks)
        self._device = device
        self._places = layer_places(networks)
        homes = {name: home if name == UNET else text_home or home for name in networks}
        self._switches = {name: AttachmentSwitch(network, homes[name]) for name, network in networks.items()}
        self._misfits: dict[Hashable, dict[str, str]] = {}  # of each network and file: layer -> why it does not act
        self._hypernetworks: HypernetworkAttachment | None = None
        self._hypernetworks_key: Hashable = ()
        self.passes = 0  # how often changed weights were computed

    @property
    def switches(self) -> tuple[AttachmentSwitch, ...]:
        return tuple(self._switches.values())

    @property
    def text_encoders(self) -> tuple[str, ...]:
        return tuple(name for name in self._networks if name != UNET)

    def use(self, network: str, strengths: Sequence[Strength]) -> None:
        """Have exactly these adapters on a network. One pass over the layers that they touch where the set is new."""
        acting = [s for s in strengths if s.weight != 0 and self._layers(s.file).get(network)]
        key = tuple(s.key for s in acting)
        self._switches[network].use(key, lambda: self._changed(network, acting))

    def try_out(self, network: str, strength: Strength) -> None:
        """Find out which layers of a file do not fit, where it acts later in the picture and was never on before."""
        layers = self._layers(strength.file).get(network)
        if not layers or _place(network, strength) in self._misfits:
            return
        with torch.inference_mode(False), torch.no_grad():
            for path in layers:
                weight, bias = self._own(network, path)
                self._changes(network, path, [(strength, layers)], weight, bias)

    def use_hypernetworks(self, key: Hashable, networks: Sequence[tuple[Hypernetwork, float]]) -> None:
        """Have exactly these hypernetworks on the UNet; `key` is equal for equal ones, () for none."""
        if key == self._hypernetworks_key:
            return
        if self._hypernetworks is not None:
            self._hypernetworks.detach()
        self._hypernetworks = HypernetworkAttachment(self._networks[UNET], networks) if networks else None
        self._hypernetworks_key = key

    def unet_key(self) -> Hashable:
        """What is on the UNet."""
        return self._switches[UNET].key, self._hypernetworks_key

    def text_key(self) -> Hashable:
        """The sets that are on the text encoders."""
        return tuple(self._switches[name].key for name in self.text_encoders)

    def places(self, file: LoraFile) -> int:
        """How many of a file's layers there are in this checkpoint."""
        return sum(map(len, self._layers(file).values()))

    def counts(self, file: LoraFile) -> LayerCounts:
        """What became of a file's layers, on the networks on which it was since it is as it is on the disk."""
        places = [_place(network, Strength(file, 1.0)) for network in self._networks]
        misfits = {key: why for place in places for key, why in self._misfits.get(place, {}).items()}
        unplaced = [key for key in file.layers if key not in self._places]
        reasons = [f"{key}: {why}" for key, why in misfits.items()]
        reasons += [f"{key}: there is no such layer in this model" for key in unplaced]
        reasons += [f"{name}: it is of no kind that is known here" for name in file.unknown]
        return LayerCounts(len(file.layers) - len(unplaced) - len(misfits), len(reasons), tuple(reasons[:3]))

    def settle(self) -> None:
        """Give up the changed weights of networks that are at home elsewhere by now, as in a frugal job."""
        for switch in self._switches.values():
            switch.settle()

    def clear(self) -> None:
        """Take everything off, and give back the memory of changed weights."""
        self.use_hypernetworks((), ())
        for switch in self._switches.values():
            switch.clear()

    def _layers(self, file: LoraFile) -> dict[str, dict[str, Layer]]:
        """A file's layers by network and path of the module there."""
        found: dict[str, dict[str, Layer]] = {}
        for key, layer in file.layers.items():
            place: LayerPlace | None = self._places.get(key)
            if place is not None:
                found.setdefault(place.network, {})[place.path] = layer
        return found

    def _changed(self, network: str, strengths: Sequence[Strength]) -> ChangedWeights:
        """The parameters of a network with these adapters, each computed in fp32 and rounded once."""
        self.passes += 1
        layers = [(s, self._layers(s.file)[network]) for s in strengths]
        touched = dict.fromkeys(path for _, by_path in layers for path in by_path)
        tensors: dict[str, Tensor] = {}
        with torch.inference_mode(False), torch.no_grad():
            for path in touched:
                own = self._networks[network].get_submodule(path)
                weight, bias = self._own(network, path)
                changes = self._changes(network, path, layers, weight, bias)
                for name, before, parts in (
                    ("weight", weight, [c.weight for c in changes if c.weight is not None]),
                    ("bias", bias, [c.bias for c in changes if c.bias is not None]),
                ):
                    if parts and before is not None:
                        tensors.update(_stored(own, path, name, before, parts))
        return ChangedWeights(tensors)

    def _own(self, network: str, path: str) -> tuple[Tensor, Tensor | None]:
        """A layer's own weight and bias, in fp32 where changes are computed."""
        own = self._networks[network].get_submodule(path)
        weight = dense_weight(own).to(device=self._device, dtype=torch.float32)
        return weight, _bias(own, weight.device)

    def _changes(
        self,
        network: str,
        path: str,
        layers: Sequence[tuple[Strength, Mapping[str, Layer]]],
        weight: Tensor,
        bias: Tensor | None,
    ) -> list[Change]:
        """What the files add to one layer. Which of them do not fit is kept for `counts`."""
        changes: list[Change] = []
        for strength, by_path in layers:
            misfits = self._misfits.setdefault(_place(network, strength), {})
            if path not in by_path:
                continue
            try:
                changes.append(_change(strength, by_path[path], weight, bias))
            except Misfit as error:
                misfits[by_path[path].key] = f"its tensors are {error}"
        return changes


def _place(network: str, strength: Strength) -> Hashable:
    """A file, as it is on the disk, on one network."""
    return network, strength.file.weights.path, strength.file.weights.fingerprint


def _change(strength: Strength, layer: Layer, weight: Tensor, bias: Tensor | None) -> Change:
    weights = strength.file.weights
    try:
        tensors = {role: weights.tensor(name).to(weight.device).float() for role, name in layer.tensors.items()}
        return change_of(tensors, weight, bias, strength.weight, scale=layer.scale, dyn_rank=strength.dyn_rank)
    except (RuntimeError, ValueError, IndexError, KeyError) as error:
        if is_out_of_memory(error):
            raise
        # Shapes that do not go together, in any of the ways in which torch says so.
        first = (str(error).strip().splitlines() or [""])[0][:100]
        raise Misfit(f"not of shapes that go together ({first})") from None


def _bias(layer: Any, device: torch.device) -> Tensor | None:
    """A layer's bias in fp32, zeros where it has none; None for a kind of layer that never has one."""
    if not hasattr(layer, "bias"):
        return None
    if layer.bias is None:
        return torch.zeros(layer.weight.shape[0], device=device)
    bias: Tensor = layer.bias.to(device, torch.float32)
    return bias


def _stored(layer: Any, path: str, name: str, before: Tensor, parts: Sequence[Tensor]) -> dict[str, Tensor]:
    """The sum as the layer keeps its parameter: in its number format and memory format. The parts are used up."""
    total = parts[0]
    for part in (*parts[1:], before):
        total += part
    own, full = getattr(layer, name), f"{path}.{name}"
    if own is not None and own.dtype in EIGHT_BITS:
        values, scale = torch.empty_like(own), torch.empty_like(getattr(layer, SCALE))
        pack(total, values, scale)
        return {full: values, scale_name(full): scale}
    if own is None:  # a bias that the layer has not: in the format of what it computes with
        return {full: total.to(layer.weight.device, dense_weight(layer).dtype)}
    return {full: torch.empty_like(own).copy_(total)}
