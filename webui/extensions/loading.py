"""Running an extension's code: the one place where Python files that are not the product's own are loaded.

An extension is the package `latent_extensions.NAME` (dashes become underscores), so its modules can import each other
with relative imports. Only the module of the wanted side is loaded, and what that imports.
"""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Literal

from webui.extensions.manifest import BadExtension, Manifest

Side = Literal["engine", "front"]
NAMESPACE = "latent_extensions"


def load_side(folder: Path, manifest: Manifest, side: Side) -> ModuleType | None:
    """The extension's module for this process; None when it has none. Raises `BadExtension` for whatever goes wrong."""
    package = f"{NAMESPACE}.{manifest.name.replace('-', '_')}"
    path = folder / f"{side}.py"
    if not path.is_file():
        return None
    _make_package(NAMESPACE, None)
    _make_package(package, folder)
    name = f"{package}.{side}"
    spec = util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadExtension(f"{path.name} is not a Python file.")
    module = util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise BadExtension(f"{path.name} does not load: {type(error).__name__}: {error}.") from error
    return module


def _make_package(name: str, folder: Path | None) -> None:
    """A package whose modules are the files of `folder`. One that was loaded from another folder before is replaced."""
    where = [] if folder is None else [str(folder)]
    known = sys.modules.get(name)
    if known is not None and list(getattr(known, "__path__", ())) == where:
        return
    for loaded in [other for other in sys.modules if folder is not None and other.startswith(f"{name}.")]:
        del sys.modules[loaded]
    module = ModuleType(name)
    module.__path__ = where
    sys.modules[name] = module
