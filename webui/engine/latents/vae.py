"""Latents to pixels and back. A decode that gives NaN is done again in a safer number format. What would not fit into
memory is done in tiles from the start, what turns out not to fit is done again in tiles. Never a silent black picture.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from webui.engine.compute.device import DeviceChoice, dtype_name
from webui.engine.compute.seamless import NONE, Axes, seamless, unwrapped, wrapped
from webui.engine.compute.threads import suited, vae_flop
from webui.engine.estimate import USABLE, vae_activations
from webui.engine.files.dims import VaeDims
from webui.engine.files.weights import Fingerprint
from webui.engine.memory.fetching import Fetch, Fetched
from webui.engine.memory.residency import Residency
from webui.engine.memory.usage import free_memory, give_back, is_out_of_memory
from webui.engine.memory.weights import network_bytes
from webui.errors import NanDetected
from webui.events import Warning
from webui.operations import VaeTiling

Pixels = NDArray[np.uint8]  # (H, W, 3)

SCALE = 8  # pixels a latent cell
TILE_SIDES = (64, 32, 16)  # latent cells, tried in this order
OVERLAP = 8  # latent cells between neighbours, faded from one to the other

_log = logging.getLogger(__name__)


class Vae:
    """A loaded VAE. `reload(dtype)` reads its weights again from the file, in another number format."""

    def __init__(
        self,
        *,
        name: str,
        sha256: str,  # "" for a baked one
        external: bool,
        fingerprint: Fingerprint,
        dims: VaeDims,
        scale_factor: float,
        module: Any,
        dtype: torch.dtype,
        device: torch.device,
        residency: Residency,
        reload: Callable[[torch.dtype], Any],
    ) -> None:
        self.name = name
        self.sha256 = sha256
        self.external = external  # a file of its own, not the one baked into the checkpoint
        self.fingerprint = fingerprint
        self.dims = dims
        self.scale_factor = scale_factor
        self.module = module
        self.dtype = dtype
        self._device = device
        self._residency = residency
        self._reload = reload
        self._encode_flop, self._decode_flop = vae_flop(module)

    @property
    def short_hash(self) -> str | None:
        return self.sha256[:10] or None

    @property
    def bytes(self) -> int:
        """What its network takes in memory."""
        return network_bytes(self.module)

    def change_dtype(self, dtype: torch.dtype) -> None:
        self._residency.leave()
        self.module = None  # the old weights go before the new ones come
        try:
            self.module = self._reload(dtype)
        except BaseException:
            self.module = self._reload(self.dtype)
            raise
        self.dtype = dtype

    def encode_mean(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in -1..1 to the mean latents (B, C, H/8, W/8) as the UNet sees them."""
        work = self._encode_flop * pixels.shape[-2] * pixels.shape[-1] / SCALE**2
        with self._residency.using(self.module) as module, suited(work, self._device):
            moments = module.encode(pixels.to(self._device, self.dtype), return_dict=False)[0]
            mean: Tensor = moments.mode().float()
        return mean * self.scale_factor

    def decode_raw(self, latents: Tensor) -> Tensor:
        """Latents (1, C, h, w) as the UNet sees them to pixels (1, 3, 8h, 8w), nominally -1..1, fp32."""
        z = (latents / self.scale_factor).to(self._device, self.dtype, memory_format=torch.channels_last)
        work = self._decode_flop * z.shape[-2] * z.shape[-1]
        with self._residency.using(self.module) as module, suited(work, self._device):
            decoded: Tensor = module.decode(z, return_dict=False)[0]
        return decoded.float()


def decode(
    vae: Vae,
    latents: Tensor,
    device: DeviceChoice,
    warn: Callable[[Warning], None],
    check: Callable[[], None],
    axes: Axes = NONE,
    tiling: VaeTiling = "Automatic",
) -> Pixels:
    """One picture (1, C, h, w) to pixels. What was done to rescue it is told through `warn`; `axes`: seamless.

    `check` is called before each attempt and may raise to end the work. Raises `NanDetected` when the latents are sound
    and no number format gives a picture; errors of memory when not even the smallest tile fits.
    """
    if not bool(torch.isfinite(latents).all()):
        raise NanDetected("The latents hold numbers that are not numbers.", "Try another sampler or precision.")
    tried = []
    for dtype in (vae.dtype, *_safer(vae.dtype, device)):
        check()
        if dtype is not vae.dtype:
            vae.change_dtype(dtype)
        tried.append(dtype_name(dtype))
        decoded = _decode_or_tile(vae, latents, device, warn, axes, tiling)
        if bool(torch.isfinite(decoded).all()):
            if len(tried) > 1:
                warn(
                    Warning(
                        "vae_precision",
                        f"The VAE {vae.name} gave invalid numbers (NaN) in {', '.join(tried[:-1])}; the picture was "
                        f"decoded again in {tried[-1]}, which is kept for this VAE.",
                    )
                )
            return to_pixels(decoded)
    raise NanDetected(
        f"The VAE {vae.name} gave invalid numbers (NaN) in {', '.join(tried)}.",
        "Its file may be damaged, or it may not belong to this checkpoint; choose another VAE.",
    )


