"""Writing small extensions for tests."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path

from webui.extensions import Host
from webui.extensions.loading import Side
from webui.extensions.specs import PICTURE_HOOKS
from webui.extensions.start import start
from webui.paths import Paths
from webui.settings import Settings, changed

PANEL = """
[panel]
title = "{title}"
kind = "{kind}"
[[panel.fields]]
key = "amount"
label = "Amount"
kind = "float"
default = 1.0
low = -100
high = 100
"""


def write_extension(root: Path, name: str, code: str, *, asks: str = "", side: Side = "engine", more: str = "") -> Path:
    """`root/extensions/NAME` with one module. `asks` are the hooks, with spaces; those on pictures bring a panel."""
    folder = root / "extensions" / name
    folder.mkdir(parents=True)
    hooks = asks.split()
    listed = ", ".join(f'"{hook}"' for hook in hooks)
    text = f'name = "{name}"\ntitle = "{name.title()}"\nversion = "1.0"\napi = 1\nasks = [{listed}]\n{more}\n'
    if PICTURE_HOOKS & set(hooks):
        text += PANEL.format(title=name.title(), kind="script" if "expand" in hooks else "always")
    (folder / "extension.toml").write_text(text, encoding="utf-8")
    (folder / f"{side}.py").write_text(textwrap.dedent(code), encoding="utf-8")
    return folder


def host_of(root: Path, side: Side = "engine", **settings: object) -> Host:
    """The host of the extensions below a data folder, without those that ship."""
    paths = replace(Paths.under(root), extensions=(root / "extensions",))
    values = {key.replace("__", "."): value for key, value in settings.items()}
    return start(paths, changed(Settings(), values), side)[1]
