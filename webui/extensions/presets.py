"""A preset: a named set of form fields, offered for some model families or for all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Preset:
    """`fields` are fields of `GenerationParams`; those that are not named stay as they are.

    `families` are the catalog's names of model families for which it is meant, () for all. `own`: the user made it, so
    it can be changed and deleted.
    """

    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    families: tuple[str, ...] = ()
    about: str = ""
    own: bool = False