def begin_decode(
    vae: Vae, latents: Tensor, device: DeviceChoice, axes: Axes, tiling: VaeTiling, fetch: Fetch
) -> Fetched | None:
    """Have one picture (1, C, h, w) decoded and fetched, without waiting for it: its pixels (H, W, 3) as bytes, and
    whether all numbers were sound. None where it cannot be done in one piece.
    """
    free = free_memory(device.device) * USABLE
    if tiling == "On" or (tiling == "Automatic" and not _fits(vae, latents.shape[2], latents.shape[3], free)):
        return None
    try:
        with seamless(vae.module, axes):
            decoded = vae.decode_raw(latents)
        sound = torch.isfinite(latents).all() & torch.isfinite(decoded).all()
        return fetch((_bytes_of(decoded), sound))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def encode(
    vae: Vae,
    pixels: Tensor,
    device: DeviceChoice,
    warn: Callable[[Warning], None],
    axes: Axes = NONE,
    tiling: VaeTiling = "Automatic",
) -> Tensor:
    """Pixels (1, 3, H, W) in -1..1 to the mean latents (1, C, H/8, W/8), rescued as `decode` rescues."""
    tried = []
    for dtype in (vae.dtype, *_safer(vae.dtype, device)):
        if dtype is not vae.dtype:
            vae.change_dtype(dtype)
        tried.append(dtype_name(dtype))
        latents = _encode_or_tile(vae, pixels, device, warn, axes, tiling)
        if bool(torch.isfinite(latents).all()):
            return latents
    raise NanDetected(
        f"The VAE {vae.name} gave invalid numbers (NaN) in {', '.join(tried)} for the picture to start from.",
        "Its file may be damaged, or it may not belong to this checkpoint; choose another VAE.",
    )


def to_pixels(decoded: Tensor) -> Pixels:
    """(1, 3, H, W) in -1..1 to (H, W, 3) bytes, rounded."""
    return _bytes_of(decoded).cpu().numpy()


def decode_tiled(vae: Vae, latents: Tensor, tile: int) -> Tensor:
    """The same as `Vae.decode_raw`, with no more than `tile` x `tile` latent cells decoded at once.

    Tiles overlap and are blended linearly. Normalisation sees one tile at a time, so colours may differ by a little.
    """
    _, _, height, width = latents.shape
    total: Tensor | None = None
    weight = torch.zeros(1, 1, height * SCALE, width * SCALE, device=latents.device)
    for top, bottom in _spans(height, tile):
        for left, right in _spans(width, tile):
            part = vae.decode_raw(latents[:, :, top:bottom, left:right])
            if total is None:
                total = torch.zeros(1, part.shape[1], height * SCALE, width * SCALE, device=latents.device)
            ramp = _ramp(top, bottom, height, latents.device)[:, None] * _ramp(left, right, width, latents.device)
            rows, columns = slice(top * SCALE, bottom * SCALE), slice(left * SCALE, right * SCALE)
            total[:, :, rows, columns] += part * ramp
            weight[:, :, rows, columns] += ramp
    if total is None:
        raise ValueError("no tiles")
    return total / weight


