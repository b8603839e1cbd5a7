"""Running the scripts that ship without an engine: cells come out, pictures of one colour go in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from webui.errors import ModelNotFound
from webui.extensions import Cell, CellResult, Draft, Expansion, Host, Sheet
from webui.extensions.start import start
from webui.params import GenerationParams, make_params
from webui.paths import REPO_ROOT, Paths
from webui.settings import Settings


def shipped_host() -> Host:
    paths = replace(Paths.under(REPO_ROOT), extensions=(REPO_ROOT / "extensions",))
    return start(paths, Settings(), "engine")[1]


@dataclass
class FakeDesk:
    """The services of a script, without a disk."""

    lines: dict[str, list[str]] = field(default_factory=dict)
    kept: list[Image.Image] = field(default_factory=list)

    def keep(self, picture: Image.Image) -> str:
        self.kept.append(picture)
        return f"{len(self.kept):064x}"

    def checkpoint(self, name: str) -> str:
        if name not in ("one", "two"):
            raise ModelNotFound(f'There is no checkpoint "{name}".')
        return f"{name}.safetensors"

    def vae(self, name: str) -> str:
        return f"{name}.vae"

    def upscaler(self, name: str) -> str:
        if name not in ("Latent", "Lanczos"):
            raise ModelNotFound(f'There is no upscaler "{name}".')
        return name

    def with_styles(self, params: GenerationParams, names: Sequence[str]) -> GenerationParams:
        return params.changed(prompt=f"{params.prompt}, in the style of {' and '.join(names)}")

    def wildcard(self, name: str) -> Sequence[str]:
        return self.lines.get(name, [])


@dataclass
class Played:
    """What a script did: its cells, drafts and sheets, and what was said first."""

    expansion: Expansion
    cells: list[Cell] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)

    @property
    def params(self) -> list[GenerationParams]:
        return [cell.params for cell in self.cells]


def answer(cell: Cell) -> CellResult:
    """One picture a cell, in a colour of its own."""
    shade = Image.new("RGB", (16, 16), (cell.params.seed % 256, cell.params.steps % 256, 0))
    return CellResult([shade] * cell.params.pictures)


def play(
    host: Host,
    name: str,
    values: dict[str, Any],
    desk: FakeDesk | None = None,
    make: Callable[[Cell], CellResult] = answer,
    **fields: Any,
) -> Played:
    """The whole of a script on a request, with every cell answered by `make`. Raises what the script raises."""
    request = make_params({"prompt": "a castle", "seed": 7, "width": 16, "height": 16, "variation_seed": 1, **fields})
    panel = host.manifests[name].panel
    assert panel is not None
    complete = panel.read(values)
    [(_, expansion)] = host.ask("expand", {name: complete}, request=request, desk=desk or FakeDesk())
    played, result = Played(expansion), None
    while True:
        try:
            wanted = expansion.cells.send(result)
        except StopIteration:
            return played
        result = None
        if isinstance(wanted, Draft):
            played.drafts.append(wanted)
        elif isinstance(wanted, Sheet):
            played.sheets.append(wanted)
        else:
            played.cells.append(wanted)
            result = make(wanted)
