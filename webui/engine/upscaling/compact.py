"""SRVGGNetCompact: the small network of Real-ESRGAN's anime video models. All of its work is done at the small size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Compact(nn.Module):
    """(B, 3, H, W) in 0..1 to (B, 3, scale H, scale W): convolutions with PReLUs, and the picture itself added."""

    def __init__(self, *, channels: int, convolutions: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.PReLU(channels)]
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(channels)]
        layers.append(nn.Conv2d(channels, 3 * scale**2, 3, padding=1))
        self.body = nn.Sequential(*layers)

    @property
    def reach(self) -> int:
        """How far, in pixels of the input, one pixel of it is seen."""
        return (len(self.body) + 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        detail: Tensor = functional.pixel_shuffle(self.body(x), self.scale)
        return detail + functional.interpolate(x, scale_factor=float(self.scale), mode="nearest")
