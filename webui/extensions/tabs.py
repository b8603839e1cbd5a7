"""A tab with a page of the extension's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tab:
    """`build()` gives Gradio Blocks of the extension's own. They are mounted apart from the page and framed in a tab.

    So the extension never holds a component of ours, and nothing it does to its own page can break the other tabs.
    """

    title: str
    build: Callable[[], Any]
