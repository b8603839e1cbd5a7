"""`FrontExtensions`: what the server, the page and the routes need to know of extensions, as they are now.

Switching one on or off is a change of the settings: the front takes it over at once, and the engine worker is replaced
when it is idle. Tabs, routes and commands that an extension adds to the program itself come with the next start; when
it is switched off they answer as if they were not there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from webui.errors import NotFound, near_matches
from webui.events import Event, Extensions
from webui.extensions.discovery import Found, disabled_names
from webui.extensions.door import panels_of
from webui.extensions.host import Host
from webui.extensions.manifest import Panel, folder_hash
from webui.extensions.presets import Preset
from webui.extensions.start import start
from webui.extensions.uses import Uses, remember, uses_of
from webui.paths import Paths
from webui.settings import Settings, SettingsStore


class FrontExtensions:
    """The extensions of the front. Any thread may ask."""

    def __init__(
        self, paths: Paths, store: SettingsStore, changed: Callable[[Settings], None] = lambda _: None
    ) -> None:
        self._paths = paths
        self._store = store
        self._changed = changed
        self._lock = threading.Lock()
        self._worker: dict[str, Any] = {}
        self._written: Uses = {}
        self._found, self._host = start(paths, store.current, "front")

    def use(self, changed: Callable[[Settings], None]) -> None:
        """Call this after each switch: the job service takes the settings over, and is made later than this."""
        self._changed = changed

    @property
    def host(self) -> Host:
        """The extensions that are on."""
        return self._host

    def panels(self) -> dict[str, Panel]:
        """The panels that are on, by extension."""
        return panels_of(self._host.manifests)

    def is_on(self, name: str) -> bool:
        return name in self._host.manifests and not self._host.is_off(name)

    def heard(self, event: Event) -> None:
        """Take over what the worker says of its extensions."""
        if isinstance(event, Extensions):
            self._worker = event.report
            uses = uses_of(self._sides())
            if uses != self._written:
                self._written = uses
                remember(self._paths, uses)

    def switch(self, name: str, on: bool) -> None:
        """Switch an extension on or off, for good. Raises `NotFound`, and `SettingsError` when it cannot be saved."""
        with self._lock:
            names = [one.name for one in self._found]
            if name not in names:
                raise NotFound(f'There is no extension "{name[:60]}".', near_matches(name, names))
            off = disabled_names(self._store.current) - {name} | (set() if on else {name})
            settings = self._store.change({"extensions.disabled": ", ".join(sorted(off))})
            self._found, self._host = start(self._paths, settings, "front")
            self._worker = {}
        self._changed(settings)

    def listing(self) -> list[dict[str, Any]]:
        """Every extension as plain data, for the list that people see."""
        sides = self._sides()
        uses = uses_of(sides)
        return [_as_dict(one, sides, uses.get(one.name, [])) for one in self._found]

    def _sides(self) -> dict[str, dict[str, Any]]:
        return {"front": self._host.report(), "engine": self._worker}

    def foreign_text(self, text: str, chunks: Mapping[str, str]) -> str | None:
        """The parameters text that a metadata reader makes of a picture's texts, or None."""
        return next((str(answer) for _, answer in self._host.ask("metadata_reader", text=text, chunks=chunks)), None)

    def presets(self, user: str) -> list[Preset]:
        """The presets that all extensions offer to a user."""
        found: list[Preset] = []
        for name, presets in self._host.ask("presets", user=user):
            # a generator works only now, and what it raises is a failure of the hook as well
            listed = self._host.guard(name, "presets", lambda offered=presets: list(offered))  # type: ignore[misc]
            found += [preset for preset in listed or () if isinstance(preset, Preset)]
        return found


def _as_dict(one: Found, sides: dict[str, dict[str, Any]], uses: list[dict[str, Any]]) -> dict[str, Any]:
    manifest = one.manifest
    problems = [one.problem, *(str(side.get("problems", {}).get(one.name, "")) for side in sides.values())]
    off = [str(side.get("off", {}).get(one.name, "")) for side in sides.values()]
    return {
        "name": one.name,
        "title": manifest.title if manifest else one.name,
        "version": manifest.version if manifest else "",
        "summary": manifest.summary if manifest else "",
        "author": manifest.author if manifest else "",
        "licence": manifest.licence if manifest else "",
        "asks": list(manifest.asks) if manifest else [],
        "requires": list(manifest.requires) if manifest else [],
        "hash": folder_hash(one.folder)[:12] if one.folder.is_dir() else "",
        "source": one.source,
        "enabled": one.enabled,
        "problem": " ".join(dict.fromkeys(text for text in (*problems, *off) if text)),
        "uses": uses,
    }
