"""The page's own pieces as HTML files, one a piece. Fixed text: nothing from users or files ever goes in here."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from webui import __version__

FOLDER = Path(__file__).resolve().parent
STATIC = FOLDER.parent / "static"


@lru_cache(maxsize=1)
def static_version() -> str:
    """Changes with any of the static files, so that a browser never mixes two versions."""
    digest = hashlib.sha256()
    for file in sorted(STATIC.iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def markup(name: str) -> str:
    """The piece of that name, for the page's script to take over."""
    html = (FOLDER / f"{name}.html").read_text(encoding="utf-8")
    return html.replace("ui/icons.svg#", f"ui/icons.svg?v={static_version()}#").replace("[[version]]", __version__)


def icon(name: str) -> str:
    """An icon of the sprite; decorative, so the button around it needs a label of its own."""
    return f'<svg class="icon" aria-hidden="true"><use href="ui/icons.svg?v={static_version()}#{name}"></use></svg>'


def icon_button(action: str, icon_name: str, label: str) -> str:
    """A small button that does one of the form's actions (form-actions.js)."""
    return (
        f'<button type="button" class="quiet icon-only" data-form="{action}" aria-label="{label}" title="{label}">'
        f"{icon(icon_name)}</button>"
    )
