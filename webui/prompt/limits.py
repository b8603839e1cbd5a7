"""How far a prompt may go. Past a limit the request is refused with a sentence (`InvalidParams`), or the rest is cut
with a warning where that says so. Real prompts stay far below every one of them.
"""

from __future__ import annotations

from webui.errors import InvalidParams

MAX_DEPTH = 100  # brackets inside brackets
MAX_WEIGHT = 1000.0  # of emphasis and of AND parts, either sign
MAX_PARTS = 100  # prompts joined by AND; each costs one more network evaluation a step
MAX_NETWORKS = 200  # <lora:...> and <hypernet:...> tags
MAX_CHUNKS = 128  # of 75 tokens; the text after them is cut with a warning
MAX_SCHEDULE_WORK = 2_000_000  # changing places x changes: what evaluating a schedule costs
MAX_SCHEDULE_TEXT = 40_000_000  # characters of all scheduled texts together


def too_deep(what: str = "brackets") -> InvalidParams:
    return InvalidParams(
        f"The prompt has {what} nested deeper than {MAX_DEPTH} levels.",
        "Close the brackets that were left open, or write a number: (word:1.5).",
    )


def checked_weight(weight: float) -> float:
    """`weight` itself. Raises `InvalidParams` when it is not a number within ±`MAX_WEIGHT`."""
    if not abs(weight) <= MAX_WEIGHT:  # written so that NaN fails, too
        raise InvalidParams(
            f"The prompt has a weight of {weight:.6g}; weights go up to {MAX_WEIGHT:g}.",
            "Use a weight between 0.1 and 2, and close the brackets that were left open.",
        )
    return weight
