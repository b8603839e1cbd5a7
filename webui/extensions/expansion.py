"""One job into many: what the hook `expand` gives, and what flows to and fro while it runs.

The work is a generator. It yields `Cell`s (one set of params to be made into pictures) and is sent a `CellResult` for
each, so that a later cell may follow from an earlier one; it yields `Draft`s, shown while the job runs, and `Sheet`s,
saved as pictures of their own:

    def cells():
        result = yield Cell(request.changed(seed=1))
        yield Sheet(draw(result.pictures))

    return Expansion(cells(), pictures=1)
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from webui.params import GenerationParams


@dataclass(frozen=True, slots=True)
class Cell:
    """One set of params to make: an ordinary request of one or more pictures. `label` names it in messages.

    Pictures that are not `shown` are saved and recorded like all others, but are no part of the job's result.
    """

    params: GenerationParams
    label: str = ""
    shown: bool = True


@dataclass(frozen=True, slots=True)
class CellResult:
    """What became of a cell. `error` is "" or one sentence why it failed; then there may be no pictures.

    `infotexts` are the parameters texts of the pictures, `paths` their files ("" where one could not be saved).
    `interrupted`: the user ended the job; no further cell will be made. `resumed`: they were made by an earlier run of
    the same job that was interrupted.
    """

    pictures: Sequence[Image.Image] = ()
    infotexts: Sequence[str] = ()
    paths: Sequence[str] = ()
    error: str = ""
    interrupted: bool = False
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """A picture to show while the job runs, such as a grid with its first cells."""

    picture: Image.Image


@dataclass(frozen=True, slots=True)
class Sheet:
    """A picture made of others, to be saved among the grids. `notes` become settings of its parameters text."""

    picture: Image.Image
    notes: tuple[tuple[str, str], ...] = ()


Yielded = Cell | Draft | Sheet
Cells = Generator[Yielded, CellResult | None, None]


@dataclass(frozen=True, slots=True)
class Expansion:
    """The generator, how many pictures its cells make (0: nobody knows), and sentences to tell the user first."""

    cells: Cells
    pictures: int
    notes: tuple[str, ...] = ()


class Desk(Protocol):
    """What a script may need of the program besides the request."""

    def keep(self, picture: Image.Image) -> str:
        """Keep a picture among the inputs; gives its reference, for `Init.image` of a cell. Raises `SaveError`."""
        ...

    def checkpoint(self, name: str) -> str:
        """The name of the checkpoint that answers to this alias. Raises `ModelNotFound` with near matches."""
        ...

    def vae(self, name: str) -> str:
        """The VAE selection for this name. Raises `ModelNotFound` with near matches."""
        ...

    def with_styles(self, params: GenerationParams, names: Sequence[str]) -> GenerationParams:
        """The params with these styles merged into the prompts. Raises `InvalidParams` for an unknown one."""
        ...

    def wildcard(self, name: str) -> Sequence[str]:
        """The lines of a wildcard file; none when there is no such file."""
        ...
