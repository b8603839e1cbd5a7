"""Pictures and masks for jobs that start from one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from webui.inputs import InputStore


def keep(outputs: Path, image: Image.Image, kind: str = "PNG") -> str:
    """Put a picture into the store; gives its reference."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return InputStore(outputs).add(buffer.getvalue()).reference


def scene(width: int = 128, height: int = 128, seed: int = 0) -> Image.Image:
    """A smooth coloured picture with detail everywhere, so that any change of a pixel shows."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = smooth + random.integers(-9, 10, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def box_mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """White in the box."""
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def array(image: Image.Image) -> Any:
    return np.asarray(image.convert("RGB"), dtype=np.int16)
