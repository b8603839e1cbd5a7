"""Combinations of packages that are known to fail: told at the start and by `doctor`, before they cost an hour."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata

_PIP = f"{sys.executable} -m pip"
WATCHED = (
    "torch",
    "torchvision",
    "xformers",
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
    "pynvml",
    "celery",
    "python-dateutil",
)


def installed_versions(names: Iterable[str] = WATCHED) -> dict[str, str]:
    """The versions of those of the packages that are installed here."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def bad_combinations(versions: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
    """A sentence, with what to do, for each combination that is known to fail.

    Whether a torchvision works is not seen from its version; `webui.launcher.check_torchvision` tries it.
    """
    found = []
    torch, xformers = versions.get("torch"), versions.get("xformers")
    if torch and release(torch) >= (2, 14):
        found.append(
            f"torch {torch} is newer than what was tried (below 2.14) and asks for a CUDA that most drivers do not "
            f'have yet. Install what requirements.txt says: {_PIP} install "torch>=2.10,<2.14"'
        )
    if torch and xformers and release(torch) >= (2, 10) and release(xformers) < (0, 0, 35):
        found.append(
            f"xformers {xformers} was not built for torch {torch}. Update it ({_PIP} install -U xformers) or remove it."
        )
    opencv = sorted(name for name in versions if name.startswith("opencv-"))
    if len(opencv) > 1:
        found.append(
            f"{' and '.join(opencv)} overwrite each other's files. Remove all of them and install "
            "opencv-python-headless alone, if something needs it."
        )
    if "pynvml" in versions:
        found.append(f"pynvml is a deprecated copy of nvidia-ml-py, and hides it. Remove it: {_PIP} uninstall pynvml")
    if "celery" in versions and release(versions.get("python-dateutil", "")) < (3,):
        found.append(
            f"celery {versions['celery']} holds python-dateutil at an old version that others here have outgrown. "
            "Give celery an environment of its own."
        )
    if environment.get("HF_HUB_OFFLINE") != "1":
        found.append(
            "HF_HUB_OFFLINE is not 1, so a library might ask the network for a model. Start with app.py, which sets it."
        )
    return found


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version: (2, 13, 0) for "2.13.0+cpu", () for none."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
