"""`Faces`: the faces of a finished picture found, restored by a network of the user's, and put back."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from PIL import Image

from webui.catalog import Catalog
from webui.engine.compute.device import DeviceChoice
from webui.engine.faces.alignment import cut_out, put_back
from webui.engine.faces.restorers import Restorer, restorer_of
from webui.engine.faces.yunet import YuNet, find_faces, load_yunet
from webui.engine.kept_networks import KeptNetworks
from webui.events import Event, Warning
from webui.names import NO_MODEL
from webui.operations import FaceRestoration
from webui.provenance import UsedModel
from webui.settings import Settings

MIN_EYE_DISTANCE = 5.0  # pixels; in smaller faces there is nothing to restore
NO_FACE = Warning("faces", "Face restoration had no effect: no face was found.")

Emit = Callable[[Event], None]


class Faces:
    """The face restoration of one engine. The detector and the networks are loaded when they are first used."""

    def __init__(self, catalog: Catalog, device: DeviceChoice, settings: Settings) -> None:
        self._catalog = catalog
        self._device = device
        called = "face restoration model"
        self.networks = KeptNetworks("face restorer", called, restorer_of, catalog, device, settings)

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
        files = [(self._catalog.find_face_restorer(name), seen) for name, seen in uses(request)]
        networks = [(self.networks.get(file, emit), seen) for file, seen in files]
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
        return tuple(self.networks.used(file) for file in files)

    @cached_property
    def _detector(self) -> YuNet:
        return load_yunet()

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
