"""The one question a sampler asks, "what is the clean picture in x?", answered by any kind of network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from webui.sampling.levels import TimestepLookup

Prediction = Literal["eps", "v", "flow"]
Predict = Callable[[Tensor, Tensor], Tensor]
"""`predict(x scaled to the network (B, C, H, W), timestep (B,) float32) -> the network's output (B, C, H, W)`."""


class ModelDenoiser:
    """A network as a denoiser: `__call__(x (B, C, H, W), sigma (B,)) -> denoised`.

    - "eps": the network names the noise. D = x - sigma eps(c_in x, t), c_in = 1 / sqrt(sigma^2 + 1) (Ho et al. 2020).
    - "v": the velocity of Salimans and Ho 2022. D = c_skip x + c_out v, c_skip = c_in^2, c_out = -sigma c_in.
    - "flow": the velocity noise - clean of a straight path (Lipman et al. 2023). D = x - sigma v, t = sigma T.

    `table` holds the T trained sigmas, ascending; `quantize` rounds to the nearest trained timestep instead of going
    between two. Nothing here waits for the device.
    """

    def __init__(self, predict: Predict, table: Tensor, prediction: Prediction, *, quantize: bool = False) -> None:
        self.predict = predict
        self.prediction = prediction
        self.quantize = quantize
        self.timesteps = len(table)
        self._timestep = TimestepLookup(table)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        t = self.timestep(sigma)
        s = sigma.to(x.dtype).view(-1, 1, 1, 1)
        if self.prediction == "flow":
            return x - s * self.predict(x, t)
        c_in = (s * s + 1).rsqrt()
        scaled = x * c_in
        output = self.predict(scaled, t)
        return x - s * output if self.prediction == "eps" else c_in * (scaled - s * output)

    def timestep(self, sigma: Tensor) -> Tensor:
        """What the network is told for each noise level, (B,) float32."""
        t = sigma * self.timesteps if self.prediction == "flow" else self._timestep(sigma)
        return (t.round() if self.quantize else t).float()
