"""Adapters on a network: `attach` puts changed weights in the place of the network's own, `detach` puts its own back.

The network's own tensors are kept as they are, never computed back: after `detach` each parameter is the very tensor
it was, be it a view on the model's file. Changed weights are computed once for a set of adapters and kept, within a
bound, so that the next picture with the same set costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

CACHE_BYTES = 2**30  # of changed weights of a network besides those that are attached
_ROOM = 2 * 2**30  # bytes that stay free on a GPU for the picture itself

Home = Callable[[], torch.device]  # where a network is kept when nothing runs: now, as a job may be more frugal


@dataclass(frozen=True, slots=True)
class ChangedWeights:
    """The parameters of a network as a set of adapters makes them, by name."""

    tensors: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.tensors.values())

    def at(self, home: torch.device) -> ChangedWeights:
        """The same, where the network is kept: a frugal job has it on the GPU for a while, where they would stay."""
        return replace(self, tensors={name: tensor.to(home) for name, tensor in self.tensors.items()})


class Attachment:
    """The changed weights of one set on one network. `attach` and `detach` may be called any number of times.

    A layer without a bias gets one for as long as a set that has one is attached.
    """

    def __init__(self, network: Any, changed: ChangedWeights, home: torch.device) -> None:
        """`home`: where the network is kept when nothing runs; its own weights wait there."""
        self._home = home
        known = dict(network.named_parameters())
        self._parameters = {name: known[name] for name in changed.tensors if name in known}
        self._layers = {
            name: network.get_submodule(name.removesuffix(".bias")) for name in changed.tensors.keys() - known
        }
        self._changed = changed.tensors
        self._own: dict[str, Tensor] = {}
        self._attached = False

    @property
    def attached(self) -> bool:
        return self._attached

    def attach(self) -> None:
        """Put the changed weights in place. They go wherever the network is now."""
        if self._attached:
            return
        self._attached = True
        with torch.inference_mode(False), torch.no_grad():
            parking = _parking(list(self._parameters.values()), self._home)
            for name, parameter in self._parameters.items():
                self._own[name] = parameter.data.to(parking)
                parameter.data = self._changed[name].to(parameter.device)
            for name, layer in self._layers.items():
                layer.bias = torch.nn.Parameter(self._changed[name].to(layer.weight.device), requires_grad=False)

    def detach(self) -> None:
        """Put the network's own weights back, bit for bit."""
        with torch.inference_mode(False), torch.no_grad():
            for name, own in self._own.items():
                parameter = self._parameters[name]
                parameter.data = own.to(parameter.device)
        self._own.clear()
        for layer in self._layers.values():
            layer.bias = None
        self._attached = False


class AttachmentSwitch:
    """Which set of adapters is on a network: one at a time. Sets that were on it are kept for the next time."""

    def __init__(self, network: Any, home: torch.device | Home, cache_bytes: int = CACHE_BYTES) -> None:
        self._network = network
        self._home_now: Home = home if callable(home) else lambda: home
        self._home = self._home_now()
        self._limit = cache_bytes
        self._kept: OrderedDict[Hashable, ChangedWeights] = OrderedDict()
        self._key: Hashable = ()
        self._attachment: Attachment | None = None

    @property
    def key(self) -> Hashable:
        """The set that is attached; () for none."""
        return self._key

    @property
    def changed(self) -> ChangedWeights:
        """What is attached."""
        return self._kept.get(self._key, ChangedWeights({}))

    @property
    def entries(self) -> int:
        """How many sets are kept."""
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Memory of all changed weights that are kept."""
        return sum(changed.nbytes for changed in self._kept.values())

    def use(self, key: Hashable, compute: Callable[[], ChangedWeights]) -> None:
        """Attach the set `key` instead of whatever is attached; () takes everything off.

        `compute` is called, with nothing attached, where the set is not known any more. If it fails, nothing is
        attached afterwards.
        """
        self.settle()
        if key == self._key:
            return
        self._take_off()
        if not key:
            return
        if key not in self._kept:
            self._make_room()
            self._kept[key] = compute().at(self._home)
        self._kept.move_to_end(key)
        self._attachment = Attachment(self._network, self._kept[key], self._home)
        self._attachment.attach()
        self._key = key

    def clear(self) -> None:
        """Take everything off and forget the changed weights."""
        self._take_off()
        self._kept.clear()

    def settle(self) -> None:
        """Give up what was kept if the network is at home elsewhere by now: it would not be where the network is."""
        home = self._home_now()
        if home != self._home:
            self.clear()
            self._home = home

    def _take_off(self) -> None:
        if self._attachment is not None:
            self._attachment.detach()
        self._attachment, self._key = None, ()

    def _make_room(self) -> None:
        """Drop the sets used longest ago until the others are within the bound."""
        while self.nbytes > self._limit:
            self._kept.popitem(last=False)


def _parking(parameters: Sequence[Any], home: torch.device) -> torch.device:
    """Where a network's own weights wait while changed ones are in their place.

    At home, or in the machine's memory: where home is a GPU without room for both, or where a frugal job keeps the
    network there.
    """
    if home.type != "cuda":
        return home
    if all(p.device.type == "cpu" for p in parameters):
        return torch.device("cpu")
    free, _ = torch.cuda.mem_get_info(home)
    return home if free > sum(p.nbytes for p in parameters) + _ROOM else torch.device("cpu")
