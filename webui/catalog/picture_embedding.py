"""Textual inversion embeddings inside of pictures, as AUTOMATIC1111 shares them.

A PNG has them in a text chunk (`sd-ti-embedding`: base64 of JSON). Where pictures lose their texts, the same JSON,
compressed, is in the low bits of two blocks of pixels at the left and right edge: four bits a colour value, mixed with
the output of a linear congruential generator so that they look like noise.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from webui.errors import BadModelFile

CHUNK = "sd-ti-embedding"
MAX_PIXELS = 64 * 2**20
MAX_FILE = 256 * 2**20  # bytes
MAX_JSON = 64 * 2**20
MAX_BLOCK = 8 * 2**20  # colour values of each of the two blocks
_TENSOR = "TORCHTENSOR"
_NONE = "It is a picture without an embedding in it."
_LCG = (2**32, 1664525, 1013904223)  # modulus, multiplier, increment (Numerical Recipes)

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PictureEmbedding:
    """`vectors` (n, width) in fp32, and the name that the picture gives them."""

    name: str
    vectors: npt.NDArray[np.float32]


def read_picture_embedding(path: Path) -> PictureEmbedding:
    """The embedding in a picture. Raises `BadModelFile` with the reason when there is none."""
    if path.stat().st_size > MAX_FILE:
        raise BadModelFile(_NONE)
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise BadModelFile(_NONE)
            text = getattr(picture, "text", {}).get(CHUNK, "") if picture.format == "PNG" else ""
            data = base64.b64decode(text[: 2 * MAX_JSON]) if text else _from_pixels(np.asarray(picture.convert("RGB")))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, binascii.Error, zlib.error):
        raise BadModelFile(_NONE) from None
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise BadModelFile(_NONE) from None
    return _embedding(content, path.stem)


def _embedding(content: Any, name: str) -> PictureEmbedding:
    """`string_to_param` holds one table, as a list of lists in an object that says it was a tensor."""
    tables = content.get("string_to_param") if isinstance(content, dict) else None
    table = next(iter(tables.values()), None) if isinstance(tables, dict) else None
    rows = table.get(_TENSOR) if isinstance(table, dict) else None
    try:
        vectors = np.array(rows, dtype=np.float32)
    except (ValueError, TypeError):
        vectors = np.zeros(0, dtype=np.float32)
    if vectors.ndim != 2 or 0 in vectors.shape or not np.isfinite(vectors).all():
        raise BadModelFile("The embedding in the picture is damaged.")
    said = content.get("name")
    return PictureEmbedding(said if isinstance(said, str) and said.strip() else name, vectors)


def _from_pixels(pixels: Bytes) -> bytes:
    """The JSON in the low bits of pixels (H, W, 3). Raises ValueError or zlib.error when there is none."""
    low = _without_black_edges((pixels & 0x0F).astype(np.uint8))
    black = np.flatnonzero(low.sum(axis=(0, 2), dtype=np.int64) == 0)
    if len(black) < 2:
        raise ValueError("no black columns between the blocks")
    left, right = low[:, : black[0]], low[:, black[-1] + 1 :]
    if left.shape != right.shape or not 0 < left.size <= MAX_BLOCK:
        raise ValueError("no two blocks of one size")
    noise = (_noise(left.size) & 0x0F).reshape(left.shape)
    packed = ((right ^ noise) << 4 | (left ^ noise)).tobytes()
    return zlib.decompressobj().decompress(packed, MAX_JSON)


def _without_black_edges(low: Bytes) -> Bytes:
    """The part that holds every pixel whose three values are all above 0."""
    darkest = low.min(axis=2)
    rows, columns = np.flatnonzero(darkest.max(axis=1)), np.flatnonzero(darkest.max(axis=0))
    if not len(rows):
        raise ValueError("black all over")
    return low[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _noise(count: int) -> Bytes:
    modulus, multiplier, increment = _LCG
    values, state = bytearray(count), 0
    for i in range(count):
        state = (multiplier * state + increment) % modulus
        values[i] = state % 255
    return np.frombuffer(bytes(values), dtype=np.uint8)
