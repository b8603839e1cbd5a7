"""How a saved picture came to be, as plain data: what the engine tells whoever keeps a record of pictures.

The engine knows these facts at the moment it saves; the history keeps them. Neither imports the other: both know this
file. Whoever builds the engine gives it a `SaveHook`; the hook's context is entered when a file is about to get its
name and left when it has it, so a record can be made in the same step as the file.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from webui.params import GenerationParams

ModelKind = Literal[
    "checkpoint",
    "hires checkpoint",  # of the second pass, where it is another one
    "refiner",
    "vae",
    "lora",
    "embedding",
    "hypernetwork",
    "controlnet",
    "upscaler",
    "face restorer",
]


@dataclass(frozen=True, slots=True)
class UsedModel:
    """A file whose weights went into a picture."""

    kind: ModelKind
    name: str  # relative to its models folder, with "/" and the suffix; what the catalog calls `name`
    sha256: str = ""  # of the whole file; "" while it is not known


@dataclass(frozen=True, slots=True)
class Environment:
    """What besides the params and the models can change a picture's last bits. "" where it does not apply."""

    product: str = ""  # version of this product
    torch: str = ""
    diffusers: str = ""
    device: str = ""  # "cpu", "cuda:0 NVIDIA H200"
    dtype: str = ""  # of the UNet: "float16", "bfloat16", "float32"; ", weights int8" where they are kept so
    vae_dtype: str = ""
    attention: str = ""  # backend and version: "xformers 0.0.35", "sdpa"
    threads: str = ""  # on CPU, of the UNet, and of how many: the order of a sum depends on it


@dataclass(frozen=True, slots=True)
class SavedPicture:
    """One picture at the moment it is saved. `params` are the whole job's; `index` says which of its pictures."""

    params: GenerationParams
    index: int
    path: Path  # absolute; the name the file is about to get
    width: int  # pixels
    height: int
    infotext: str
    pixels_sha256: str  # over the RGB bytes, row by row
    environment: Environment
    models: tuple[UsedModel, ...] = ()


SaveHook = Callable[[SavedPicture], AbstractContextManager[None]]
"""Wraps the write of one file. The write's own exceptions pass through it."""


def no_record(_picture: SavedPicture) -> AbstractContextManager[None]:
    """The hook of an engine whose pictures nobody records."""
    return nullcontext()
