"""A face brought into the place that restoration networks were trained for, and what they made of it put back.

The place is that of FFHQ's pictures at 512 pixels a side. The way there is a similarity (turned, scaled and moved,
never stretched), which in complex numbers is z -> a z + b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.engine.faces.yunet import Points

SIDE = 512  # pixels of an aligned face
FADE = 64  # pixels of it over which the restored face goes over into the picture
_BESIDE = (128, 128, 128)  # the colour of what lies outside of the picture
# Where FFHQ has the eyes, the nose's tip and the corners of the mouth (facexlib's mean over the aligned pictures).
_EYES, _NOSE = [(192.98138, 239.94708), (318.90277, 240.1936)], (256.63416, 314.01935)
_MOUTH = [(201.26117, 371.41043), (313.08905, 371.15118)]
TEMPLATE: Points = 0.5 + np.array([*_EYES, _NOSE, *_MOUTH])


@dataclass(frozen=True, slots=True)
class Similarity:
    """z -> `turn` z + `shift`, with points x + iy."""

    turn: complex
    shift: complex

    @property
    def inverse(self) -> Similarity:
        return Similarity(1 / self.turn, -self.shift / self.turn)

    def __call__(self, points: Points) -> Points:
        moved = self.turn * _complex(points) + self.shift
        return np.stack((moved.real, moved.imag), axis=-1)


def similarity(source: Points, target: Points) -> Similarity:
    """The similarity that brings `source` (N, 2) nearest to `target` by the sum of squares."""
    one, two = _complex(source), _complex(target)
    middle, goal = one.mean(), two.mean()
    spread = np.vdot(one - middle, one - middle).real
    if not spread:
        raise ValueError("the points are all the same")
    turn = np.vdot(one - middle, two - goal) / spread
    return Similarity(complex(turn), complex(goal - turn * middle))


def cut_out(image: Image.Image, landmarks: Points) -> tuple[Image.Image, Similarity]:
    """The aligned face (RGB, 512 x 512), and the way from the picture to it."""
    there = similarity(landmarks, TEMPLATE)
    return _warped(image, there.inverse, (SIDE, SIDE), _BESIDE), there


def put_back(image: Image.Image, face: Image.Image, there: Similarity, visibility: float) -> Image.Image:
    """The picture with an aligned face laid over the place it came from, with soft edges.

    What lies outside of the face's square stays as it is, to the last bit.
    """
    corners = there.inverse(np.array([(0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)], dtype=float))
    left, top = (max(0, int(np.floor(low))) for low in corners.min(axis=0))
    right, bottom = (min(side, int(np.ceil(high))) for side, high in zip(image.size, corners.max(axis=0), strict=True))
    if right <= left or bottom <= top:
        return image
    moved = Similarity(there.turn, there.turn * complex(left, top) + there.shift)
    size = (right - left, bottom - top)
    mask = _warped(_soft_square(visibility), moved, size, 0)
    result = image.copy()
    result.paste(_warped(face, moved, size, _BESIDE), (left, top), mask)
    return result


def _soft_square(visibility: float) -> Image.Image:
    """White, falling to black towards the edges (a smooth step)."""
    rise = np.clip((np.minimum(np.arange(SIDE), np.arange(SIDE)[::-1]) + 0.5) / FADE, 0.0, 1.0)
    rise = rise * rise * (3 - 2 * rise)
    return Image.fromarray(np.rint(255 * visibility * np.outer(rise, rise)).astype(np.uint8))


def _warped(image: Image.Image, back: Similarity, size: tuple[int, int], fill: int | tuple[int, ...]) -> Image.Image:
    """The picture moved. `back` leads from the result to the picture; where it shrinks, pixels are averaged first."""
    factor = max(1, int(abs(back.turn)))
    if factor > 1:
        image, back = image.reduce(factor), Similarity(back.turn / factor, back.shift / factor)
    real, imaginary = back.turn.real, back.turn.imag
    rows = (real, -imaginary, back.shift.real, imaginary, real, back.shift.imag)
    return image.transform(size, Image.Transform.AFFINE, rows, Image.Resampling.BICUBIC, fillcolor=fill)


def _complex(points: Points) -> NDArray[np.complex128]:
    moved: NDArray[np.complex128] = points[:, 0] + 1j * points[:, 1]
    return moved
