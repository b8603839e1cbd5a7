"""Bringing the extensions of one process up: find them, make their names known, load their side."""

from __future__ import annotations

from webui.extensions.discovery import Found, discover, with_names_registered
from webui.extensions.host import Host
from webui.extensions.loading import Side
from webui.paths import Paths
from webui.settings import Settings


def start(paths: Paths, settings: Settings, side: Side) -> tuple[tuple[Found, ...], Host]:
    """All extensions that are here, and the host of those that are on. Never raises for a fault of an extension."""
    found = with_names_registered(discover(paths, settings))
    return found, Host(found, side, paths.extension_data)
