"""`app.py test`: install what the tests need, then run every check there is.

Checks: ruff (lint and format), mypy, pytest. All of them run even if one fails, so that one look shows everything.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from webui.errors import WebUIError
from webui.install import Steps, pip_install
from webui.paths import REPO_ROOT, write_atomic

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LINTS = (
    ("ruff check", ("ruff", "check", ".")),
    ("ruff format", ("ruff", "format", "--check", ".")),
    ("mypy", ("mypy",)),
)


def test(context: typer.Context) -> None:
    """Run all tests and checks; what follows goes to pytest, such as -k or a path."""
    steps = Steps()
    install_tools(steps)
    install_chromium(steps)
    failed = [name for name, words in LINTS if module(name, words) != 0]
    code = module("pytest", ("pytest", *context.args))
    if code != 0:
        failed.append("pytest")
    if failed:
        print(f"Failed: {', '.join(failed)}.", file=sys.stderr)
    raise typer.Exit(1 if failed else 0)


def module(name: str, words: Sequence[str]) -> int:
    """Run a tool of .venv in the project's folder; returns its exit code."""
    print(f"== {name}", flush=True)
    return subprocess.run([sys.executable, "-m", *words], cwd=REPO_ROOT, check=False).returncode


def install_tools(steps: Steps) -> None:
    """What requirements-dev.txt names, unless that was done before. Raises `InstallError`."""
    wanted = REPO_ROOT / "requirements-dev.txt"
    stamp = Path(sys.prefix) / "latent-webui-dev.txt"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
        return
    with steps.step("Installing what requirements-dev.txt names"):
        pip_install(Path(sys.executable), ["-r", str(wanted)], steps, Path(sys.prefix) / "tmp")
    write_atomic(stamp, digest.encode())


def install_chromium(steps: Steps) -> None:
    """The browser that drives the page: Debian's package where that can be had. Raises `WebUIError` with what to do."""
    if any(shutil.which(name) for name in CHROMIUM_NAMES):
        return
    apt, admin = shutil.which("apt-get"), administrator()
    if apt is None or admin is None:
        raise WebUIError(
            "The tests drive the page in Chromium, which is not here.",
            "On Debian: sudo apt install chromium. Elsewhere, install Chromium or Chrome so that `chromium` starts it.",
        )
    with steps.step("Installing chromium"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (("update",), ("install", "-y", "--no-install-recommends", "chromium")):
            done = subprocess.run(
                [*admin, apt, "-q", *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode != 0 and "install" in words:
                last = (done.stdout.strip().splitlines() or ["no reason was given"])[-1]
                raise WebUIError(f"chromium could not be installed: {last[:200]}", "Try: sudo apt install chromium")


def administrator() -> list[str] | None:
    """How to run a command with the rights to install: [], ["sudo", "-n"], or None where that is not possible."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    return None
