"""What each hook took in the running server, kept in a file so that the command can tell it, too."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from webui.paths import Paths, write_atomic

Uses: TypeAlias = dict[str, list[dict[str, Any]]]
"""By extension: a row for each hook that was called, with its side, hook, calls, seconds and failures."""

_log = logging.getLogger(__name__)


def uses_of(sides: Mapping[str, Mapping[str, Any]]) -> Uses:
    """The rows of the reports of some sides (`Host.report`), by the sides' names."""
    rows: Uses = {}
    for side, report in sides.items():
        for name, hooks in report.get("uses", {}).items():
            for hook, numbers in hooks.items():
                rows.setdefault(name, []).append({"side": side, "hook": hook, **numbers})
    return rows


def remember(paths: Paths, uses: Uses) -> None:
    """Keep them for the command. A disk that is full costs this list and nothing else."""
    try:
        write_atomic(_file(paths), json.dumps(uses).encode())
    except OSError as error:
        _log.warning("What extensions took could not be written down: %s", error)


def remembered(paths: Paths) -> Uses:
    """What the server that ran last wrote down; nothing when there was none."""
    try:
        uses = json.loads(_file(paths).read_bytes())
    except (OSError, ValueError):
        return {}
    return uses if isinstance(uses, dict) else {}


def _file(paths: Paths) -> Path:
    return paths.cache_dir / "extension-uses.json"
