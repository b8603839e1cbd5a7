"""`app.py doctor`: everything a bug report needs, as plain text.

The engine is asked in a process of its own, so that a torch that crashes or hangs costs one section and not the report.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import typer
from packaging.requirements import Requirement

from webui import __version__
from webui import settings as stored
from webui.catalog import Catalog
from webui.cli.combinations import WATCHED, bad_combinations, installed_versions
from webui.cli.flags import Folders, Machine, expanded, load_settings
from webui.cli.models import listed, table
from webui.console import size
from webui.errors import WebUIError
from webui.install import InstallError
from webui.launcher import Home, check_torchvision
from webui.paths import REPO_ROOT, Paths
from webui.settings import Settings

CPU_BUILD = (
    "There is an NVIDIA card, and torch is the build for CPUs. Set the environment variable "
    "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cu130 (cu126 for cards before the RTX 20 series), delete the "
    "folder .venv and start app.py again."
)
ENGINE_SECONDS = 180.0  # a first import of torch from a slow disk takes a while
Section = tuple[str, list[str]]


@expanded()
def doctor(folders: Folders, machine: Machine) -> None:
    """Report on Python, torch, the device, attention, models and packages, to paste into a bug report."""
    paths = folders.paths()
    settings, problems = load_settings(paths, machine.overrides())
    text, healthy = report(settings, paths, problems)
    print(text)
    raise typer.Exit(0 if healthy else 1)


def report(settings: Settings, paths: Paths, problems: Iterable[str] = ()) -> tuple[str, bool]:
    """The report, with the home folder written as "~", and whether there is nothing to worry about."""
    device, device_fault = engine_section(settings, paths)
    versions, version_faults = packages()
    faults = [
        *problems,
        *device_fault,
        *version_faults,
        *bad_combinations(installed_versions(), os.environ),
        *torchvision_fault(),
    ]
    sections: list[Section] = [
        (f"Latent WebUI {__version__}{commit()}", [*machine_lines()]),
        ("Device", device),
        ("Models", model_lines(paths)),
        ("Folders", folder_lines(paths)),
        ("Settings that differ from the defaults", setting_lines(settings)),
        ("Packages", versions),
        ("To look at", faults or ["nothing"]),
    ]
    text = "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections)
    return homeless(text), not faults


def homeless(text: str) -> str:
    """The text with the home folder as "~" where a path begins with it. A root as home (a container's) says nothing."""
    try:
        home = Path.home()
    except RuntimeError:  # nobody knows it: no HOME, and a user without an entry
        return text
    if home == home.parent:
        return text
    return re.sub(rf"(?<![\w.-]){re.escape(str(home))}(?!\w|[.-]\w)", "~", text)


def machine_lines() -> Iterator[str]:
    """Python, the system, the processor's cores and the memory."""
    yield f"Python    {platform.python_version()} ({platform.python_implementation()}), {sys.executable}"
    yield f"System    {platform.platform()} {platform.machine()}, {_distribution()}".rstrip(", ")
    yield f"Hardware  {os.cpu_count()} cores, {_memory()} of memory"


def engine_section(settings: Settings, paths: Paths) -> tuple[list[str], list[str]]:
    """What the engine says about the device and its attention kernels; and a fault when it says nothing or cannot use
    the card that is there."""
    facts = ask_engine(settings, paths)
    if isinstance(facts, str):
        return [f"torch does not work here: {facts}"], [f"The engine cannot run: {facts}"]
    lines = [
        f"torch      {facts['torch_version']}, {facts['threads']} threads",
        f"device     {facts['device']}: {facts['name']}, {size(facts['total_memory'])}",
        f"precision  {facts['precision']} (VAE {facts['vae_precision']}). {facts['reason']}",
        f"memory     {facts['memory_mode']}",
    ]
    for backend in facts["backends"]:
        state = "available" if backend["available"] else "not available"
        chosen = ", in use" if backend["name"] == facts["attention"] else ""
        reason = f": {backend['reason']}" if backend["reason"] else ""
        lines.append(f"attention  {backend['name']}: {state}{chosen}{reason}")
    kernels = facts["kernels"]
    lines.append(f"kernels    {kernels['name']}: {'in use' if kernels['available'] else kernels['reason']}")
    if not facts["gpu_build"] and not settings.device.use_cpu and shutil.which("nvidia-smi"):
        return lines, [CPU_BUILD]
    return lines, []


def ask_engine(settings: Settings, paths: Paths) -> dict[str, Any] | str:
    """The engine's `DeviceReport` as plain data, or why there is none. Takes a few seconds: it imports torch."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_engine_facts, settings, paths).result(ENGINE_SECONDS)
        except TimeoutError:
            for process in multiprocessing.active_children():
                process.kill()
            return f"no answer within {ENGINE_SECONDS:.0f} seconds"
        except BrokenProcessPool:
            return "the process that imported torch was ended by the system"


def _engine_facts(settings: Settings, paths: Paths) -> dict[str, Any] | str:
    """In the child: what the engine reports, or the error as a sentence. Any error at all is an answer here."""
    try:
        from webui.engine import Engine

        return dataclasses.asdict(Engine(settings, paths).report())
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]


def model_lines(paths: Paths) -> list[str]:
    """The folders, what is in them, and why some of it cannot be used."""
    lines = []
    for word, folders in (("checkpoints", paths.checkpoints), ("VAEs", paths.vaes), ("LoRAs", paths.loras)):
        lines += [f"{word} in {folder}{'' if folder.is_dir() else ' (not there)'}" for folder in folders]
    catalog = Catalog(paths)
    try:
        return [*lines, *catalog.problems, *table(listed(catalog)).splitlines()]
    except WebUIError as error:
        return [*lines, str(error)]
    finally:
        catalog.close()


def folder_lines(paths: Paths) -> list[str]:
    """Where things are written, and how much room there is."""
    lines = []
    for name, folder in (("data", paths.data_dir), ("outputs", paths.outputs)):
        try:
            there = next(place for place in (folder, *folder.parents) if place.exists())
            free = f"{size(shutil.disk_usage(there).free)} free"
            writable = "" if os.access(there, os.W_OK) else ", not writable"
        except OSError as error:
            free, writable = error.strerror or str(error), ""
        lines.append(f"{name:<8} {folder}: {free}{writable}")
    return lines


def setting_lines(settings: Settings) -> list[str]:
    """The settings that were changed, in the file or by a flag."""
    usual, names = Settings(), stored.keys()
    changed = [name for name in names if stored.get(settings, name) != stored.get(usual, name)]
    return [f"{name} = {stored.get(settings, name)}" for name in changed] or ["none"]


def packages() -> tuple[list[str], list[str]]:
    """The version of everything requirements.txt names, and a sentence for each that is missing or does not fit."""
    lines, faults = [], []
    for line in (REPO_ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if not text:
            continue
        asked = Requirement(text)
        version = installed_versions([asked.name]).get(asked.name)
        if asked.marker is not None and not asked.marker.evaluate():
            continue
        lines.append(f"{asked.name} {version or 'is missing'}")
        if version is None or not asked.specifier.contains(version, prereleases=True):
            faults.append(f"{asked.name} {version or 'is missing'}, and {asked.name}{asked.specifier} is needed.")
    also = installed_versions(set(WATCHED) - {line.split()[0] for line in lines} - {"python-dateutil"})
    return [*lines, *(f"{name} {version} (not ours)" for name, version in sorted(also.items()))], faults


def torchvision_fault() -> list[str]:
    """A torchvision that does not import, as a sentence."""
    try:
        check_torchvision(Home(REPO_ROOT))
    except InstallError as error:
        return [str(error)]
    return []


def commit() -> str:
    """` (1a2b3c4)` in a clone, with a star when files were changed; "" elsewhere."""
    if not (REPO_ROOT / ".git").exists() or shutil.which("git") is None:
        return ""
    try:
        described = subprocess.run(
            ["git", "-C", str(REPO_ROOT), "describe", "--always", "--dirty=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return f" ({described})"


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:  # not a Linux
        return ""


def _memory() -> str:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return size(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return "an unknown amount"
