"""`app.py upscale picture.png folder/`: pictures enlarged and repaired, with the text they carry kept and extended."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Annotated, Any

import typer

from webui.cli import batch, groups
from webui.cli.flags import Folders, Machine, expanded, load_settings
from webui.errors import InvalidParams
from webui.inputs import InputStore
from webui.names import NO_MODEL, NO_UPSCALER
from webui.params import GenerationParams, make_params


@expanded()
def upscale(
    pictures: Annotated[list[Path], typer.Argument(metavar="FILE|FOLDER...", help="Pictures, or folders of them.")],
    folders: Folders,
    machine: Machine,
    upscaler: Annotated[
        str,
        typer.Option("--upscaler", "-u", help='"Lanczos", "Nearest", or the name of a model (see `app.py models`).'),
    ] = "",
    upscaler_2: Annotated[str, typer.Option("--upscaler-2", help="A second one, laid over the first.")] = NO_UPSCALER,
    visibility: Annotated[float, typer.Option("--visibility", help="How much of the second is seen, 0 to 1.")] = 0.5,
    scale: Annotated[float, typer.Option("--scale", help="How many times larger.")] = 2.0,
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="To this size instead, such as 1024x1024.")] = "",
    fit: Annotated[
        bool, typer.Option("--fit", help="With --size: fit inside instead of cutting what is too much.")
    ] = False,
    faces: Annotated[
        str, typer.Option("--faces", metavar="MODEL", help='Restore faces, with this model or "Automatic".')
    ] = "",
    faces_visibility: Annotated[
        float, typer.Option("--faces-visibility", help="How much of the restored face is seen, 0 to 1.")
    ] = 1.0,
    faces_2: Annotated[
        str, typer.Option("--faces-2", metavar="MODEL", help="A second one, after the first.")
    ] = NO_MODEL,
    faces_2_visibility: Annotated[float, typer.Option("--faces-2-visibility", help="Of the second one.")] = 0.5,
    codeformer_weight: Annotated[
        float, typer.Option("--codeformer-weight", help="0: the best face, 1: the likeness (CodeFormer).")
    ] = 0.5,
    image_format: Annotated[
        str, typer.Option("--image-format", help="png, jpeg, webp or avif; the settings' if not given.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", file_okay=False, help="Save below this folder.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also what was made before.")] = False,
) -> None:
    """Make pictures larger, restore their faces, and print the paths of the saved files.

    Stopped, the same command goes on where it was.
    """
    if faces_2 != NO_MODEL and not faces:
        raise InvalidParams("--faces-2 comes after a first face restoration.", "Give --faces as well.")
    if fit and not size:
        raise InvalidParams("--fit says how a picture is brought to a size.", "Give --size as well, or leave it out.")
    paths = dataclasses.replace(folders, outputs_dir=output or folders.outputs_dir).paths()
    settings, problems = load_settings(paths, machine.overrides())
    paths.make_folders()
    store = InputStore(paths.outputs)
    fields: dict[str, Any] = {
        "upscaler": upscaler or _first_model(paths),
        "upscaler_2": upscaler_2,
        "upscaler_2_visibility": 0.0 if upscaler_2 == NO_UPSCALER else visibility,
        "crop": not fit,
        **(_size(size) if size else {"scale": scale}),
    }
    restoration: dict[str, Any] | None = {
        "model": faces,
        "visibility": faces_visibility,
        "model_2": faces_2,
        "visibility_2": 0.0 if faces_2 == NO_MODEL else faces_2_visibility,
        "codeformer_weight": codeformer_weight,
    }
    restoration = restoration if faces else None
    saving = {"image_format": image_format or settings.saving.format.value, "image_quality": settings.saving.quality}

    def from_file(file: Path) -> GenerationParams:
        extras = {**fields, "image": groups.keep(str(file), store)}
        return make_params({"extras": extras, "faces": restoration, "seed": 0, "variation_seed": 0, **saving})

    files = batch.pictures_in(pictures)
    items = [batch.Item(file, functools.partial(from_file, file)) for file in files]
    saved, code = batch.run_all(items, len(items), settings, paths, problems, again=again)
    for path in saved:
        print(path)
    raise typer.Exit(code)


def _size(text: str) -> dict[str, int]:
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError:
        raise InvalidParams(f"--size {text[:40]} is not a size.", "Write it like this: 1024x768") from None
    return {"width": width, "height": height}


def _first_model(paths: Any) -> str:
    """The first upscaler model there is, Lanczos without one."""
    from webui.catalog import Catalog

    return next((model.stem for model in Catalog(paths).upscalers if model.runnable), "Lanczos")
