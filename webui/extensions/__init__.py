"""The door for extensions: a small, versioned, typed set of hooks, and the host that loads and asks them.

An extension imports from here, from `webui.params`, `webui.events`, `webui.errors`, and on its engine side from
`webui.sampling`. See docs/extensions.md for how to write one; `signature.json` beside this file is what is promised.
"""

from webui.extensions.expansion import Cell, CellResult, Cells, Desk, Draft, Expansion, Sheet
from webui.extensions.grids import Grid, Square
from webui.extensions.host import Host
from webui.extensions.manifest import BadExtension, Manifest, Panel, PanelField
from webui.extensions.presets import Preset
from webui.extensions.specs import API_VERSION, hookimpl
from webui.extensions.tabs import Tab

__all__ = [
    "API_VERSION",
    "BadExtension",
    "Cell",
    "CellResult",
    "Cells",
    "Desk",
    "Draft",
    "Expansion",
    "Grid",
    "Host",
    "Manifest",
    "Panel",
    "PanelField",
    "Preset",
    "Sheet",
    "Square",
    "Tab",
    "hookimpl",
]
