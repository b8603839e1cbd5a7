"""`Upscalers`: a picture made larger by name: Lanczos, nearest, or a network from a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from webui.catalog import Catalog
from webui.engine.compute.device import DeviceChoice
from webui.engine.kept_networks import KeptNetworks
from webui.engine.memory.usage import give_back, is_out_of_memory, read_memory
from webui.engine.upscaling.files import network_of
from webui.engine.upscaling.tiles import TILE, enlarge_tiled, enlarged_rows
from webui.events import Event
from webui.names import LATENT_UPSCALERS, PIXEL_UPSCALERS
from webui.operations import MAX_RESULT_PIXELS
from webui.pictures.resizing import Size, lanczos, lanczos_of_rows
from webui.provenance import UsedModel
from webui.settings import Settings

MAX_ROUNDS = 3  # how often a network is applied until the picture is large enough
SMALLEST_TILE = 48

Emit = Callable[[Event], None]
Enlarge = Callable[[Image.Image, Size], Image.Image]


class Upscalers:
    """The upscalers of one engine, loaded when they are first used."""

    def __init__(self, catalog: Catalog, device: DeviceChoice, settings: Settings) -> None:
        self._catalog = catalog
        self._device = device
        self.networks = KeptNetworks("upscaler", "upscaler", network_of, catalog, device, settings)
        self._functions: dict[str, Enlarge] = {}

    def add(self, name: str, function: Enlarge) -> None:
        """Give an upscaler that `webui.names` knows its function; what it makes is brought to the size by Lanczos."""
        self._functions[name] = function

    def enlarge(
        self,
        image: Image.Image,
        name: str,
        size: Size,
        *,
        as_large: bool = False,
        emit: Emit = lambda _event: None,
        check: Callable[[], None] = lambda: None,
    ) -> Image.Image:
        """The picture (RGB) at that size. Networks enlarge by their own factor until it is reached; Lanczos does the
        rest, and all of it where the picture becomes no larger. What a network makes is at most as large as a result
        may be: where it would be larger, its rows are brought to the size while they are made.

        `as_large`: a network runs once where the size stays what it is, too: there are some that only take out noise.

        Raises `ModelNotFound`, `UnsupportedModel` or `BadModelFile` for an upscaler that cannot be used.
        """
        if name == "Nearest":
            return image.resize(size, Image.Resampling.NEAREST)
        if name in self._functions:
            image = self._functions[name](image, size).convert("RGB")
        elif name not in PIXEL_UPSCALERS and name not in LATENT_UPSCALERS:
            file = self._catalog.find_upscaler(name)
            network = self.networks.get(file, emit)
            for done in range(MAX_ROUNDS):
                before = image.size
                if before[0] >= size[0] and before[1] >= size[1] and not (as_large and not done and before == size):
                    break
                image = self._run(network, image, size, emit, check)
                if image.size == before:
                    break
        return image if image.size == size else lanczos(image, size)

    def scale(self, name: str, emit: Emit = lambda _event: None) -> int:
        """The factor of a network; 1 for the upscalers that have none."""
        if name in PIXEL_UPSCALERS or name in LATENT_UPSCALERS:
            return 1
        return int(self.networks.get(self._catalog.find_upscaler(name), emit).scale)

    def used(self, name: str) -> tuple[UsedModel, ...]:
        """The model file behind a name, for the record of a picture."""
        if name in PIXEL_UPSCALERS or name in LATENT_UPSCALERS:
            return ()
        return (self.networks.used(self._catalog.find_upscaler(name)),)

    def _run(self, network: Any, image: Image.Image, size: Size, emit: Emit, check: Callable[[], None]) -> Image.Image:
        """In tiles; in smaller ones where memory does not suffice. Networks run in fp32, as they were trained.

        A slow machine takes longer for a whole picture than a job may be silent, so each tile tells the memory in use.
        """
        pixels = np.asarray(image.convert("RGB"))
        whole = (image.width * network.scale, image.height * network.scale)
        too_large = whole[0] * whole[1] > MAX_RESULT_PIXELS and whole[0] >= size[0] and whole[1] >= size[1]

        def run(x: Tensor) -> Tensor:
            large: Tensor = network(x.to(self._device.device))
            emit(read_memory(self._device.device))
            return large

        tile = TILE
        while True:
            try:
                with torch.inference_mode():
                    if too_large:
                        rows = enlarged_rows(pixels, run, network.scale, reach=network.reach, tile=tile, check=check)
                        return lanczos_of_rows(rows, whole, size)
                    large = enlarge_tiled(pixels, run, network.scale, reach=network.reach, tile=tile, check=check)
                return Image.fromarray(large)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or tile <= SMALLEST_TILE:
                    raise
            tile //= 2  # outside of the except block, whose traceback would keep tensors alive
            give_back(self._device.device)
