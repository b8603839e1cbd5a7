"""Colour correction: a picture gets the colours of another one and keeps its own light.

In CIE L*a*b* each channel's values are moved so that their histogram is the other picture's; then hue and saturation
of that are taken with the luminosity of the picture itself (W3C Compositing, section 10.2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]

_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.950456, 1.0, 1.088754])  # D65
_LUMINOSITY = np.array([0.3, 0.59, 0.11])


def corrected(image: Image.Image, target: Image.Image) -> Image.Image:
    """`image` (RGB) with the colours of `target`."""
    source: Bytes = np.asarray(image.convert("RGB"))
    lab, wanted = _to_lab(source), _to_lab(np.asarray(target.convert("RGB")))
    matched = np.stack([_matched(lab[..., i], wanted[..., i]) for i in range(3)], axis=-1)
    coloured = _from_lab(matched)
    return Image.fromarray(_bytes(_with_luminosity(coloured, source / 255.0) * 255.0))


def _matched(values: Bytes, wanted: Bytes) -> Floats:
    """`values` moved so that they are distributed as `wanted`: each to the one at the same quantile."""
    _, inverse, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    there, there_counts = np.unique(wanted.ravel(), return_counts=True)
    quantiles = np.cumsum(counts) / values.size
    moved: Floats = np.interp(quantiles, np.cumsum(there_counts) / wanted.size, there)
    return moved[inverse].reshape(values.shape)


def _to_lab(rgb: Bytes) -> Bytes:
    """(H, W, 3) in bytes: L scaled to 0..255, a and b moved by 128."""
    linear = rgb / 255.0
    linear = np.where(linear > 0.04045, ((linear + 0.055) / 1.055) ** 2.4, linear / 12.92)
    xyz = linear @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lightness = np.where(xyz[..., 1] > 0.008856, 116 * f[..., 1] - 16, 903.3 * xyz[..., 1])
    a, b = 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])
    return _bytes(np.stack([lightness * 255 / 100, a + 128, b + 128], axis=-1))


def _from_lab(lab: Floats) -> Floats:
    """(H, W, 3) of 0..255 to RGB in 0..1."""
    y = (lab[..., 0] * 100 / 255 + 16) / 116
    f = np.stack([y + (lab[..., 1] - 128) / 500, y, y - (lab[..., 2] - 128) / 200], axis=-1)
    xyz = np.where(f > 0.206893, f**3, (f - 16 / 116) / 7.787) * _WHITE
    linear = np.clip(xyz @ np.linalg.inv(_TO_XYZ).T, 0, 1)
    rgb: Floats = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return rgb.clip(0, 1)


def _with_luminosity(colour: Floats, light: Floats) -> Floats:
    """The first picture's hue and saturation at the second one's luminosity, clipped towards grey."""
    moved = colour + ((light - colour) @ _LUMINOSITY)[..., None]
    grey = (moved @ _LUMINOSITY)[..., None]
    low, high = moved.min(-1, keepdims=True), moved.max(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.where(low < 0, grey + (moved - grey) * grey / (grey - low), moved)
        moved = np.where(high > 1, grey + (moved - grey) * (1 - grey) / (high - grey), moved)
    result: Floats = np.nan_to_num(moved)
    return result


def _bytes(values: NDArray[Any]) -> Bytes:
    result: Bytes = np.rint(values.clip(0, 255)).astype(np.uint8)
    return result
