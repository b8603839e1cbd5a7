"""`app.py test`: install what the tests need, then run every check there is.

Checks: ruff (lint and format), mypy, pytest. All of them run even if one fails, so that one look shows everything.
pytest runs in as many processes as there are cores, up to four: the tests start servers, browsers and engines of their
own, and each wants memory. The linters run beside Chromium's installation, which mostly waits for the network.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import typer

from webui.errors import WebUIError
from webui.install import Steps, pip_install
from webui.paths import REPO_ROOT, write_atomic

MAX_PROCESSES = 4
TRITON = "triton==3.6.0"
HEADLESS = "chromium-headless-shell"  # Chromium without windows: a page costs it 2.6 CPU seconds instead of 4.3
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROXY = {"nginx": "nginx-light", "openssl": "openssl"}  # command -> Debian package
ADMIN_FOLDERS = ("/usr/sbin", "/usr/local/sbin")  # where Debian puts nginx; not everybody's PATH has them
LINTS = (
    ("ruff check", ("ruff", "check", ".")),
    ("ruff format", ("ruff", "format", "--check", ".")),
    ("mypy", ("mypy",)),
)


def test(context: typer.Context) -> None:
    """Run all tests and checks; what follows goes to pytest, such as -k or a path."""
    steps = Steps()
    install_tools(steps)
    install_triton(steps)
    with ThreadPoolExecutor(1) as beside:
        lints = beside.submit(lambda: [(name, *module(words, quiet=True)) for name, words in LINTS])
        install_chromium(steps)
        install_proxy(steps)
        found = lints.result()
    failed = []
    for name, code, output in found:
        print(f"== {name}\n{output}", end="", flush=True)
        if code != 0:
            failed.append(name)
    print("== pytest", flush=True)
    if module(("pytest", *spread(context.args), *context.args))[0] != 0:
        failed.append("pytest")
    if failed:
        print(f"Failed: {', '.join(failed)}.", file=sys.stderr)
    raise typer.Exit(1 if failed else 0)


def spread(words: Sequence[str]) -> list[str]:
    """How pytest divides the tests among processes: a file stays whole, for its tests share a server or an engine.

    [] where the user says how many by himself, debugs, or has one core.
    """
    own = any(word.startswith(("-n", "--numprocesses", "--pdb", "--dist", "-s")) for word in words)
    count = min(cores(), MAX_PROCESSES)
    return [] if own or count < 2 else ["-n", str(count), "--dist", "loadfile"]


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def module(words: Sequence[str], *, quiet: bool = False) -> tuple[int, str]:
    """Run a tool of .venv in the project's folder; returns its exit code and, where it was to be quiet, its words.

    Bytecode is kept even where the user wants none written: the tests start hundreds of processes, each of which would
    compile our sources once more (1 s of the 4 that a server needs).
    """
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=REPO_ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout or ""


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


def install_triton(steps: Steps) -> None:
    """Triton, whose interpreter runs the GPU's kernels on a CPU. Raises `InstallError`.

    Beside the environment and not in it: torch for CPUs, which comes without, would import it in every process. Where
    there are no packages of it (another system than Linux on x86-64), that test is skipped.
    """
    folder = Path(sys.prefix) / "triton"
    has_packages = sys.platform == "linux" and platform.machine() == "x86_64"
    if folder.exists() or find_spec("triton") is not None or not has_packages:
        return
    with steps.step("Installing Triton for the tests of the GPU's kernels"):
        pip_install(
            Path(sys.executable), ["--no-deps", "--target", str(folder), TRITON], steps, Path(sys.prefix) / "tmp"
        )


def install_chromium(steps: Steps) -> None:
    """The browser that drives the page: Debian's package where that can be had. Raises `WebUIError` with what to do.

    Where there is one with windows, root alone gets the other one, too, as in a container.
    """
    if shutil.which(HEADLESS):
        return
    apt, admin = shutil.which("apt-get"), administrator()
    if any(shutil.which(name) for name in CHROMIUM_NAMES):
        if apt and admin == []:
            with steps.step(f"Installing {HEADLESS}"):
                _apt_install([apt], HEADLESS)  # without it, the tests take longer
        return
    if apt is None or admin is None:
        raise WebUIError(
            "The tests drive the page in Chromium, which is not here.",
            "On Debian: sudo apt install chromium. Elsewhere, install Chromium or Chrome so that `chromium` starts it.",
        )
    with steps.step("Installing Chromium"):
        if _apt_install([*admin, apt], HEADLESS) and (reason := _apt_install([*admin, apt], "chromium")):
            raise WebUIError(f"chromium could not be installed: {reason}", "Try: sudo apt install chromium")


def install_proxy(steps: Steps) -> None:
    """nginx and openssl, for the tests of a sub-path behind a reverse proxy, which are skipped without them.

    Root alone gets them, as in a container: on a user's machine the package would start a web server. Nothing is
    started here either.
    """
    missing = [name for name in PROXY if not shutil.which(name, path=_with_admin_folders())]
    apt = shutil.which("apt-get")
    if not missing:
        return
    if apt is None or administrator() != []:
        steps.line(f"  {' and '.join(missing)} not here: the tests behind a reverse proxy are skipped.")
        return
    with steps.step(f"Installing {' and '.join(missing)}"):
        reason = _apt_install([apt], *(PROXY[name] for name in missing))
    if reason:
        steps.line(f"  The tests behind a reverse proxy are skipped: {reason}")


def _with_admin_folders() -> str:
    return os.pathsep.join((os.environ.get("PATH", ""), *ADMIN_FOLDERS))


def _apt_install(apt: Sequence[str], *packages: str) -> str:
    """Install Debian packages without a question and without starting what they bring; the reason when it fails."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    code, said = 0, ""
    for words in (("update",), ("install", "-y", "--no-install-recommends", *packages)):
        done = subprocess.run(
            [*apt, "-q", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        code, said = done.returncode, done.stdout
    last = (said.strip().splitlines() or ["no reason was given"])[-1]
    return last[:200] if code != 0 else ""


def administrator() -> list[str] | None:
    """How to run a command with the rights to install: [], ["sudo", "-n"], or None where that is not possible."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    return None
