"""The hooks: what an extension may do, and when it is asked. Version 1 of the extension API.

An extension implements any of them, as plain functions marked with `hookimpl`, in its module `engine` (loaded in the
engine worker alone) or `front` (loaded in the front alone). It may leave out parameters that it does not need. All the
picture hooks get `values`: the fields of the extension's own panel, complete and within their bounds. They are asked
only for a job whose params hold these values; what they do has to follow from the params, so that a replay is exact.

A change of a signature here is a change of `API_VERSION`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from webui.extensions.expansion import Desk, Expansion
    from webui.extensions.presets import Preset
    from webui.extensions.tabs import Tab
    from webui.params import GenerationParams
    from webui.provenance import SavedPicture

API_VERSION = 1
PROJECT = "latent_webui"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Values = Mapping[str, Any]


class EngineHooks:
    """Asked in the engine worker. Objects of torch are typed `Any` here: the front reads this file, too."""

    @hookspec
    def params(self, request: GenerationParams, values: Values) -> GenerationParams | None:
        """Rewrite a job before anything of it starts; None leaves it as it is."""

    @hookspec(firstresult=True)
    def expand(self, request: GenerationParams, values: Values, desk: Desk) -> Expansion | None:
        """Make one job into many: see `webui.extensions.expansion`. `request` no longer holds these values.

        A `WebUIError` that it raises is the job's: values that make no sense are refused so.
        """

    @hookspec
    def preprocess(self, picture: Image, request: GenerationParams, values: Values) -> Image | None:
        """Replace the picture that an img2img job starts from (PIL, upright, not yet resized); None leaves it."""

    @hookspec
    def conditioning(self, conditioning: Any, request: GenerationParams, values: Values) -> Any:
        """Replace what a picture is conditioned on (`webui.engine.conditioning.text.Conditioning`); None leaves it."""

    @hookspec
    def step(self, request: GenerationParams, values: Values) -> Any:
        """Look at or change every call of the denoiser of a batch: gives a `webui.sampling.GuidanceHook`, or None.

        Its `before(step)` may replace `step.x` (B, C, H, W), `step.cfg_scale` and `step.with_uncond`; `after(step)` may
        replace `step.denoised`, from `step.conds` and `step.uncond`. It is made anew for every batch.
        """

    @hookspec
    def decoded(self, pixels: Any, index: int, request: GenerationParams, values: Values) -> Any:
        """Replace the pixels of picture `index` of the job, (H, W, 3) uint8 in numpy; None leaves them."""

    @hookspec
    def saved(self, picture: SavedPicture) -> None:
        """A picture was saved. Asked for every picture of every job."""

    @hookspec
    def samplers(self) -> Mapping[str, Callable[..., Any]] | None:
        """The functions of the samplers that the manifest names: `f(model, x, sigmas, report, **options) -> x`.

        See `webui.sampling.contract` for the shapes.
        """

    @hookspec
    def schedules(self) -> Mapping[str, Callable[[int, float, float], Sequence[float]]] | None:
        """The functions of the schedules that the manifest names: `f(steps, sigma_min, sigma_max) -> sigmas`.

        `steps` noise levels from the highest to the lowest, above 0; the final 0 is added.
        """

    @hookspec
    def upscalers(self) -> Mapping[str, Callable[[Image, tuple[int, int]], Image]] | None:
        """The functions of the upscalers that the manifest names: `f(picture, (width, height)) -> picture`.

        RGB in PIL. A result of another size is brought to the one that is wanted by Lanczos.
        """


class FrontHooks:
    """Asked in the front, which never imports torch.

    `folder` is the extension's own, for what it has to keep; it exists. Write there with `webui.paths.write_atomic`.
    """

    @hookspec
    def tab(self, folder: Path) -> Tab | None:
        """A tab of the extension's own with Blocks of its own: see `webui.extensions.tabs`."""

    @hookspec
    def routes(self, folder: Path) -> Any:
        """A `fastapi.APIRouter`; its routes are found below `/extensions/NAME/`, behind the same guards as ours."""

    @hookspec
    def metadata_reader(self, text: str, chunks: Mapping[str, str]) -> str | None:
        """The parameters text that a picture's foreign metadata stands for, or None for what it does not know."""

    @hookspec
    def commands(self, folder: Path) -> Mapping[str, Callable[..., Any]] | None:
        """Functions for the command line, by name, with parameters as typer reads them: `app.py NAME COMMAND`."""

    @hookspec
    def presets(self, folder: Path, user: str) -> Iterable[Preset] | None:
        """Named sets of fields that the form offers to a user: see `webui.extensions.presets`."""


def _hooks(specs: type) -> frozenset[str]:
    return frozenset(name for name in vars(specs) if not name.startswith("_"))


ENGINE_HOOKS = _hooks(EngineHooks)
FRONT_HOOKS = _hooks(FrontHooks)
PICTURE_HOOKS = frozenset({"params", "expand", "preprocess", "conditioning", "step", "decoded"})
"""The hooks on which a picture depends: they get `values`, and need a panel."""
