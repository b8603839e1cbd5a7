"""From `python3 app.py` to a running program: make .venv, install requirements.txt into it, hand over.

Standard library only, since nothing is installed yet. A stamp inside .venv remembers what was installed there, so that
every later start is a look at two files and needs no network. .venv's Python then runs the same app.py, which finds
itself at home and calls `webui.cli`. (Not `python -m webui`: that would take a `webui.py` of the folder the user stands
in, and a well-known product has one.)

uv is not used, although it is faster: it does not read pip's configuration, which decides on some machines that torch
is the small build for CPUs.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webui.install import InstallError, Steps, diagnosis, isolated_environment, pip_install
from webui.paths import REPO_ROOT, write_atomic

OLDEST, NEWEST = (3, 10), (3, 13)
SMALLEST_INSTALL = 3 * 10**9  # bytes: torch for CPUs and the rest (measured: 1.6 GB), with the downloads beside them
CUDA_INSTALL = 12 * 10**9  # bytes, estimated: torch with CUDA, and its downloads
ADDED_PACKAGES = 10**9  # bytes: a change of requirements.txt when torch is there already
AT_HOME = {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "false"}
_VENV_ENTRIES = {"bin", "Scripts", "include", "Include", "lib", "lib64", "Lib", "share", "tmp", "install.log"}
_PROBE = "import sys; print(sys.prefix); print('%d.%d' % sys.version_info[:2])"


@dataclass(frozen=True, slots=True)
class Home:
    """Where the program lives: the folder of app.py, and .venv in it."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def requirements(self) -> Path:
        return self.root / "requirements.txt"

    def distributions(self, name: str) -> list[str]:
        """The installed versions of a package, as the names of their records: ["torch-2.13.0.dist-info"]."""
        folders = (*self.venv.glob("lib/python3.*/site-packages"), *self.venv.glob("Lib/site-packages"))
        return sorted(found.name for folder in folders for found in folder.glob(f"{name}-*.dist-info"))


@dataclass(frozen=True, slots=True)
class Probe:
    """What .venv's Python says of itself."""

    prefix: Path
    version: str  # "3.11"


