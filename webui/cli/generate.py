"""`app.py generate "a red apple"`: the engine in this process, a progress bar, and at last the saved files.

Every field of `GenerationParams` is an option, derived from it, so that nothing a picture depends on is out of reach.
Standard output holds the paths of the saved files, one a line, and nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from webui import events
from webui.cli import batch, groups
from webui.cli.flags import Folders, Machine, expanded, load_settings, plain_type
from webui.cli.interrupting import interrupting
from webui.engine.control import Control
from webui.errors import InvalidParams
from webui.extensions import Host, Panel
from webui.extensions.door import panels_of
from webui.extensions.scripts import values_of_options
from webui.extensions.start import start
from webui.inputs import InputStore
from webui.params import GenerationParams, make_params
from webui.paths import Paths
from webui.settings import Settings

_PICTURE, _SAMPLING, _RARE = "Picture", "Sampling", "Rarely needed"

# Flag, panel and help of the fields that people use; every other field has its own name and the last panel.
_KNOWN: dict[str, tuple[tuple[str, ...], str, str]] = {
    "negative_prompt": (("--negative-prompt", "-n"), _PICTURE, "What should not be in the picture."),
    "checkpoint": (("--checkpoint", "-m"), _PICTURE, "Title, name or hash of the checkpoint (see `app.py models`)."),
    "vae": (("--vae",), _PICTURE, 'A VAE\'s file name, "Automatic", or "None" for the one in the checkpoint.'),
    "width": (("--width", "-W"), _PICTURE, "Pixels, a multiple of 8; the checkpoint's own size if not given."),
    "height": (("--height", "-H"), _PICTURE, "Pixels, a multiple of 8."),
    "batch_size": (("--batch-size",), _PICTURE, "Pictures drawn together: faster on a GPU, more memory."),
    "batch_count": (("--batch-count",), _PICTURE, "Batches, one after the other."),
    "seed": (("--seed", "-s"), _PICTURE, "Equal seeds give equal pictures; -1 draws one."),
    "clip_skip": (("--clip-skip",), _PICTURE, "Take the prompt's meaning from this many layers before the last."),
    "image_format": (("--image-format",), _PICTURE, "Format of the saved file."),
    "image_quality": (("--image-quality",), _PICTURE, "Quality of JPEG, WEBP and AVIF, 1 to 100."),
    "sampler": (("--sampler",), _SAMPLING, "How noise becomes a picture: Euler a, DPM++ 2M, DDIM, ..."),
    "schedule": (("--schedule",), _SAMPLING, "Noise levels of the steps: Automatic, Karras, Exponential, ..."),
    "steps": (("--steps",), _SAMPLING, "Denoising steps; 20 to 30 are usual."),
    "cfg_scale": (("--cfg-scale", "--cfg"), _SAMPLING, "How strongly the prompt leads; 5 to 9 are usual."),
    "cfg_rescale": (("--cfg-rescale",), _SAMPLING, "Against washed-out colours of v-prediction models, 0 to 1."),
    "eta": (("--eta",), _SAMPLING, "Noise added in each step; the sampler's own if not given."),
    "variation_seed": (("--variation-seed",), _SAMPLING, "The seed that a variation goes towards."),
    "variation_strength": (("--variation-strength",), _SAMPLING, "How far it goes, 0 to 1."),
    "rng": (("--rng",), _SAMPLING, "Where noise is drawn: CPU is the same on every machine."),
    "vae_tiling": (
        ("--vae-tiling",),
        _RARE,
        "Whether the VAE works in tiles: Automatic (as memory needs), On or Off.",
    ),
    "read_as_words": (("--read-as-words",), _RARE, "Embeddings whose names are plain words here, with commas."),
    "extensions": (("--extension",), _RARE, "A value of an extension, NAME.FIELD=VALUE; may be given several times."),
    "sigmas": (("--sigmas",), _RARE, "The noise levels themselves, as numbers with commas between them."),
}


def _option(name: str, kind: Any, default: Any) -> Any:
    flag = "--" + name.replace(groups.BETWEEN, "-").replace("_", "-")
    flags, panel, help_text = _KNOWN.get(name) or groups.KNOWN.get(name, ((flag,), _RARE, ""))
    kind = list[str] if name == "extensions" else plain_type(kind)
    if default not in (None, "", ()) and kind is not bool:
        help_text = f"{help_text} Default: {default}.".strip()
    if kind is bool:
        flags = (f"{flag}/--no-{flag[2:]}",)
    return Annotated[kind | None, typer.Option(*flags, help=help_text, rich_help_panel=panel, show_default=False)]


_PLAIN = {
    name: (field.annotation, field.default)
    for name, field in GenerationParams.model_fields.items()
    if name not in (*groups.GROUPS, *groups.ELSEWHERE)
}
_FIELDS = {**{name: _PLAIN[name] for name in _KNOWN}, **groups.flat_fields(), **_PLAIN}
PictureOptions = dataclasses.make_dataclass(
    "PictureOptions",
    [
        (name, _option(name, kind, default), None)
        for name, (kind, default) in _FIELDS.items()
        if name not in ("prompt", "save")  # a picture that is not saved would be lost here
    ],
    frozen=True,
)


@expanded(picture=PictureOptions)
def generate(
    prompt: Annotated[str, typer.Argument(help='What to draw; "-" reads it from standard input.')],
    picture: Any,
    folders: Folders,
    machine: Machine,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", file_okay=False, help="Save below this folder.")
    ] = None,
    init_folder: Annotated[
        list[Path] | None,
        typer.Option(
            "--init-folder", metavar="DIR", help="img2img of every picture in this folder, one after the other."
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="With --init-folder: also what was made before.")] = False,
) -> None:
    """Make pictures here and now, and print the paths of the saved files."""
    text = sys.stdin.read().strip() if prompt == "-" else prompt
    paths = dataclasses.replace(folders, outputs_dir=output or folders.outputs_dir).paths()
    settings, problems = load_settings(paths, machine.overrides())
    _, host = start(paths, settings, "engine")  # first: they may bring samplers
    paths.make_folders()
    store, panels = InputStore(paths.outputs), panels_of(host.manifests)
    options = groups.stored(dataclasses.asdict(picture), store)
    told = (*problems, *host.problems.values())
    if init_folder:
        files = batch.pictures_in(init_folder)

        def from_file(file: Path) -> GenerationParams:
            return request(text, {**options, "init__image": groups.keep(str(file), store)}, settings, panels)

        items = [batch.Item(file, functools.partial(from_file, file)) for file in files]
        saved, code = batch.run_all(items, len(items), settings, paths, told, host, again=again)
    else:
        saved, code = run(request(text, options, settings, panels), settings, paths, told, host)
    for path in saved:
        print(path)
    raise typer.Exit(code)


def request(
    prompt: str, options: dict[str, Any], settings: Settings, panels: Mapping[str, Panel] = MappingProxyType({})
) -> GenerationParams:
    """The params of the given options; what was not given is the settings' or the default. Raises `InvalidParams`."""
    given = groups.nested({name: value for name, value in options.items() if value is not None})
    if given.get("extensions"):
        given["extensions"] = values_of_options(panels, given["extensions"])
    if isinstance(given.get("sigmas"), str):
        try:
            given["sigmas"] = tuple(float(part) for part in given["sigmas"].split(","))
        except ValueError:
            raise InvalidParams("--sigmas is not a list of numbers.", "Write them like this: 14.6,8,3,1,0") from None
    saving = {"image_format": settings.saving.format.value, "image_quality": settings.saving.quality}
    return make_params({"prompt": prompt, **saving, **given})


def run(
    params: GenerationParams,
    settings: Settings,
    paths: Paths,
    problems: Iterable[str] = (),
    extensions: Host | None = None,
) -> tuple[list[str], int]:
    """Generate in this process, telling everything on standard error; the saved paths and the exit code."""
    from webui.catalog import Catalog
    from webui.console import Console
    from webui.engine import Engine
    from webui.history import Recorder

    control = Control()
    saved, code = [], 0
    with (
        Console(paths.log_dir, stderr=True).running() as console,
        interrupting(control, console.warn),
        closing(Recorder(paths)) as recorder,
    ):
        for problem in problems:
            console.warn(problem)
        catalog = Catalog(paths)
        resolved = catalog.resolve(params, settings)
        engine = Engine(settings, paths, catalog, recorder.saving, extensions)
        for event in recorder.following(engine.generate(resolved, control)):
            console.show(event)
            if isinstance(event, events.Image):
                saved += [event.path] if event.path else []
                code = code or int(bool(event.error))
            elif isinstance(event, events.Failed):
                code = 1
            elif isinstance(event, events.Finished) and event.interrupted:
                code = code or 130
    return saved, code
