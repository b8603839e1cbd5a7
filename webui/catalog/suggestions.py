"""Sampler, steps and guidance for checkpoints and LoRAs that were distilled to few steps.

But for an LCM that is told its guidance, nothing in their tensors tells them from others, so the name and the metadata
are asked. The answer is no more than a suggestion: it changes no request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from webui.catalog.models import ModelFile

MAX_STEPS = 16  # no distilled model is made for more


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What suits a model; `kind` is its method as its authors call it."""

    kind: str
    sampler: str
    schedule: str
    steps: int
    cfg_scale: float


# The first that is named decides. Sources: Luo et al. 2023 (LCM), Sauer et al. 2023 (ADD, Turbo), Lin et al. 2024
# (Lightning), Ren et al. 2024 (Hyper-SD), Yin et al. 2024 (DMD2), Zheng et al. 2024 (TCD) and their model cards.
_KNOWN: tuple[tuple[str, Suggestion], ...] = (
    (r"lcm", Suggestion("LCM", "LCM", "SGM Uniform", 6, 1.5)),
    (r"dmd2?", Suggestion("DMD2", "LCM", "SGM Uniform", 4, 1.0)),
    (r"tcd", Suggestion("TCD", "TCD", "SGM Uniform", 8, 1.0)),
    (r"hyper(?:sd)?(?![a-z]).*(?<![a-z])cfg", Suggestion("Hyper-SD with guidance", "DDIM", "SGM Uniform", 8, 5.0)),
    (r"hyper(?:sd)?", Suggestion("Hyper-SD", "TCD", "SGM Uniform", 8, 1.0)),
    (r"lightning", Suggestion("Lightning", "Euler", "SGM Uniform", 4, 1.0)),
    (r"turbo", Suggestion("Turbo", "Euler a", "SGM Uniform", 4, 1.0)),
)
_GUIDED = Suggestion("LCM", "LCM", "SGM Uniform", 4, 8.0)  # Luo et al. 2023: trained for scales of 3 to 15
_SAYS = ("modelspec.title", "modelspec.architecture", "modelspec.implementation", "ss_output_name")
_STEPS = re.compile(r"(?<!\d)(\d{1,2})[ _-]?steps?(?![a-z])")


TOO_STRONG = 2.0  # times the suggested CFG scale: from there on pictures are burnt


def suggestion_for(model: ModelFile) -> Suggestion | None:
    """What suits this checkpoint or LoRA; None for one that is sampled as usual."""
    if model.guided:
        return _GUIDED
    texts = [model.stem, *(model.metadata.get(key, "")[:400] for key in _SAYS)]
    for text in texts:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()  # "DreamTurbo" is two words
        for pattern, found in _KNOWN:
            if re.search(rf"(?<![a-z]){pattern}(?![a-z])", words):
                steps = _STEPS.search(words)
                return replace(found, steps=int(steps[1])) if steps and 1 <= int(steps[1]) <= MAX_STEPS else found
    return None
