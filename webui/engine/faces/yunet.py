"""YuNet: finds faces and their five landmarks (Wu et al. 2023, "YuNet: a tiny millisecond-level face detector").

The weights are those of libfacedetection (webui/data/faces, see NOTICE): 53,000 numbers, small enough to come along and
to run on the CPU of any machine. A pixel is taken as it is, 0 to 255, in the order blue, green, red.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS = Path(__file__).parents[2] / "data" / "faces" / "yunet.safetensors"
STRIDES = (8, 16, 32)  # pixels from one place that may hold a face to the next, at each of three sizes
LONG_SIDES = (320, 1280)  # pixels; large faces are found in the small picture, small ones in the large one
MIN_SCORE = 0.7
MAX_OVERLAP = 0.3  # of two findings' area; more, and they are the same face
MAX_FACES = 100
LANDMARKS = 5

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Face:
    """`box` is left, top, right, bottom; `landmarks` (5, 2) are both eyes, the nose's tip and both corners of the
    mouth, the left one of the picture first. Pixels; the middle of the first one is 0.5.
    """

    score: float
    box: tuple[float, float, float, float]
    landmarks: Points

    @property
    def eye_distance(self) -> float:
        return float(np.hypot(*(self.landmarks[1] - self.landmarks[0])))


class Unit(nn.Module):
    """A 1x1 convolution and one of 3x3 for each channel."""

    def __init__(self, inputs: int, outputs: int, *, last: bool = False) -> None:
        super().__init__()
        self.pw = nn.Conv2d(inputs, outputs, 1)
        self.dw = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.dw(self.pw(x))
        return made if self.last else made.relu()


class YuNet(nn.Module):
    """(B, 3, H, W), sides multiples of 32, to (B, places, 16): score, box and landmarks, in pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.first = Unit(16, 16)
        widths = ((16, 32), (32, 64), (64, 64), (64, 64), (64, 64))
        self.body = nn.ModuleList(nn.Sequential(Unit(one, one), Unit(one, two)) for one, two in widths)
        self.neck = nn.ModuleList(Unit(64, 64) for _ in STRIDES)
        outputs = {"cls": 1, "obj": 1, "bbox": 4, "kps": 2 * LANDMARKS}
        self.heads = nn.ModuleDict(
            {name: nn.ModuleList(Unit(64, count, last=True) for _ in STRIDES) for name, count in outputs.items()}
        )

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.first(self.stem(x).relu()), 2)
        x = functional.max_pool2d(self.body[1](self.body[0](x)), 2)
        levels: list[Tensor] = []
        for block in list(self.body)[2:]:
            levels.append(block(functional.max_pool2d(levels[-1], 2) if levels else x))
        found: list[Tensor] = []
        coarser: Tensor | None = None
        for level in reversed(range(len(STRIDES))):
            features = levels[level]
            if coarser is not None:
                features = features + functional.interpolate(coarser, scale_factor=2.0)
            coarser = self.neck[level](features)
            found.append(self._decoded(coarser, level))
        return torch.cat(found, dim=1)

    def _decoded(self, features: Tensor, level: int) -> Tensor:
        """What a level says of each of its places, row by row."""
        stride, (height, width) = STRIDES[level], features.shape[-2:]
        told = {name: units[level](features).flatten(2).mT for name, units in self.heads.items()}  # type: ignore[index]
        down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        place = torch.stack((across, down), dim=-1).reshape(1, -1, 2).to(features) * stride
        score = (told["cls"].sigmoid() * told["obj"].sigmoid()).sqrt()
        middle, half = told["bbox"][..., :2] * stride + place, told["bbox"][..., 2:].exp() * stride / 2
        points = told["kps"].unflatten(-1, (LANDMARKS, 2)) * stride + place[:, :, None]
        return torch.cat((score, middle - half, middle + half, points.flatten(-2)), dim=-1)


def load_yunet() -> YuNet:
    """The detector, in fp32 on the CPU."""
    with torch.device("meta"):
        network = YuNet()
    network.load_state_dict(load_file(WEIGHTS), strict=True, assign=True)
    return network.eval().requires_grad_(False)


def find_faces(network: YuNet, image: Image.Image) -> list[Face]:
    """The faces of a picture, from left to right."""
    longest = max(image.size)
    found: list[Face] = []
    for side in sorted({LONG_SIDES[0], min(max(longest, LONG_SIDES[0]), LONG_SIDES[1])}):
        found += _at(network, image, side / longest)
    kept: list[Face] = []
    for face in sorted(found, key=lambda one: -one.score):
        if len(kept) < MAX_FACES and all(_overlap(face.box, other.box) <= MAX_OVERLAP for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda one: one.box)


def _at(network: YuNet, image: Image.Image, scale: float) -> list[Face]:
    """What is found in the picture brought to a scale, in pixels of the picture itself."""
    width, height = (max(1, round(side * scale)) for side in image.size)
    pixels = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0))
    canvas = np.zeros((math.ceil(height / 32) * 32, math.ceil(width / 32) * 32, 3), dtype=np.float32)
    canvas[:height, :width] = pixels[:, :, ::-1]
    with torch.inference_mode():
        places = network(torch.from_numpy(canvas).permute(2, 0, 1)[None])[0]
        places = places[places[:, 0] >= MIN_SCORE].double().numpy()
    back = np.array(image.size) / (width, height)
    points = (places[:, 1:].reshape(len(places), 2 + LANDMARKS, 2) + 0.5) * back
    return [
        Face(float(place[0]), (*map(float, spots[0]), *map(float, spots[1])), spots[2:])  # type: ignore[arg-type]
        for place, spots in zip(places, points, strict=True)
    ]


def _overlap(one: tuple[float, ...], two: tuple[float, ...]) -> float:
    """The shared part of two boxes' area."""
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((one[2] - one[0]) * (one[3] - one[1]) + (two[2] - two[0]) * (two[3] - two[1]) - shared)