def encode_tiled(vae: Vae, pixels: Tensor, tile: int) -> Tensor:
    """The same as `Vae.encode_mean`, with no more than `tile` x `tile` latent cells encoded at once; see above."""
    _, _, height, width = (*pixels.shape[:2], pixels.shape[2] // SCALE, pixels.shape[3] // SCALE)
    total: Tensor | None = None
    weight = torch.zeros(1, 1, height, width)
    for top, bottom in _spans(height, tile):
        for left, right in _spans(width, tile):
            given = pixels[:, :, top * SCALE : bottom * SCALE, left * SCALE : right * SCALE]
            part = vae.encode_mean(given).cpu()
            if total is None:
                total = torch.zeros(1, part.shape[1], height, width)
            rise = _ramp(top, bottom, height, part.device)[SCALE // 2 :: SCALE, None]
            ramp = rise * _ramp(left, right, width, part.device)[SCALE // 2 :: SCALE]
            total[:, :, top:bottom, left:right] += part * ramp
            weight[:, :, top:bottom, left:right] += ramp
    if total is None:
        raise ValueError("no tiles")
    return total / weight


def _safer(dtype: torch.dtype, device: DeviceChoice) -> Iterator[torch.dtype]:
    """Number formats with a larger range than fp16, the cheaper first."""
    if dtype is torch.float16 and device.bf16:
        yield torch.bfloat16
    if dtype is not torch.float32:
        yield torch.float32


def needed_memory(vae: Vae, height: int, width: int) -> int:
    """Bytes that a decode or encode of `height` x `width` latent cells takes at its peak, about."""
    return vae_activations(vae.dims, height, width, vae.dtype.itemsize)


def _fits(vae: Vae, height: int, width: int, free: float) -> bool:
    """Whether so many latent cells can be decoded or encoded at once in `free` bytes; 0: nobody knows, so yes."""
    return not free or needed_memory(vae, height, width) <= free


def _bytes_of(decoded: Tensor) -> Tensor:
    scaled = (decoded[0] * 127.5 + 127.5).clamp(0, 255).round().to(torch.uint8)
    return scaled.permute(1, 2, 0).contiguous()


def _decode_or_tile(
    vae: Vae,
    latents: Tensor,
    device: DeviceChoice,
    warn: Callable[[Warning], None],
    axes: Axes,
    tiling: VaeTiling,
) -> Tensor:
    def whole() -> Tensor:
        with seamless(vae.module, axes):
            return vae.decode_raw(latents)

    def in_tiles(tile: int) -> Tensor:
        return unwrapped(decode_tiled(vae, wrapped(latents, OVERLAP, axes), tile), OVERLAP * SCALE, axes)

    size = (latents.shape[2], latents.shape[3])
    return _whole_or_tiled(vae, size, device, whole, in_tiles, warn, "decode", tiling)


def _encode_or_tile(
    vae: Vae,
    pixels: Tensor,
    device: DeviceChoice,
    warn: Callable[[Warning], None],
    axes: Axes,
    tiling: VaeTiling,
) -> Tensor:
    def whole() -> Tensor:
        with seamless(vae.module, axes):
            return vae.encode_mean(pixels)

    def in_tiles(tile: int) -> Tensor:
        return unwrapped(encode_tiled(vae, wrapped(pixels, OVERLAP * SCALE, axes), tile), OVERLAP, axes)

    size = (pixels.shape[2] // SCALE, pixels.shape[3] // SCALE)
    return _whole_or_tiled(vae, size, device, whole, in_tiles, warn, "encode", tiling)


def _whole_or_tiled(
    vae: Vae,
    size: tuple[int, int],  # latent cells
    device: DeviceChoice,
    whole: Callable[[], Tensor],
    in_tiles: Callable[[int], Tensor],
    warn: Callable[[Warning], None],
    verb: str,
    tiling: VaeTiling,
) -> Tensor:
    """In one piece where memory suffices, else in the largest tiles for which it does; `tiling` may say which."""
    if tiling == "Off":
        return whole()
    height, width = size
    free = free_memory(device.device) * USABLE
    fits = [tile for tile in TILE_SIDES if _fits(vae, tile, tile, free)] or [TILE_SIDES[-1]]
    if (tiling == "Automatic" and _fits(vae, height, width, free)) or fits[0] >= max(height, width):
        try:
            return whole()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
    for tile in fits:  # outside of the except block, whose traceback would keep tensors alive
        give_back(device.device)
        if tile >= max(height, width):
            continue
        try:
            made = in_tiles(tile)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or tile == TILE_SIDES[-1]:
                raise
            continue
        if tiling == "Automatic":
            at_once = f"There was not enough memory to {verb} the picture at once"
            warn(Warning("vae_tiled", f"{at_once}; it was {verb}d in tiles of {tile * SCALE}."))
        return made
    return whole()  # as small as it gets: let the error speak


def _spans(length: int, tile: int) -> Iterator[tuple[int, int]]:
    """(start, end) of tiles that cover `length` and overlap."""
    if length <= tile:
        yield 0, length
        return
    overlap = min(OVERLAP, tile // 2)
    count = -(-(length - overlap) // (tile - overlap))
    for i in range(count):
        start = round(i * (length - tile) / (count - 1))
        yield start, start + tile


def _ramp(start: int, end: int, length: int, device: torch.device) -> Tensor:
    """Weights of a tile along one side, in pixels: rising from an inner edge, falling towards one."""
    size, fade = (end - start) * SCALE, min(OVERLAP, (end - start) // 2) * SCALE
    ramp = torch.ones(size, device=device)
    edge = (torch.arange(fade, device=device) + 0.5) / fade
    if start > 0:
        ramp[:fade] *= edge
    if end < length:
        ramp[-fade:] *= edge.flip(0)
    return ramp
