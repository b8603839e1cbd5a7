"""Where a picture's random numbers come from: one generator a picture, so that a batch equals its singles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from webui.sampling.brownian import BrownianNoise, BrownianTree
from webui.sampling.philox import PhiloxGenerator
from webui.sampling.transfer import to_device

NoiseSource = Literal["CPU", "GPU", "NV"]
Shape = tuple[int, int, int]
Stream = Callable[[Shape], Tensor]
"""`stream(shape) -> the next standard normal numbers of one generator`."""

PARALLEL = 0.9995  # mean cosine above which two noises count as one direction


class PictureNoise:
    """All the noise of one batch: `first()` is the start, then each call is the next ancestral noise.

    - "CPU": torch's CPU generator; the same picture on every machine.
    - "GPU": the generator of `device` (of the CPU where that is the device, and on MPS, which is not reproducible).
    - "NV": the numbers of an NVIDIA GPU, drawn on the CPU.

    `seeds` has one entry a picture; `shape` is (C, H, W) in latent cells. With `variation_strength` the start noise is
    turned from the seed's towards the variation seed's. `resize_from` is the (H, W), in latent cells, of another
    picture whose composition is to be kept: its noise is put in the middle. A non-zero `ensd` (eta noise seed delta)
    reseeds the generators with seed + ensd for everything after the start.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Shape,
        *,
        source: NoiseSource = "CPU",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        variation_seeds: Sequence[int] | None = None,
        variation_strength: float = 0.0,
        resize_from: tuple[int, int] | None = None,
        ensd: int = 0,
    ) -> None:
        if variation_strength and (variation_seeds is None or len(variation_seeds) != len(seeds)):
            raise ValueError("a variation needs one variation seed a picture")
        self.seeds = tuple(seeds)
        self.shape = shape
        self._source = source
        self._device = torch.device(device)
        self._dtype = dtype
        self._variation_seeds = tuple(variation_seeds or ())
        self._variation_strength = variation_strength
        self._resize_from = resize_from
        self._ensd = ensd
        self._streams = [self._stream(seed) for seed in self.seeds]

    def first(self) -> Tensor:
        """The start noise (B, C, H, W), unit variance. Drawn once, before any other noise."""
        noise = [self._start(index) for index in range(len(self.seeds))]
        if self._ensd:
            self._streams = [self._stream(seed + self._ensd) for seed in self.seeds]
        return self._batch(noise)

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:  # noqa: ARG002
        """The next noise (B, C, H, W) of each picture's generator; the interval does not matter."""
        return self._batch([stream(self.shape) for stream in self._streams])

    def brownian(self, sigma_min: float, sigma_max: float) -> BrownianNoise:
        """Brownian noise over these levels, seeded a picture at a time: `(sigma, sigma_next) -> (B, C, H, W)`."""
        return BrownianNoise(
            [
                BrownianTree(sigma_min, sigma_max, lambda node: self._stream(node)(self.shape), entropy=seed)
                for seed in self.seeds
            ],
            self._dtype,
            self._device,
        )

    def _start(self, index: int) -> Tensor:
        seed, stream = self.seeds[index], self._streams[index]
        channels, height, width = self.shape
        small = (channels, *(self._resize_from or (height, width)))
        noise = stream(self.shape) if small == self.shape else self._stream(seed)(small)
        if self._variation_strength:
            variation = self._stream(self._variation_seeds[index])(small)
            noise = slerp(self._variation_strength, noise, variation)
        return noise if small == self.shape else paste_centred(noise, stream(self.shape))

    def _stream(self, seed: int) -> Stream:
        if self._source == "NV":
            return PhiloxGenerator(seed).randn
        on_device = self._source == "GPU" and self._device.type not in ("cpu", "mps")
        device = self._device if on_device else torch.device("cpu")
        generator = torch.Generator(device).manual_seed(seed)
        return lambda shape: torch.randn(shape, generator=generator, device=device)

    def _batch(self, noise: list[Tensor]) -> Tensor:
        return to_device(torch.stack(noise).to(self._dtype), self._device)


def slerp(strength: float, low: Tensor, high: Tensor) -> Tensor:
    """Spherical interpolation of two noises (C, H, W): 0 is `low`, 1 is `high`; angles along H, as in A1111.

    Interpolating straight would shrink the variance. Where the two are parallel already it does, with the weights as
    A1111 has them (exchanged), which is a difference of rounding.
    """
    dot = (low / low.norm(dim=1, keepdim=True) * (high / high.norm(dim=1, keepdim=True))).sum(1, keepdim=True)
    if float(dot.mean()) > PARALLEL:
        return low * strength + high * (1 - strength)
    omega = torch.acos(dot.clamp(-1, 1))
    sine = torch.sin(omega)
    curved = (torch.sin((1 - strength) * omega) * low + torch.sin(strength * omega) * high) / sine
    return torch.where(sine.abs() > 1e-6, curved, torch.lerp(low, high, strength))  # a column may be parallel, too


def paste_centred(small: Tensor, large: Tensor) -> Tensor:
    """`large` (C, H, W) with `small` (C, h, w) in its middle; whatever of `small` hangs over is cut off evenly."""
    dy, dx = (large.shape[1] - small.shape[1]) // 2, (large.shape[2] - small.shape[2]) // 2
    height = small.shape[1] + 2 * min(dy, 0)
    width = small.shape[2] + 2 * min(dx, 0)
    result = large.clone()
    to_y, to_x, from_y, from_x = max(dy, 0), max(dx, 0), max(-dy, 0), max(-dx, 0)
    result[:, to_y : to_y + height, to_x : to_x + width] = small[:, from_y : from_y + height, from_x : from_x + width]
    return result
