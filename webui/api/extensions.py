"""Routes of extensions: the list, switching on and off, the panels of the form, and presets.

Nothing is ever installed or updated here: that asks in the terminal (`app.py extension add`).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response

from webui.api.common import ERRORS, NO_STORE
from webui.api.responses import ExtensionList, ExtensionView, PanelList, PresetList, PresetView
from webui.api.viewer import AdminOnly, CurrentViewer
from webui.names import SAMPLER_NAMES, SCHEDULE_NAMES

if TYPE_CHECKING:
    from webui.catalog import Catalog
    from webui.extensions.front import FrontExtensions


def extension_routes(extensions: FrontExtensions, catalog: Catalog) -> APIRouter:
    """/extensions, /panels and /presets."""
    router = APIRouter(tags=["extensions"], responses=ERRORS)

    @router.get("/extensions", response_model=ExtensionList)
    def list_extensions(response: Response) -> ExtensionList:
        """Every extension that is here: version, hash, hooks with their times, and why one is not used."""
        response.headers.update(NO_STORE)
        return ExtensionList(extensions=[ExtensionView(**one) for one in extensions.listing()])

    @router.post("/extensions/{name}/enable", response_model=ExtensionList, dependencies=[AdminOnly])
    def enable(name: str) -> ExtensionList:
        """Switch an extension on, for everybody."""
        return _switch(name, on=True)

    @router.post("/extensions/{name}/disable", response_model=ExtensionList, dependencies=[AdminOnly])
    def disable(name: str) -> ExtensionList:
        """Switch an extension off, for everybody."""
        return _switch(name, on=False)

    @router.get("/panels", response_model=PanelList)
    def panels(response: Response) -> PanelList:
        """The panels of the extensions that are on: what may stand in a request's `extensions`."""
        response.headers.update(NO_STORE)
        return PanelList(panels=panel_views(extensions, catalog))

    @router.get("/presets", response_model=PresetList)
    def presets(response: Response, viewer: CurrentViewer) -> PresetList:
        """Named sets of form fields."""
        response.headers.update(NO_STORE)
        return PresetList(presets=[PresetView(**asdict(preset)) for preset in extensions.presets(viewer.name)])

    def _switch(name: str, *, on: bool) -> ExtensionList:
        extensions.switch(name, on)
        return ExtensionList(extensions=[ExtensionView(**one) for one in extensions.listing()])

    return router


def panel_views(extensions: FrontExtensions, catalog: Catalog) -> list[dict[str, Any]]:
    """The panels as the page draws them, with the choices that only a running program knows."""
    sources = {
        "samplers": lambda: tuple(SAMPLER_NAMES),
        "schedules": lambda: tuple(SCHEDULE_NAMES),
        "checkpoints": lambda: tuple(m.name for m in catalog.checkpoints if m.runnable),
        "vaes": lambda: ("Automatic", "None", *(m.name for m in catalog.vaes if m.runnable)),
    }
    views = []
    for name, panel in extensions.panels().items():
        view = panel.model_dump(mode="json")
        for field, drawn in zip(panel.fields, view["fields"], strict=True):
            if field.choices_from is not None:
                drawn["choices"] = [*field.choices, *sources[field.choices_from]()]
        views.append({"name": name, **view})
    return views
