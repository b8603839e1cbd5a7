"""The arguments of an X/Y/Z plot as clients of AUTOMATIC1111 send them: axes by their number there."""

from __future__ import annotations

from typing import Any

from webui.errors import InvalidParams

SCRIPT = "xyz-plot"
_TEXT_MODE = 17  # where its last argument stands: text counts, and not what was chosen of lists
_TXT2IMG, _IMG2IMG = "txt2img", "img2img"

# In its order, with the tab that alone has an axis. The number of an axis is its place among those of its tab.
_AXES: tuple[tuple[str, str], ...] = (
    *(("Nothing", ""), ("Seed", ""), ("Var. seed", ""), ("Var. strength", ""), ("Steps", "")),
    *(("Hires steps", _TXT2IMG), ("CFG Scale", ""), ("Image CFG Scale", _IMG2IMG), ("Prompt S/R", "")),
    *(("Prompt order", ""), ("Sampler", ""), ("Hires sampler", _TXT2IMG), ("Checkpoint name", "")),
    *(("Negative Guidance minimum sigma", ""), ("Sigma Churn", ""), ("Sigma min", ""), ("Sigma max", "")),
    *(("Sigma noise", ""), ("Schedule type", ""), ("Schedule min sigma", ""), ("Schedule max sigma", "")),
    *(("Schedule rho", ""), ("Beta schedule alpha", ""), ("Beta schedule beta", ""), ("Eta", ""), ("Clip skip", "")),
    *(("Denoising", ""), ("Initial noise multiplier", ""), ("Extra noise", ""), ("Hires upscaler", _TXT2IMG)),
    *(("Cond. Image Mask Weight", _IMG2IMG), ("VAE", ""), ("Styles", ""), ("UniPC Order", ""), ("Face restore", "")),
    *(("Token merging ratio", ""), ("Token merging ratio high-res", ""), ("Always discard next-to-last sigma", "")),
    *(("SGM noise multiplier", ""), ("Refiner checkpoint", ""), ("Refiner switch at", ""), ("RNG source", "")),
    *(("FP8 mode", ""), ("Size", "")),
)


def read_xyz_arguments(arguments: list[Any], *, img2img: bool) -> list[Any]:
    """They in our panel's words: axes by name, and of text and list the one that counts.

    Raises `InvalidParams` for a number that no axis has.
    """
    found = list(arguments)
    tab = _IMG2IMG if img2img else _TXT2IMG
    names = [name for name, only in _AXES if only in ("", tab)]
    for place in (0, 3, 6):
        number = found[place] if place < len(found) else None
        if isinstance(number, int) and not isinstance(number, bool):
            if not 0 <= number < len(names):
                raise InvalidParams(f"There is no axis number {number}.", f"Send 0 to {len(names) - 1}, or a name.")
            found[place] = names[number]
    if len(found) == _TEXT_MODE + 1:
        text_counts = str(found.pop()).casefold() == "true"
        for place in (1, 4, 7):
            if found[place + 1] and not text_counts:
                found[place] = ""
            elif text_counts:
                found[place + 1] = []
    return found
