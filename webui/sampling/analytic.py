"""A denoiser that is known exactly, to hold samplers against: the data is a mixture of Gaussians."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class GaussianMixture:
    """Data drawn with equal weights from K Gaussians of one standard deviation; a denoiser for `sample`.

    `centers` is (K, D), D = C H W. With v = std^2 + sigma^2 and w the posterior weights of the centers,
    D(x; sigma) = (sigma^2 sum_k w_k c_k + std^2 x) / v. One center and std 0 is a one-point distribution.
    """

    def __init__(self, centers: Tensor | Sequence[Sequence[float]], std: float) -> None:
        self.centers = torch.as_tensor(centers, dtype=torch.float64)
        self.std = std

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The expected clean picture for x (B, C, H, W) at sigma (B,), in the precision of x."""
        flat = x.flatten(1)
        centers = self.centers.to(x)
        variance = (self.std**2 + sigma**2).unsqueeze(1)
        distances = (flat.unsqueeze(1) - centers).square().sum(-1)
        weights = torch.softmax(-distances / (2 * variance), dim=1)
        mean = weights @ centers
        return ((sigma.unsqueeze(1) ** 2 * mean + self.std**2 * flat) / variance).view_as(x)

    def as_flow(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The same data seen by a flow, where x / (1 - sigma) is at the noise level sigma / (1 - sigma)."""
        rest = (1 - sigma).clamp(min=1e-12)
        return self(x / rest.view(-1, 1, 1, 1), sigma / rest)
