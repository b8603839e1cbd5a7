"""Composable diffusion: `a cat AND a dog :0.5` is two prompts whose guidance is added with weights 1 and 0.5.

    x0 = uncond + sum_i weight_i * cfg_scale * (cond_i - uncond)

Source: Liu et al. 2022, "Compositional Visual Generation with Composable Diffusion Models"; syntax of AUTOMATIC1111.
"""

from __future__ import annotations

import re

from webui.errors import InvalidParams
from webui.prompt.limits import MAX_PARTS, checked_weight

_AND = re.compile(r"\bAND\b")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?|\d*\.\d+)")


def split_and(text: str, *, compatible: bool = False) -> list[list[str | float]]:
    """`[[text, weight], ...]`: the parts around the word AND, each with the weight that follows its last colon.

    A prompt without AND keeps a number at its end ("at 12:30" is a time); `compatible` reads it as a weight all the
    same, as AUTOMATIC1111 does. Raises `InvalidParams` for more than `MAX_PARTS` parts or a weight out of bounds.
    """
    parts = _AND.split(text)
    if len(parts) > MAX_PARTS:
        raise InvalidParams(
            f"The prompt has {len(parts):,} parts joined by AND; at most {MAX_PARTS} are possible.",
            "Each part costs another run of the network at every step. Join some of them with commas.",
        )
    weighted = len(parts) > 1 or compatible
    return [_text_and_weight(part) if weighted else [part.rstrip(), 1.0] for part in parts]


def _text_and_weight(part: str) -> list[str | float]:
    head, colon, tail = part.rpartition(":")
    number = tail.strip()
    if colon and _NUMBER.fullmatch(number):
        return [head.rstrip(), checked_weight(float(number))]
    return [part.rstrip(), 1.0]
