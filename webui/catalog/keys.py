"""What the detection rules ask of a header, and what they answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from webui.catalog.families import Family, Kind, Prediction
from webui.catalog.header import Header

UNET = "model.diffusion_model."  # the prefixes of a single-file checkpoint
TEXT = "cond_stage_model."
VAE = "first_stage_model."


@dataclass(frozen=True, slots=True)
class Detected:
    """What the header says. `reason` is why the file cannot run for its own kind, "" when it can."""

    kind: Kind
    family: Family = Family.UNKNOWN
    prediction: Prediction = "eps"
    prediction_known: bool = False
    reason: str = ""
    variant: str = ""
    in_channels: int = 0
    latent_channels: int = 0
    context_dim: int = 0
    has_vae: bool = True
    zero_terminal_snr: bool = False
    guided: bool = False  # an LCM whose UNet is told the CFG scale


class Keys:
    """The tensor names and shapes of a header, with the questions that the rules ask."""

    def __init__(self, header: Header) -> None:
        self.names = header.tensors.keys()
        self.metadata = header.metadata
        self._tensors = header.tensors
        self._lines = "\n" + "\n".join(self.names) + "\n"  # names hold no line feed: one search looks at all of them

    def has(self, *names: str) -> bool:
        """Whether any of them is there."""
        return any(name in self._tensors for name in names)

    def all(self, *names: str) -> bool:
        return all(name in self._tensors for name in names)

    def starts(self, *prefixes: str) -> bool:
        """Whether any name begins with one of the prefixes."""
        return any("\n" + prefix in self._lines for prefix in prefixes)

    def matching(self, pattern: str) -> str | None:
        """The first name in which the pattern is found (^ and $ mean the ends of the name)."""
        match = re.search(pattern, self._lines, re.MULTILINE)
        if match is None:
            return None
        start = self._lines.rfind("\n", 0, match.start() + 1) + 1
        return self._lines[start : self._lines.index("\n", match.start() + 1)]

    def shape(self, name: str) -> tuple[int, ...]:
        tensor = self._tensors.get(name)
        return tensor.shape if tensor else ()

    def side(self, name: str | None, axis: int) -> int:
        """The length of an axis; 0 when the tensor or the axis is not there."""
        shape = self.shape(name) if name else ()
        return shape[axis] if -len(shape) <= axis < len(shape) else 0
