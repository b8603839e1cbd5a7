"""Between pixels and latents, as one job wants it: its edges, its tiles, its device, its warnings."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from torch import Tensor

from webui.engine.checkpoints.models import ModelStore
from webui.engine.compute.seamless import Axes
from webui.engine.latents.begin import pixels_of
from webui.engine.latents.vae import SCALE, Vae, begin_decode, decode, encode, needed_memory
from webui.engine.memory.fetching import Fetched, fetch_from
from webui.engine.memory.usage import give_back
from webui.engine.shared import Tools
from webui.events import Warning
from webui.operations import VaeTiling


class Decoding:
    """A picture that is being decoded, or is decoded when it is asked for."""

    def __init__(self, vae: Vae, decode: Callable[[], Image.Image], fetched: Fetched | None) -> None:
        self._vae = vae
        self._decode = decode
        self._fetched = fetched
        self.dtype = vae.dtype  # in which the picture was decoded, once it is there

    @property
    def ready(self) -> bool:
        """Whether there is nothing to wait for."""
        return self._fetched is None or self._fetched.ready

    def picture(self) -> Image.Image:
        """The picture. What came out unsound is decoded once more, with all that may rescue it."""
        if self._fetched is not None:
            pixels, sound = self._fetched.get()
            if bool(sound):
                return Image.fromarray(pixels.numpy())
        picture = self._decode()
        self.dtype = self._vae.dtype
        return picture


class Codec:
    """The VAEs of a job, whichever of them a picture goes through."""

    def __init__(self, tools: Tools, axes: Axes, tiling: VaeTiling, warn: Callable[[Warning], None]) -> None:
        self._device = tools.device
        self._store: ModelStore = tools.store
        self._axes = axes
        self._tiling: VaeTiling = tiling
        self._warn = warn
        self._graphs = tools.graphs
        self._residency = tools.residency
        self._fetch = fetch_from(self._device.device)

    def encode(self, vae: Vae, image: Image.Image) -> Tensor:
        """One picture as latents (1, C, h, w) on the job's device."""
        self._make_room(vae, image.height // SCALE, image.width // SCALE)
        latents = encode(vae, pixels_of(image), self._device, self._warn, self._axes, self._tiling)
        return latents.to(self._device.device)

    def begin(self, vae: Vae, latents: Tensor) -> Decoding:
        """Have one picture decoded from its latents (1, C, h, w): by the GPU, while other things are done.

        Where networks come and go, and where there is no GPU, it is decoded when it is asked for.
        """
        fetched = None
        if self._fetch is not None and self._residency.home == self._device.device:
            self._make_room(vae, latents.shape[2], latents.shape[3])
            fetched = begin_decode(vae, latents, self._device, self._axes, self._tiling, self._fetch)
        return Decoding(vae, lambda: self.decode(vae, latents), fetched)

    def decode(self, vae: Vae, latents: Tensor) -> Image.Image:
        """One picture from its latents (1, C, h, w)."""
        self._make_room(vae, latents.shape[2], latents.shape[3])
        dtype = vae.dtype
        pixels = decode(vae, latents, self._device, self._warn, lambda: None, self._axes, self._tiling)
        if vae.dtype is not dtype:
            self._store.remember_precision(vae)
        return Image.fromarray(pixels)

    def _make_room(self, vae: Vae, height: int, width: int) -> None:
        """A recorded UNet is made again in a second; a picture in tiles is not what was asked for."""
        if self._graphs.make_room(needed_memory(vae, height, width)):
            give_back(self._device.device)
