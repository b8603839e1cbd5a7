"""Values of extensions at the door: a job that is queued holds complete values of extensions that are here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from webui.errors import InvalidParams, near_matches
from webui.extensions.manifest import Manifest, Panel
from webui.params import GenerationParams
from webui.settings import Settings

SEED_DRAWN = "seed_drawn"


class Resolver(Protocol):
    """What the job service needs of the catalog."""

    def resolve(self, params: GenerationParams, settings: Settings) -> GenerationParams: ...

    def default_checkpoint(self, preferred: str) -> Any: ...


def panels_of(manifests: Mapping[str, Manifest]) -> dict[str, Panel]:
    """The panels by their extension's name."""
    return {name: manifest.panel for name, manifest in manifests.items() if manifest.panel is not None}


def checked(params: GenerationParams, panels: Mapping[str, Panel]) -> GenerationParams:
    """The params with complete values. Raises `InvalidParams` for values of extensions that are not here or on.

    At most one of them may be a script: two would each want the whole job. A panel with a field `seed_drawn` is told
    by it that the seed was left open: once the job is queued, it is a number like any other.
    """
    values = params.extension_values
    if not values:
        return params
    complete: dict[str, Any] = {}
    scripts = [name for name in values if name in panels and panels[name].kind == "script"]
    if len(scripts) > 1:
        raise InvalidParams(
            f"{panels[scripts[0]].title} and {panels[scripts[1]].title} cannot run in one job.", "Choose one script."
        )
    for name, given in values.items():
        if name not in panels:
            raise InvalidParams(
                f'There is no extension "{name}" with a panel here, or it is switched off.',
                near_matches(name, panels) or "Switch it on, or leave its values out.",
            )
        try:
            complete[name] = panels[name].read(dict(given))
        except ValueError as error:
            raise InvalidParams(f"{panels[name].title}: {error}.", "Correct the value and try again.") from None
        if params.seed == -1 and SEED_DRAWN in complete[name]:
            complete[name][SEED_DRAWN] = True
    return params.changed(extensions=complete)


class CheckedResolver:
    """A resolver that also looks at what extensions are asked for. `panels()` are those that are on now."""

    def __init__(self, inner: Resolver, panels: Callable[[], Mapping[str, Panel]]) -> None:
        self._inner = inner
        self._panels = panels
        self.default_checkpoint = inner.default_checkpoint

    def resolve(self, params: GenerationParams, settings: Settings) -> GenerationParams:
        """See `webui.catalog.Catalog.resolve`. Raises `InvalidParams`, too."""
        return self._inner.resolve(checked(params, self._panels()), settings)
