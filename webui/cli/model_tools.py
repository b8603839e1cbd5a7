"""`app.py models merge | convert | prune`: new model files from those that are there.

Standard output holds the path of the new file and nothing else; progress is on standard error. The page's tab runs
these very commands.
"""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from webui.catalog import Catalog, ModelFile
from webui.cli.flags import Folders, expanded
from webui.cli.models import models
from webui.console import size
from webui.errors import InvalidParams, ModelNotFound, UnsupportedModel
from webui.paths import Paths, write_new

if TYPE_CHECKING:
    from webui.engine.files.weights import Weights
    from webui.engine.tools.merging import Source
    from webui.engine.tools.rewriting import Written

__all__ = ["models"]

REPORT_EVERY = 50  # tensors


class MethodFlag(str, Enum):
    weighted_sum = "weighted-sum"
    add_difference = "add-difference"
    slerp = "slerp"


class FormatFlag(str, Enum):
    keep = "keep"
    fp16 = "fp16"
    bf16 = "bf16"
    fp32 = "fp32"


_Name = Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint's name, title or hash.")]
_Output = Annotated[
    str,
    typer.Option(
        "--output", "-o", metavar="NAME", help="The new file: a name in the checkpoint folder, or a whole path."
    ),
]
_Precision = Annotated[FormatFlag, typer.Option("--precision", help="Numbers of the new file.")]


@models.command()
@expanded()
def merge(
    a: _Name,
    b: Annotated[str, typer.Argument(metavar="MODEL", help="The second model, B.")],
    folders: Folders,
    output: _Output,
    c: Annotated[str, typer.Option("--c", metavar="MODEL", help="The third model, C, for add-difference.")] = "",
    method: Annotated[
        MethodFlag, typer.Option("--method", help="(1-x) A + x B, A + x (B - C), or along the arc between A and B.")
    ] = MethodFlag.weighted_sum,
    alpha: Annotated[float, typer.Option("--alpha", "-x", help="x: 0 is A alone, 1 is B alone.")] = 0.5,
    vae: Annotated[str, typer.Option("--vae", metavar="VAE", help="Put this VAE into the new file.")] = "",
    precision: _Precision = FormatFlag.fp16,
) -> None:
    """Mix two or three checkpoints into a new one; the recipe is kept in its metadata."""
    from webui.engine.tools.merging import METHODS, Recipe
    from webui.engine.tools.merging import merge as merged

    paths = folders.paths()
    catalog = Catalog(paths)
    try:
        chosen = METHODS[list(MethodFlag).index(method)]
        recipe = Recipe(chosen, alpha, precision.value)
        recipe.check(bool(c))
        target = _target(output, paths)
        first = _checkpoint(catalog, a)
        done = merged(
            target,
            recipe,
            _source(catalog, paths, first),
            _source(catalog, paths, _checkpoint(catalog, b)),
            _source(catalog, paths, _checkpoint(catalog, c)) if c else None,
            _source(catalog, paths, catalog.find_vae(vae)) if vae else None,
            progress=_report,
        )
        _copy_configuration(first.path, target)
    finally:
        catalog.close()
    for note in done.notes:
        _say(note)
    _say(f"{done.mixed} tensors were mixed, {done.only_in_a} are {first.name}'s own.")
    _done(done.written)


@models.command()
@expanded()
def convert(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A .ckpt, .pt or .bin file: a checkpoint's name, or a path.")
    ],
    folders: Folders,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="NAME", help="The new file (NAME.safetensors).")
    ] = "",
    precision: _Precision = FormatFlag.keep,
) -> None:
    """Read a pickle-based file in a process of its own, within limits, and write it as .safetensors."""
    paths = folders.paths()
    catalog = Catalog(paths)
    try:
        source = _pickle(catalog, model)
    finally:
        catalog.close()
    from webui.engine.tools.rewriting import check_target
    from webui.engine.tools.rewriting import convert as converted

    target = _target(output, paths) if output else source.with_suffix(".safetensors")
    check_target(target)
    done = converted(_opened(source, paths), target, precision=precision.value, progress=_report)
    _copy_configuration(source, target)
    _done(done)


@models.command()
@expanded()
def prune(
    model: _Name,
    folders: Folders,
    output: _Output,
    precision: _Precision = FormatFlag.fp16,
    ema: Annotated[bool, typer.Option("--ema", help="Keep the averaged weights (EMA) instead of the trained.")] = False,
) -> None:
    """Leave out what no picture needs (averages, the state of training), in smaller numbers."""
    from webui.engine.tools.rewriting import check_target
    from webui.engine.tools.rewriting import prune as pruned

    paths = folders.paths()
    catalog = Catalog(paths)
    try:
        target = _target(output, paths)
        check_target(target)
        file = _checkpoint(catalog, model)
        done = pruned(_opened(file.path, paths), target, precision=precision.value, use_ema=ema, progress=_report)
        _copy_configuration(file.path, target)
    finally:
        catalog.close()
    _say(f"{done.left_out} of {done.tensors + done.left_out} tensors were left out.")
    _done(done)


def _checkpoint(catalog: Catalog, name: str) -> ModelFile:
    """Raises `ModelNotFound`, or `UnsupportedModel` for a folder."""
    file = catalog.find_checkpoint(name)
    if file.is_folder:
        raise UnsupportedModel(f'"{file.name}" is a diffusers folder.', "Merging and pruning take single files.")
    return file


def _pickle(catalog: Catalog, name: str) -> Path:
    """The file to convert: a checkpoint of that name, else a file at that path. Raises `ModelNotFound`."""
    found = next((file for file in catalog.checkpoints if file.is_pickle and file.name == name), None)
    if found is not None:
        return found.path
    path = Path(name).absolute()
    if not path.is_file():
        raise ModelNotFound(f'There is no file "{name}".', "Give a .ckpt, .pt or .bin file.")
    return path


def _source(catalog: Catalog, paths: Paths, file: ModelFile) -> Source:
    from webui.engine.tools.merging import Source

    return Source(_opened(file.path, paths), file.name, catalog.sha256(file))


def _opened(path: Path, paths: Paths) -> Weights:
    """Who names a file on the command line wants it opened; a pickle still goes through the allow-list, apart."""
    from webui.engine.files.weights import open_weights

    return open_weights(path, allow_pickle=True, cache_dir=paths.cache_dir)


def _target(output: str, paths: Paths) -> Path:
    """The new file's path. Raises `InvalidParams` for a name that leads out of the checkpoint folder."""
    name = output if output.lower().endswith(".safetensors") else f"{output}.safetensors"
    if Path(name).is_absolute():
        return Path(name)
    if not output.strip() or any(part in ("", "..") for part in Path(name).parts) or "\\" in name:
        raise InvalidParams(f'"{output[:80]}" is no name for a new file.', "Give a name such as mixed or anime/mixed.")
    return paths.new_checkpoints / name


def _copy_configuration(source: Path, target: Path) -> None:
    """A NAME.yaml beside the first model describes the new one, too."""
    beside = source.with_suffix(".yaml")
    copy = target.with_suffix(".yaml")
    if beside.is_file() and not copy.exists():
        write_new(copy, beside.read_bytes())


def _report(done: int, total: int) -> None:
    if done % REPORT_EVERY == 0 or done == total:
        _say(f"{done} of {total} tensors")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _done(written: Written) -> None:
    _say(f"Written: {size(written.bytes)}.")
    print(written.path)
