"""Gradio's own scripts and styles: which of them the page needs, known before Gradio is imported.

A browser learns of them in five rounds, each after the one before was read: the entry, the application, the list of
components, the components, their styles. Named in the page's <head>, all come at once; named in the start page, they
are there before the full page is. What cannot be read here costs nothing but that head start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

# The components of the page as Gradio's scripts name them. One that is missing here is only loaded later.
PAGE_COMPONENTS = (
    *("tabs", "tabitem", "row", "column", "form", "accordion", "html"),
    *("textbox", "number", "slider", "dropdown", "checkbox", "button"),
)

_ENTRY = re.compile(r"assets/(index-[\w-]+\.js)")
_LIST = re.compile(r"m\.f=\[([^\]]*)\]")
_IMPORT = re.compile(r"import\(`\./([^`]+)`\)[^_]{0,40}?__vite__mapDeps\(\[([\d,]*)\]")
_NAME = re.compile(r"[\w.-]+\.(?:js|css)")


@lru_cache(maxsize=1)
def asset_folder() -> Path | None:
    """Where Gradio keeps its scripts, without importing it; None where there is no Gradio."""
    spec = find_spec("gradio")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    folder = Path(places[0]) / "templates" / "frontend" / "assets" if places else None
    return folder if folder is not None and folder.is_dir() else None


@lru_cache(maxsize=4)
def needed_assets(components: tuple[str, ...] = PAGE_COMPONENTS) -> tuple[str, ...]:
    """The names of the files that a page of these components loads, in their order; () where that cannot be read."""
    folder = asset_folder()
    if folder is None:
        return ()
    try:
        entry = _ENTRY.search((folder.parent / "index.html").read_text(encoding="utf-8"))
        if entry is None:
            return ()
        names = [entry.group(1), *_imports(folder / entry.group(1)).get("", ())]
        for name in [name for name in names if name.startswith("Index-")]:
            later = _imports(folder / name)
            names += next((files for found, files in later.items() if found.startswith("Blocks-")), ())
        for name in [name for name in names if name.startswith("core-") and name.endswith(".js")]:
            names += _component_files(folder / name, components)
    except (OSError, UnicodeDecodeError, IndexError):
        return ()
    return tuple(name for name in dict.fromkeys(names) if _NAME.fullmatch(name) and (folder / name).is_file())


def _imports(script: Path) -> dict[str, list[str]]:
    """What a script imports later -> all the files which that takes; "" -> every file of its list."""
    text = script.read_text(encoding="utf-8")
    files = _files(text)
    found = {name: [files[int(i)] for i in numbers.split(",") if i] for name, numbers in _IMPORT.findall(text)}
    return {**found, "": files}


def _component_files(script: Path, components: Iterable[str]) -> list[str]:
    """The files of each component, by the table in the script of that name."""
    text = script.read_text(encoding="utf-8")
    files = _files(text)
    needed: list[str] = []
    for component in components:
        entry = re.search(rf"[{{,]{component}:\{{(?:[^{{}}]*?,)??component:(.{{0,200}}?)\]", text)
        match = _IMPORT.search(f"{entry.group(1)}]") if entry else None
        needed += [files[int(i)] for i in match.group(2).split(",") if i] if match else []
    return needed


def _files(text: str) -> list[str]:
    listed = _LIST.search(text)
    return [name.strip('"').removeprefix("./") for name in listed.group(1).split(",")] if listed else []


def preloads(prefix: str = "./assets/") -> str:
    """Links for a <head> that make the browser fetch these files at once."""
    return "".join(
        f'<link rel="modulepreload" crossorigin href="{prefix}{name}">'
        if name.endswith(".js")
        else f'<link rel="preload" as="style" crossorigin href="{prefix}{name}">'
        for name in needed_assets()
    )
