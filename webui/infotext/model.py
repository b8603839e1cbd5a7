"""What reading a parameters text gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class NotUnderstood(NamedTuple):
    """A setting of the text that has no effect here, or another than was written, and why. `value` is shortened."""

    key: str
    value: str
    reason: str


class Resource(NamedTuple):
    """A model file that the text names: "checkpoint", "vae", "lora", "embedding" or what the text calls it.

    `digest` is the beginning of a sha256 as the text gives it, or "".
    """

    kind: str
    name: str
    digest: str = ""
    weight: str = ""


@dataclass(slots=True)
class Reading:
    """A text taken apart by one of the dialect readers: prompts, and settings under AUTOMATIC1111's keys.

    Sizes are in two keys, "Size-1" and "Size-2". `complete`: the text has a settings line, so that a setting it does
    not name had its default.
    """

    dialect: str
    prompt: str = ""
    negative_prompt: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    complete: bool = True
    not_understood: list[NotUnderstood] = field(default_factory=list)
    resources: list[Resource] = field(default_factory=list)

    def put(self, key: str, value: object) -> None:
        """Add a setting unless there is none; numbers and flags become their text."""
        if value is None or isinstance(value, dict | list):
            return
        text = f"{value:.17g}" if isinstance(value, float) and value.is_integer() else str(value)
        if text:
            self.fields[key] = text

    def put_size(self, width: object, height: object) -> None:
        if width and height:
            self.put("Size-1", width)
            self.put("Size-2", height)


@dataclass(frozen=True, slots=True)
class ParsedInfotext:
    """A parameters text, read.

    `fields`: every setting as text, under AUTOMATIC1111's keys ("Size-1" and "Size-2" for a size).
    `params`: the fields of `GenerationParams` that the text decides, each within its bounds and all of them together:
    `make_params({**current, **parsed.params})` makes the picture. A setting that the text does not name but would if
    it were not the default is there with the default. The checkpoint is "name [hash]", an alias the catalog knows.
    `not_understood`: what else the text says, with the reason. `resources`: the model files it names.
    """

    dialect: str
    prompt: str
    negative_prompt: str
    fields: dict[str, str]
    params: dict[str, Any]
    not_understood: tuple[NotUnderstood, ...]
    resources: tuple[Resource, ...] = ()

    @property
    def lora_hashes(self) -> dict[str, str]:
        """The first 12 digits of each LoRA's hash, by the name in the prompt's tag."""
        return split_hashes(self.fields.get("Lora hashes", ""))

    @property
    def embedding_hashes(self) -> dict[str, str]:
        """The first 12 digits of each textual inversion's hash, by its name."""
        return split_hashes(self.fields.get("TI hashes", ""))

    def as_a1111(self) -> dict[str, str]:
        """The dictionary that AUTOMATIC1111 makes of the text: prompts and settings, with its defaults filled in."""
        result = {"Prompt": self.prompt, "Negative prompt": self.negative_prompt, **self.fields}
        for key, value in _A1111_DEFAULTS.items():
            result.setdefault(key, value)
        if any(bracket in self.prompt + self.negative_prompt for bracket in "()[]"):
            result.setdefault("Emphasis", "Original")
        return result


_A1111_DEFAULTS = {
    "Clip skip": "1",
    "Hires resize-1": "0",
    "Hires resize-2": "0",
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": "32",
    "RNG": "GPU",
    "Schedule type": "Automatic",
    "Schedule max sigma": "0",
    "Schedule min sigma": "0",
    "Schedule rho": "0",
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "FP8 weight": "Disable",
    "Cache FP16 weight for LoRA": "False",
    "Refiner switch by sampling steps": "False",
}


def split_hashes(text: str) -> dict[str, str]:
    """{"name": "0123456789ab"} of "name: 0123456789ab, ..."."""
    hashes: dict[str, str] = {}
    for entry in text.split(","):
        name, colon, digits = entry.rpartition(":")
        if colon and name.strip() and digits.strip():
            hashes[name.strip()] = digits.strip().lower()
    return hashes
