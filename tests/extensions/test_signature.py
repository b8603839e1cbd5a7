"""The promise to extensions: a change of a hook fails here until the version of the API is raised.

`webui/extensions/signature.json` has one entry a version, and entries are never changed.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import webui.extensions as door
from webui.extensions import API_VERSION
from webui.extensions.specs import EngineHooks, FrontHooks
from webui.sampling import GuidanceStep

SIGNATURE = Path(door.__file__).with_name("signature.json")


def promised() -> dict[str, Any]:
    """All that an extension may rely on, as text."""
    hooks = {
        side.__name__: {
            name: str(inspect.signature(hook)) for name, hook in vars(side).items() if not name.startswith("_")
        }
        for side in (EngineHooks, FrontHooks)
    }
    types = {
        kind.__name__: [field.name for field in dataclasses.fields(kind)]
        for kind in (door.Cell, door.CellResult, door.Draft, door.Expansion, door.Sheet, door.Preset, door.Tab)
    }
    types |= {"GuidanceStep": [field.name for field in dataclasses.fields(GuidanceStep)]}
    types |= {kind.__name__: list(kind.model_fields) for kind in (door.Manifest, door.Panel, door.PanelField)}
    types["Desk"] = sorted(name for name in vars(door.Desk) if not name.startswith("_"))
    return {"hooks": hooks, "types": types, "names": sorted(door.__all__)}


def test_the_hooks_are_those_that_this_version_of_the_api_promises() -> None:
    kept = json.loads(SIGNATURE.read_text(encoding="utf-8"))
    assert promised() == kept[str(API_VERSION)], (
        "The door for extensions changed. Raise API_VERSION in webui/extensions/specs.py and add an entry to "
        "signature.json; the entries before stay as they are."
    )


def test_every_version_up_to_this_one_is_on_record() -> None:
    assert sorted(map(int, json.loads(SIGNATURE.read_text(encoding="utf-8")))) == list(range(1, API_VERSION + 1))
