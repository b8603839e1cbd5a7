"""`Faces`: the faces of a finished picture found, restored by a network of the user's, and put back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from webui.catalog import Catalog, ModelFile
from webui.engine.device import DeviceChoice
from webui.engine.faces.alignment import cut_out, put_back
from webui.engine.faces.restorers import Restorer, restorer_of
from webui.engine.faces.yunet import YuNet, find_faces, load_yunet
from webui.engine.memory import give_back
from webui.engine.weights import Fingerprint, open_weights
from webui.events import Event, Loaded, Loading, Warning
from webui.names import NO_MODEL
from webui.operations import FaceRestoration
from webui.provenance import UsedModel
from webui.settings import Settings

KEPT = 2  # networks in memory, of some 350 MB each
MIN_EYE_DISTANCE = 5.0  # pixels; in smaller faces there is nothing to restore
NO_FACE = Warning("faces", "Face restoration had no effect: no face was found.")

Emit = Callable[[Event], None]


class Faces:
    """The face restoration of one engine. The detector and the networks are loaded when they are first used."""

    def __init__(self, catalog: Catalog, device: DeviceChoice, settings: Settings) -> None:
        self._catalog = catalog
        self._device = device
        self._allow_pickle = settings.model.allow_pickle
        self._networks: OrderedDict[tuple[str, Fingerprint], Restorer] = OrderedDict()

    def restore(
        self,
        image: Image.Image,
        request: FaceRestoration,
        *,
        emit: Emit = lambda _event: None,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[Image.Image, int]:
        """The picture (RGB) with its faces restored, and how many there were. `check` is called before each face.

        Raises `ModelNotFound`, `UnsupportedModel` or `BadModelFile` for a network that cannot be used.
        """
        networks = [(self._network(self._catalog.find_face_restorer(name), emit), seen) for name, seen in uses(request)]
        found = [face for face in find_faces(self._detector, image) if face.eye_distance >= MIN_EYE_DISTANCE]
        for network, visibility in networks:
            for face in found:
                check()
                aligned, there = cut_out(image, face.landmarks)
                restored = self._restored(network, aligned, request.codeformer_weight)
                image = put_back(image, restored, there, visibility)
        return image, len(found)

    def used(self, request: FaceRestoration | None) -> tuple[UsedModel, ...]:
        """The model files that a request uses, for the record of a picture."""
        names = [] if request is None else [name for name, _ in uses(request)]
        files = [self._catalog.find_face_restorer(name) for name in dict.fromkeys(names)]
        return tuple(UsedModel("face restorer", one.name, self._catalog.sha256(one, wait=True)) for one in files)

    @property
    def held(self) -> dict[str, int]:
        """The networks in memory, by the names of their files, each with its bytes."""
        return {Path(path).name: network.nbytes for (path, _), network in self._networks.items()}

    def drop_all(self) -> None:
        if self._networks:
            self._networks.clear()
            give_back(self._device.device)

    @cached_property
    def _detector(self) -> YuNet:
        return load_yunet()

    def _network(self, file: ModelFile, emit: Emit) -> Restorer:
        key = (str(file.path), file.fingerprint)
        if key not in self._networks:
            emit(Loading("face restorer", file.name, f"Loading face restoration model from {file.path}"))
            weights = open_weights(file.path, allow_pickle=self._allow_pickle, cache_dir=self._catalog.paths.cache_dir)
            tensors = {name: weights.tensor(name) for name in weights.tensors}
            network = restorer_of(tensors, file.name).to(self._device.device)
            while len(self._networks) >= KEPT:
                self._networks.popitem(last=False)
            self._networks[key] = network
            emit(Loaded("face restorer", file.name, file.short_hash, str(file.path), {}))
        self._networks.move_to_end(key)
        return self._networks[key]

    def _restored(self, network: Restorer, aligned: Image.Image, weight: float) -> Image.Image:
        """One aligned face through the network, in fp32, as it was trained."""
        pixels = torch.from_numpy(np.asarray(aligned, dtype=np.float32) / 127.5 - 1)
        with torch.inference_mode():
            made = network(pixels.permute(2, 0, 1)[None].to(self._device.device), weight)[0]
        values = (made.float().clamp(-1, 1) + 1) * 127.5
        return Image.fromarray(values.round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def uses(request: FaceRestoration) -> list[tuple[str, float]]:
    """(network, visibility) of those that have an effect, in their order."""
    both = ((request.model, request.visibility), (request.model_2, request.visibility_2))
    return [(name, seen) for name, seen in both if name != NO_MODEL and seen > 0]
