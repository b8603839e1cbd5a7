"""What a field of the form is, and short ways to write one down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from webui.operations import FaceRestoration, Frame, Hires, Init, Inpaint, SdUpscale, SoftInpainting
from webui.params import GenerationParams

Kind = Literal[
    "text", "choice", "int", "float", "bool", "seed", "sigmas", "model", "styles", "panels", "mode", "switch",
    "picture", "sources",
]  # fmt: skip

# Where the page finds the names that a model field offers; "passes": also what enlarges latents.
Source = Literal["", "checkpoints", "refiners", "upscalers", "passes", "faces", "second_faces"]

# What is done, and on which sub-tab: all but the first start from a picture.
MODES = ("txt2img", "img2img", "sketch", "inpaint", "inpaint sketch", "inpaint upload", "batch")
SAME = "Use same"  # what a choice shows for None: as in the first pass

# The groups of `GenerationParams` by path, with their defaults.
SECTIONS: dict[str, BaseModel] = {
    "": GenerationParams(),
    "init": Init(),
    "init.frame": Frame(),
    "inpaint": Inpaint(),
    "inpaint.soft": SoftInpainting(),
    "hires": Hires(),
    "sd_upscale": SdUpscale(),
    "faces": FaceRestoration(),
}


def _default(path: str) -> Any:
    section, _, name = path.rpartition(".")
    return getattr(SECTIONS[section], name)


def _annotation(path: str) -> str:
    section, _, name = path.rpartition(".")
    return str(type(SECTIONS[section]).model_fields[name].annotation)


@dataclass(frozen=True, slots=True)
class Field:
    """One widget. `span` is (low, high, step) of a number; `optional` ones may be empty. `tip` says what the parameter
    does, its usual range and where it comes from."""

    name: str
    label: str
    kind: Kind
    tip: str = ""
    span: tuple[float, float, float] | None = None
    slider: bool = False
    choices: tuple[str, ...] = ()
    optional: bool = False
    source: Source = ""

    @property
    def default(self) -> Any:
        """The value of a fresh form; the size follows the checkpoint and is filled in by the page."""
        if self.kind == "mode":
            return MODES[0]
        if self.kind == "switch":
            return False
        if self.kind in ("styles", "panels", "sources"):
            return ""
        value = _default(self.name)
        if self.kind == "seed":
            return str(value)
        if self.kind == "choice" and value is None:
            return SAME
        if self.kind in ("sigmas", "picture") or (self.kind == "model" and value is None):
            return value or ""
        return value

    @property
    def elem_id(self) -> str:
        """The id of its element, which the page's script and the tests know."""
        return "f-" + self.name.replace(".", "-")


@dataclass(frozen=True, slots=True)
class Group:
    """Fields that fold and are reset together."""

    id: str
    title: str
    fields: tuple[Field, ...]
    open: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields)


def number(
    name: str, label: str, span: tuple[float, float, float], tip: str, *, slider: bool = False, optional: bool = False
) -> Field:
    """A number; whole or not as the parameter is."""
    whole = "int" in _annotation(name)
    return Field(name, label, "int" if whole else "float", tip, span, slider, optional=optional)


def slider(name: str, label: str, span: tuple[float, float, float], tip: str) -> Field:
    """A number that is set by a slider."""
    return number(name, label, span, tip, slider=True)


def choice(name: str, label: str, choices: Iterable[str], tip: str) -> Field:
    """One of a few names."""
    return Field(name, label, "choice", tip, choices=tuple(choices))


def flag(name: str, label: str, tip: str) -> Field:
    """On or off."""
    return Field(name, label, "bool", tip)


def switch(path: str, label: str, tip: str) -> Field:
    """Whether the group at that path is part of the request."""
    return Field(f"{path}.on", label, "switch", tip)


def model(name: str, label: str, source: Source, tip: str) -> Field:
    """One of the model files here; what they are is known to the page, and changes when the lists are read again."""
    return Field(name, label, "model", tip, source=source)
