"""A line of the list: a plain prompt, or flags as they are written for AUTOMATIC1111's script of this name."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from webui.errors import InvalidParams
from webui.names import SAMPLER_NAMES
from webui.params import SIDE_MULTIPLE

_NO_EFFECT = {  # paths and switches that decide nothing of the picture here
    "outpath_samples",
    "outpath_grids",
    "prompt_for_display",
    "do_not_save_samples",
    "do_not_save_grid",
}
_RUNNING = {"prompt", "negative_prompt"}  # may run on without quotes until the next flag


def _flag(text: str) -> bool:
    if text.casefold() not in ("true", "false"):
        raise ValueError(f'"{text}" is neither true nor false')
    return text.casefold() == "true"


def _side(text: str) -> int:
    """Pixels, rounded down to whole latent cells, as clients of that program know it."""
    pixels = int(text)
    return pixels // SIDE_MULTIPLE * SIDE_MULTIPLE if pixels > SIDE_MULTIPLE else pixels


def _resized_from(text: str) -> int:
    """A side of the picture whose seed it is; -1 is none there, 0 here."""
    return max(0, int(text)) if int(text) >= -1 else int(text)


def _sampler(index: str) -> str:
    names = list(SAMPLER_NAMES)
    if not 0 <= int(index) < len(names):
        raise ValueError(f"there is no sampler number {index}")
    return names[int(index)]


_FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "prompt": ("prompt", str),
    "negative_prompt": ("negative_prompt", str),
    "sd_model": ("checkpoint", str),
    "styles": ("styles", str),
    "seed": ("seed", int),
    "subseed": ("variation_seed", int),
    "subseed_strength": ("variation_strength", float),
    "seed_resize_from_h": ("seed_resize_height", _resized_from),
    "seed_resize_from_w": ("seed_resize_width", _resized_from),
    "sampler_index": ("sampler", _sampler),
    "sampler_name": ("sampler", str),
    "batch_size": ("batch_size", int),
    "n_iter": ("batch_count", int),
    "steps": ("steps", int),
    "cfg_scale": ("cfg_scale", float),
    "width": ("width", _side),
    "height": ("height", _side),
    "tiling": ("tiling", _flag),
    "restore_faces": ("restore_faces", _flag),
}


def read_line(line: str) -> dict[str, Any]:
    """The fields that a line sets; besides "styles", "tiling" and "restore_faces".

    Raises `InvalidParams` for flags gone wrong.
    """
    if "--" not in line:
        return {"prompt": line.strip()}
    try:
        words = shlex.split(line, posix=True)
    except ValueError as error:
        raise InvalidParams(f"The flags cannot be read: {error}.", "Close the quotes.") from None
    fields: dict[str, Any] = {}
    while words:
        name = words.pop(0)
        if not name.startswith("--"):
            raise InvalidParams(f'"{name[:60]}" stands where a flag should.', "Begin every flag with --.")
        name = name[2:]
        value: list[str] = []
        while words and not words[0].startswith("--") and (not value or name in _RUNNING):
            value.append(words.pop(0))
        if name in _NO_EFFECT:
            continue
        if name not in _FIELDS:
            raise InvalidParams(f"There is no flag --{name[:60]}.", f"Known: {', '.join(sorted(_FIELDS))}.")
        if not value:
            raise InvalidParams(f"--{name} has no value.", "Write one after it.")
        field, read = _FIELDS[name]
        try:
            fields[field] = read(" ".join(value))
        except ValueError as error:
            raise InvalidParams(f"--{name}: {error}.", "Correct the value.") from None
    return fields
