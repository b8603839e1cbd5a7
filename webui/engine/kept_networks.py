"""Networks of one file each that work on finished pictures: loaded when they are first used, the last ones kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from webui.catalog import Catalog, ModelFile
from webui.engine.compute.device import DeviceChoice
from webui.engine.files.weights import Fingerprint, open_weights
from webui.engine.memory.weights import network_bytes
from webui.events import Event, Loaded, Loading
from webui.provenance import UsedModel
from webui.settings import Settings

KEPT = 2  # networks of a kind; the largest common upscaler has 67 MB, a face restorer 350

Emit = Callable[[Event], None]
N = TypeVar("N")


class Network(Protocol):
    """What is asked of such a network. How it is called is its user's affair."""

    def to(self: N, device: torch.device) -> N: ...

    def parameters(self) -> Iterator[Tensor]: ...


class KeptNetworks:
    """The networks of one kind, on the engine's device."""

    def __init__(
        self,
        kind: Literal["upscaler", "face restorer"],
        called: str,
        build: Callable[[Mapping[str, Tensor], str], Any],
        catalog: Catalog,
        device: DeviceChoice,
        settings: Settings,
    ) -> None:
        """`kind` is that of the events and of the record, `called` its name in the log.

        `build` makes a `Network` of a file's tensors and its name, on the CPU.
        """
        self._kind = kind
        self._called = called
        self._build = build
        self._catalog = catalog
        self._device = device.device
        self._allow_pickle = settings.model.allow_pickle
        self._networks: OrderedDict[tuple[str, Fingerprint], Network] = OrderedDict()

    def get(self, file: ModelFile, emit: Emit) -> Any:
        """The network of a file. Raises `UnsupportedModel` or `BadModelFile`."""
        key = (str(file.path), file.fingerprint)
        if key not in self._networks:
            emit(Loading(self._kind, file.name, f"Loading {self._called} from {file.path}"))
            weights = open_weights(file.path, allow_pickle=self._allow_pickle, cache_dir=self._catalog.paths.cache_dir)
            tensors = {name: weights.tensor(name) for name in weights.tensors}
            network = self._build(tensors, file.name).to(self._device)
            while len(self._networks) >= KEPT:
                self._networks.popitem(last=False)
            self._networks[key] = network
            emit(Loaded(self._kind, file.name, file.short_hash, str(file.path), {}))
        self._networks.move_to_end(key)
        return self._networks[key]

    def used(self, file: ModelFile) -> UsedModel:
        """The file, for the record of a picture."""
        return UsedModel(self._kind, file.name, self._catalog.sha256(file, wait=True))

    @property
    def held(self) -> dict[str, int]:
        """The networks in memory, by the names of their files, each with its bytes."""
        return {Path(path).name: network_bytes(network) for (path, _), network in self._networks.items()}

    def clear(self) -> None:
        """Forget them all. Whoever asks for it gives their memory back."""
        self._networks.clear()
