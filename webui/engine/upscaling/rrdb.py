"""RRDBNet: the network of ESRGAN (Wang et al. 2018) and Real-ESRGAN (Wang et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

RESIDUAL = 0.2  # what a block adds is scaled by this
SLOPE = 0.2  # of the leaky ReLU


class ResidualDenseBlock(nn.Module):
    """Five convolutions, each of which sees what all before it gave."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for i in range(1, 6):
            out = channels if i == 5 else growth
            self.add_module(f"conv{i}", nn.Conv2d(channels + (i - 1) * growth, out, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for i in range(1, 5):
            grown = functional.leaky_relu(getattr(self, f"conv{i}")(seen), SLOPE)
            seen = torch.cat((seen, grown), dim=1)
        added: Tensor = self.conv5(seen)  # type: ignore[operator]
        return x + RESIDUAL * added


class ResidualInResidual(nn.Module):
    """Three dense blocks with a way around them."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(channels, growth)
        self.rdb2 = ResidualDenseBlock(channels, growth)
        self.rdb3 = ResidualDenseBlock(channels, growth)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + RESIDUAL * added


class RRDBNet(nn.Module):
    """(B, 3, H, W) in 0..1 to (B, 3, scale H, scale W). Each of the `doublings` enlarges by 2.

    `unshuffle` above 1 folds that many pixels a side into channels first, so the whole enlarges by less. A side that
    is no multiple of it is continued by its last pixels for that, and the result is cut again.
    """

    def __init__(self, *, channels: int, growth: int, blocks: int, doublings: int, unshuffle: int) -> None:
        super().__init__()
        self.doublings, self.unshuffle = doublings, unshuffle
        self.scale = 2**doublings // unshuffle
        self.conv_first = nn.Conv2d(3 * unshuffle**2, channels, 3, padding=1)
        self.body = nn.Sequential(*(ResidualInResidual(channels, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_up = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(doublings))
        self.conv_hr = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_last = nn.Conv2d(channels, 3, 3, padding=1)

    @property
    def reach(self) -> int:
        """How far, in pixels of the input, one pixel of it is seen."""
        return (15 * len(self.body) + 2 + self.doublings) * self.unshuffle + 2

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = functional.pad(x, (0, -width % self.unshuffle, 0, -height % self.unshuffle), mode="replicate")
        features: Tensor = self.conv_first(functional.pixel_unshuffle(padded, self.unshuffle))
        features = features + self.conv_body(self.body(features))
        for conv in self.conv_up:
            features = functional.leaky_relu(conv(functional.interpolate(features, scale_factor=2.0)), SLOPE)
        large: Tensor = self.conv_last(functional.leaky_relu(self.conv_hr(features), SLOPE))
        return large[..., : height * self.scale, : width * self.scale]
