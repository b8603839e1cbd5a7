"""Architectures that are not built in, through the optional package spandrel."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from webui.errors import BadModelFile, UnsupportedModel


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for, in words, and what to do where the package is not here."""

    what: str
    advice: str


def load_by_spandrel(tensors: Mapping[str, Tensor], name: str, wanted: Wanted) -> Any:
    """The package's description of the network, on the CPU: its `model`, `purpose`, `scale` and `architecture`.

    Raises `UnsupportedModel` when the package is not here, cannot be loaded or does not know the architecture,
    `BadModelFile` when the tensors do not fit together.
    """
    known = f'The {wanted.what} "{name}"'
    try:
        from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError
    except ModuleNotFoundError as error:
        missing = "" if error.name == "spandrel" else f" It is here, but needs the package {error.name}."
        raise UnsupportedModel(f"{known} is of an architecture that is not built in.{missing}", wanted.advice) from None
    except (ImportError, RuntimeError) as error:  # a torchvision that was built for another torch
        reason = str(error).strip().splitlines()[0][:200]
        raise UnsupportedModel(
            f"{known} needs the package spandrel, which cannot be loaded here ({reason}).",
            "Install the torchvision that belongs to this torch; `app.py doctor` says what does not fit.",
        ) from None
    _add_extra_architectures()
    try:
        found = ModelLoader("cpu").load_from_state_dict(dict(tensors))
    except UnsupportedModelError:
        raise UnsupportedModel(f"{known} is of an unknown architecture.", wanted.advice) from None
    except (KeyError, RuntimeError, ValueError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise BadModelFile(f"{known} is damaged: {reason}.", "Get the file again.") from None
    if not isinstance(found, ImageModelDescriptor):
        raise UnsupportedModel(f"{known} ({found.architecture.name}) needs more than a picture.", "Choose another one.")
    return found


def _add_extra_architectures() -> None:
    """Those whose licences allow no commercial use are a package of their own, which a user may have added."""
    with contextlib.suppress(ModuleNotFoundError):
        from spandrel_extra_arches import install

        install(ignore_duplicates=True)