def main(arguments: Sequence[str]) -> int:
    """The exit code of the program, or 1 after a sentence about why it could not be installed."""
    home = Home(REPO_ROOT)
    try:
        if not (inside(home) and is_installed(home, _running())):
            prepare(home, Steps())
            return hand_over(home, arguments)
    except InstallError as error:
        print(error, file=sys.stderr)
        return 1
    except PermissionError as error:
        where = error.filename or home.root
        print(f"{where} cannot be written to. Put this folder where you may write and run it again.", file=sys.stderr)
        return 1
    except OSError as error:
        print(diagnosis(str(error), 1), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run it again to go on.", file=sys.stderr)
        return 130
    os.environ.update(AT_HOME)
    from webui.cli import main as command_line

    return command_line(arguments)


def _running() -> str:
    """The version of this very Python: "3.11"."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def inside(home: Home) -> bool:
    """Whether this very process is .venv's Python."""
    return _same(Path(sys.prefix), home.venv)


def prepare(home: Home, steps: Steps) -> None:
    """Have a .venv that holds what requirements.txt asks for. Does nothing when it does. Raises `InstallError`."""
    probe = probe_venv(home)
    if probe and is_installed(home, probe.version):
        return
    with _one_at_a_time(home):
        probe = probe_venv(home)
        if probe and is_installed(home, probe.version):
            return  # by somebody else, meanwhile
        first = not _has_pip(home) or not read_stamp(home)
        if first:
            steps.line("Latent WebUI installs itself into .venv. This happens once and needs the network.")
        check_disk(home, steps)
        if probe is None or not _has_pip(home):
            probe = make_venv(home, steps)
        installed = _install(home, steps)
        check_torchvision(home)
        write_stamp(home, probe.version)
        steps.line(f"  Ready: {len(installed)} packages were installed." if installed else "  Ready.")


def hand_over(home: Home, arguments: Sequence[str]) -> int:
    """Become .venv's Python running app.py. Returns on Windows alone, which cannot replace a process."""
    os.environ.pop("PYTHONHOME", None)  # it would point .venv's Python at another one's library
    os.environ.update(AT_HOME)
    command = [str(home.python), str(home.root / "app.py"), *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execv(command[0], command)
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the child hears Ctrl+C, too, and ends in its own way


# --- what is there ---------------------------------------------------------------------------------------------------


def probe_venv(home: Home) -> Probe | None:
    """Ask .venv's Python who it is; None when there is none that works here, or none of a version we run on."""
    try:
        answer = subprocess.run(
            [str(home.python), "-I", "-c", _PROBE], capture_output=True, text=True, timeout=60, check=True
        ).stdout.split("\n")
        probe = Probe(Path(answer[0]), answer[1].strip())
    except (OSError, subprocess.SubprocessError, IndexError):
        return None
    version = tuple(int(part) for part in probe.version.split("."))
    return probe if _same(probe.prefix, home.venv) and OLDEST <= version <= NEWEST else None


def is_installed(home: Home, version: str) -> bool:
    """Whether .venv holds what requirements.txt says, made for this Python version ("3.11")."""
    return read_stamp(home) == _wanted(home, version)


def read_stamp(home: Home) -> dict[str, Any]:
    """What was installed last, {} when nothing was, or not to the end."""
    try:
        stamp = json.loads(_stamp_file(home).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(home: Home, version: str) -> None:
    write_atomic(_stamp_file(home), json.dumps(_wanted(home, version), indent=1).encode())


def _stamp_file(home: Home) -> Path:
    return home.venv / "latent-webui.json"


def _wanted(home: Home, version: str) -> dict[str, Any]:
    """The stamp of a finished installation. Comments and order do not matter; a torchvision that came later does."""
    lines = home.requirements.read_text(encoding="utf-8").splitlines()
    asked = sorted(" ".join(line.split("#")[0].split()) for line in lines if line.split("#")[0].strip())
    return {
        "python": version,
        "requirements": hashlib.sha256("\n".join(asked).encode()).hexdigest(),
        "torchvision": [*home.distributions("torchvision"), *home.distributions("torch")]
        if home.distributions("torchvision")
        else [],
    }


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _has_pip(home: Home) -> bool:
    return _run(home.python, "-m", "pip", "--version")[0] == 0


def _run(python: Path, *arguments: str) -> tuple[int, str]:
    """A Python command outside the user's environment; its exit code and everything it said."""
    try:
        done = subprocess.run(
            [str(python), "-I", *arguments],
            env=isolated_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        return 1, str(error)
    return done.returncode, done.stdout


# --- the steps -------------------------------------------------------------------------------------------------------


def check_disk(home: Home, steps: Steps) -> None:
    """Refuse to begin what cannot end. Raises `InstallError`."""
    free = shutil.disk_usage(home.root).free
    there = bool(home.distributions("torch"))
    needed = ADDED_PACKAGES if there else SMALLEST_INSTALL
    if free < needed:
        raise InstallError(
            f"The disk has {free / 1e9:.1f} GB left, and the installation needs at least {needed / 1e9:.0f} GB.",
            "Make room and run it again, or move this folder to a larger disk.",
        )
    if not there and free < CUDA_INSTALL and sys.platform == "linux":
        steps.line(f"  The disk has {free / 1e9:.1f} GB left; torch with CUDA needs about {CUDA_INSTALL / 1e9:.0f} GB.")


def make_venv(home: Home, steps: Steps) -> Probe:
    """A new .venv of the running Python; what an interrupted run left there is cleared. Raises `InstallError`."""
    running = _running()
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        other = _other_python()
        raise InstallError(
            f"Latent WebUI needs Python 3.{OLDEST[1]} to 3.{NEWEST[1]}, and this is Python {running}.",
            f"There is another one here: run {other} app.py." if other else "Install Python 3.13 and run it again.",
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise _no_venv(running)
    _check_ours(home)
    base = Path(getattr(sys, "_base_executable", "") or sys.executable)
    with steps.step(f"Making .venv with Python {running}"):
        code, said = _run(base, "-m", "venv", "--clear", str(home.venv))
        if code != 0:
            if "ensurepip" in said and "No space left" not in said:
                raise _no_venv(running)
            raise diagnosis(said, code)
        probe = probe_venv(home)
    if probe is None:
        raise InstallError(f"The Python in {home.venv} does not start.", "Delete that folder and run it again.")
    return probe


def _no_venv(running: str) -> InstallError:
    return InstallError(
        f"This Python {running} cannot make virtual environments: its venv or ensurepip module is missing.",
        f"On Debian or Ubuntu: sudo apt install python{running}-venv. Then run it again.",
    )


def _other_python() -> str:
    """A Python of a version that we run on, elsewhere on this machine; "" if there is none."""
    names = (f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1))
    return next((name for name in names if shutil.which(name)), "")


def _check_ours(home: Home) -> None:
    """Only a virtual environment, whole or half-made, is ever cleared. Raises `InstallError`."""
    if not home.venv.exists() or (home.venv / "pyvenv.cfg").exists():
        return
    if not home.venv.is_dir() or {entry.name for entry in home.venv.iterdir()} - _VENV_ENTRIES:
        raise InstallError(f"{home.venv} is not a virtual environment.", "Move it away and run it again.")


def _install(home: Home, steps: Steps) -> tuple[str, ...]:
    with steps.step("Installing what requirements.txt names"):
        return pip_install(home.python, ["-r", str(home.requirements)], steps, home.venv / "tmp")


def check_torchvision(home: Home) -> None:
    """A torchvision that does not fit torch breaks loading models, although we do not use it. Raises `InstallError`."""
    if not home.distributions("torchvision"):
        return
    code, said = _run(home.python, "-c", "import torchvision")
    if code != 0:
        last = (said.strip().splitlines() or ["it ends at once"])[-1]
        raise InstallError(
            f"The torchvision in .venv does not work and would break loading models ({last[:120]}).",
            f"It is not needed here; remove it: {home.python} -m pip uninstall torchvision",
        )


@contextlib.contextmanager
def _one_at_a_time(home: Home) -> Iterator[None]:
    """Two installations into one .venv would spoil it. (Windows keeps files in use from being replaced by itself.)"""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(home.root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise InstallError("Another app.py is installing here.", "Wait for it, then run this again.") from None
            # else it is a file system without locks, and we go on without one
        yield
    finally:
        os.close(handle)  # and with it the lock
