"""`app.py models`: what was found in the model folders, and the hashes users tell files apart by.

`models merge`, `models convert` and `models prune` make new files (`webui.cli.model_tools`).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from webui.catalog import Catalog, ModelFile
from webui.catalog.families import Family
from webui.cli.flags import Folders, expanded
from webui.console import size
from webui.errors import WebUIError
from webui.install import Steps

HEADINGS = ("kind", "name", "family", "size", "hash", "remark")


models = typer.Typer(name="models", help="List the model files; merge, convert and prune them.")


@models.callback(invoke_without_command=True)
@expanded()
def list_models(
    context: typer.Context,
    folders: Folders,
    no_hashes: Annotated[
        bool, typer.Option("--no-hashes", help="List at once; do not compute hashes that are missing.")
    ] = False,
) -> None:
    """List checkpoints, VAEs and the other model files, with family, size and hash."""
    if context.invoked_subcommand is not None:  # folders named before it hold for it, too
        given = {field.name: getattr(folders, field.name) for field in dataclasses.fields(folders)}
        context.default_map = {context.invoked_subcommand: {name: value for name, value in given.items() if value}}
        return
    catalog = Catalog(folders.paths())
    try:
        if not no_hashes:
            compute_hashes(catalog)
        for problem in catalog.problems:
            print(problem, file=sys.stderr)
        print(table(listed(catalog)))
    finally:
        catalog.close()


def listed(catalog: Catalog) -> list[tuple[str, ModelFile]]:
    """Every model file with the word for its folder."""
    groups = {
        "checkpoint": catalog.checkpoints,
        "VAE": catalog.vaes,
        "LoRA": catalog.loras,
        "embedding": catalog.embeddings,
        "hypernetwork": catalog.hypernetworks,
        "upscaler": catalog.upscalers,
        "face restorer": catalog.face_restorers,
        "ControlNet": catalog.controlnets,
    }
    return [(word, model) for word, found in groups.items() for model in found]


def compute_hashes(catalog: Catalog) -> None:
    """The missing hashes of checkpoints and VAEs, one line a file on standard error."""
    missing = [model for model in (*catalog.checkpoints, *catalog.vaes) if not model.sha256]
    steps = Steps()
    for number, model in enumerate(missing, 1):
        try:
            with steps.step(f"hashing {number} of {len(missing)}: {model.name} ({size(model.size)})"):
                catalog.sha256(model)
        except WebUIError as error:
            steps.line(f"  {error}")


def table(models: Iterable[tuple[str, ModelFile]]) -> str:
    """Columns of plain text."""
    rows = [
        (word, model.name, _family(model), size(model.size), model.short_hash or "-", remark(model))
        for word, model in models
    ]
    if not rows:
        return "There is no model file. Put a .safetensors checkpoint into models/Stable-diffusion."
    widths = [max(len(row[column]) for row in (HEADINGS, *rows)) for column in range(len(HEADINGS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (HEADINGS, *rows))
    return "\n".join(line.rstrip() for line in lines)


def _family(model: ModelFile) -> str:
    """A VAE may serve several, and an upscaler has none."""
    return "-" if model.family is Family.UNKNOWN else str(model.family)


def remark(model: ModelFile) -> str:
    """Why it cannot be used, or what about it was set aside."""
    return " ".join(part for part in (model.reason, *model.problems) if part)
