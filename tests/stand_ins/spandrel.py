"""In place of the package of that name, which needs torchvision: two small face restorers with the protocol of the real
ones (aligned face in -1..1 in, a tuple with the restored one out), and an upscaler."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class UnsupportedModelError(Exception):
    pass


class ImageModelDescriptor:
    def __init__(self, model: nn.Module, name: str, purpose: str) -> None:
        self.model, self.purpose, self.architecture = model, purpose, SimpleNamespace(name=name)
        self.scale = 2 if purpose == "SR" else 1

    def eval(self) -> ImageModelDescriptor:
        self.model.eval()
        return self

    def to(self, device: torch.device) -> ImageModelDescriptor:
        self.model.to(device)
        return self

    def __call__(self, x: Tensor) -> Tensor:
        made: Tensor = self.model(x)
        return made


class Gfpgan(nn.Module):
    """Moves colours by what the file says; without being asked not to, it adds noise."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("tint", tensors["toRGB.0.weight"].float().reshape(1, 3, 1, 1))

    def forward(self, x: Tensor, return_rgb: bool = True, randomize_noise: bool = True) -> tuple[Tensor, list[Any]]:
        assert x.shape == (1, 3, 512, 512)
        noise = torch.randn_like(x) if randomize_noise else 0
        return x + self.tint + noise, []


class Codeformer(nn.Module):
    """With a weight of 1 the face itself, with 0 grey."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("level", tensors["position_emb"].float())

    def forward(self, x: Tensor, weight: float = 0.5, **more: Any) -> tuple[Tensor, Tensor]:
        return x * weight, self.level


class SwinIR(nn.Module):
    """Twice the pixels, times what the file says."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.gain = nn.Parameter(tensors["layers.weight"].float())

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x.repeat_interleave(2, 2).repeat_interleave(2, 3)


class ModelLoader:
    def __init__(self, device: str) -> None:
        assert device == "cpu"

    def load_from_state_dict(self, tensors: dict[str, Tensor]) -> ImageModelDescriptor:
        if "toRGB.0.weight" in tensors:
            return ImageModelDescriptor(Gfpgan(tensors), "GFPGAN", "FaceSR")
        if "position_emb" in tensors:
            return ImageModelDescriptor(Codeformer(tensors), "CodeFormer", "FaceSR")
        if "layers.weight" in tensors:
            return ImageModelDescriptor(SwinIR(tensors), "SwinIR", "SR")
        raise UnsupportedModelError
