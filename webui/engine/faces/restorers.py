"""Networks that restore an aligned face, from their files. Their architectures come with the optional package spandrel.

Such a network takes (1, 3, 512, 512) in -1..1 and gives the same, GFPGAN and CodeFormer among others.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from webui.engine.spandrel_models import Wanted, load_by_spandrel
from webui.errors import UnsupportedModel

FACES = Wanted(
    "face restoration model",
    "GFPGAN and RestoreFormer need the package spandrel, CodeFormer spandrel_extra_arches, too: see "
    "requirements-spandrel.txt.",
)


class Restorer:
    """A face restoration network with what is asked of one here."""

    def __init__(self, network: Any) -> None:
        self._network = network.eval().float()
        known = inspect.signature(network.forward).parameters
        # GFPGAN draws noise unless it is told to take what is stored in its file: equal requests give equal pictures.
        self._always: dict[str, Any] = {"randomize_noise": False} if "randomize_noise" in known else {}
        self._weighted = "weight" in known

    def parameters(self) -> Iterator[Tensor]:
        return iter(self._network.parameters())

    def to(self, device: torch.device) -> Restorer:
        self._network.to(device)
        return self

    def __call__(self, face: Tensor, weight: float) -> Tensor:
        """`weight` is CodeFormer's: 0 draws the best face, 1 keeps the likeness. The others know none."""
        given = {"weight": weight} if self._weighted else {}
        made = self._network(face, **self._always, **given)
        restored: Tensor = made[0] if isinstance(made, tuple | list) else made
        return restored


def restorer_of(tensors: Mapping[str, Tensor], name: str) -> Restorer:
    """The network in evaluation mode, in fp32, on the CPU. Raises `UnsupportedModel` and `BadModelFile`."""
    found = load_by_spandrel(tensors, name, FACES)
    if found.purpose != "FaceSR":
        raise UnsupportedModel(
            f'The model "{name}" ({found.architecture.name}) does not restore faces.', "Choose a GFPGAN or CodeFormer."
        )
    return Restorer(found.model)
