"""Run pip with progress that can be read, and say in a sentence what went wrong. Standard library only.

Used before anything is installed (`webui.launcher`) and by `app.py test` for what the tests need. pip is asked the way
the user configured it: no index is named here, because the index decides which build of torch is found.
"""

from __future__ import annotations

import collections
import contextlib
import os
import platform
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from webui.errors import WebUIError
from webui.paths import write_atomic

LOG_LINES = 2000
SIGN_OF_LIFE_SECONDS = 30.0  # between lines where there is no terminal
WORTH_A_LINE_MB = 5.0
# Sources that pip would compile although hardly anything of them is imported; Python compiles what is when it is.
SELDOM_IMPORTED = r"[/\\](tests?|transformers[/\\]models[/\\](?!auto|clip)\w+)[/\\]"


class InstallError(WebUIError):
    """The installation cannot begin or did not end well."""


class Steps:
    """Tells what is going on: one line a step with its seconds, and on a terminal a last line that is alive."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._live = self._out.isatty()
        self._last_sign = time.monotonic()

    def line(self, text: str) -> None:
        self._out.write(("\r" + " " * (self._width() - 1) + "\r" if self._live else "") + text + "\n")
        self._out.flush()
        self._last_sign = time.monotonic()

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[None]:
        """One line when the step is over; a step that fails has no line, its error has."""
        began = time.monotonic()
        self.status(0.0, text)
        yield
        self.line(f"  {text:<56} {time.monotonic() - began:6.1f} s")

    def status(self, seconds: float, text: str) -> None:
        """What is happening now. Without a terminal this is silent, but for a sign of life every half minute."""
        line = f"  {int(seconds) // 60}:{int(seconds) % 60:02d}  {text}"
        if self._live:
            width = self._width() - 1
            self._out.write("\r" + line[:width].ljust(width))
            self._out.flush()
        elif time.monotonic() - self._last_sign > SIGN_OF_LIFE_SECONDS:
            self.line(line)

    def _width(self) -> int:
        return max(40, shutil.get_terminal_size().columns)


class _Narrator:
    """Turns pip's lines into what a person wants to know."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.now = "asking the package registry"
        self.unpacking = False
        self.installed: tuple[str, ...] = ()

    def hear(self, line: str, seconds: float) -> None:
        line = line.strip()
        if found := re.match(r"Collecting ([\w.\-\[\]]+)", line):
            self.now = f"looking for {found[1]}"
        elif found := re.match(r"Downloading (\S+) \(([\d.]+) (\w+)\)", line):
            name = _package(found[1])
            self.now = f"downloading {name} ({found[2]} {found[3]})"
            if found[3] == "GB" or (found[3] == "MB" and float(found[2]) >= WORTH_A_LINE_MB):
                self._steps.line(f"    {self.now}")
        elif found := re.match(r"(?:Processing|Using cached) (\S+)", line):
            self.now = f"reading {_package(found[1])}"
        elif found := re.match(r"Building wheel for (\S+)", line):
            self.now = f"building {found[1]}"
        elif found := re.match(r"Installing collected packages: (.+)", line):
            self.now, self.unpacking = f"unpacking {found[1].count(',') + 1} packages", True
            self._steps.line(f"    {self.now}")
        elif found := re.match(r"Successfully installed (.+)", line):
            self.installed = tuple(found[1].split())
        elif "Retrying (Retry(" in line:
            self.now = "the package registry does not answer; trying again"
            self._steps.line(f"    {self.now}")
        self._steps.status(seconds, self.now)


def _package(file: str) -> str:
    """`torch 2.13.0` from the name, path or address of a wheel."""
    parts = file.rstrip("/").rsplit("/", 1)[-1].removesuffix(".metadata").split("-")
    return " ".join(parts[:2]).removesuffix(".tar.gz").removesuffix(".whl")


def isolated_environment() -> dict[str, str]:
    """The user's environment without what would lead another Python's packages into ours."""
    drop = {"PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV"}
    return {key: value for key, value in os.environ.items() if key not in drop}


def pip_install(python: Path, arguments: Sequence[str], steps: Steps, scratch: Path) -> tuple[str, ...]:
    """`pip install ARGUMENTS` for the interpreter `python`; returns what was installed, as "name-version".

    Downloads are unpacked below `scratch` (removed afterwards), since /tmp is often small; pip's whole output is kept
    in `install.log` beside it. What pip would compile alone is compiled by all cores (`compile_packages`). Raises
    `InstallError`.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    environment = isolated_environment() | {
        "TMPDIR": str(scratch),
        "TEMP": str(scratch),
        "TMP": str(scratch),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_USER": "0",
    }
    command = [str(python), "-I", "-m", "pip", "install", "--no-compile", "--progress-bar", "off", *arguments]
    log: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
    narrator = _Narrator(steps)
    try:
        code = _follow(command, environment, log, narrator, steps, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):  # the log is a help, and the disk may be full
            write_atomic(scratch.parent / "install.log", "".join(log).encode())
    if code != 0:
        raise diagnosis("".join(log), code)
    if narrator.installed and "--target" not in arguments:
        compile_packages(python, steps)
    return narrator.installed


def compile_packages(python: Path, steps: Steps) -> None:
    """Bytecode for the packages of `python`'s environment, by all cores.

    A help and no more: where it fails, Python compiles each module when it is imported, so nothing is raised.
    """
    program = (
        "import compileall, re, sys, sysconfig\n"
        "packages = sysconfig.get_path('purelib')\n"
        "compileall.compile_dir(packages, quiet=2, workers=0, rx=re.compile(sys.argv[1]))\n"
    )
    with steps.step("Compiling the packages"), contextlib.suppress(OSError):
        subprocess.run(
            [str(python), "-I", "-c", program, SELDOM_IMPORTED],
            env=isolated_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )


def _follow(
    command: list[str],
    environment: dict[str, str],
    log: collections.deque[str],
    narrator: _Narrator,
    steps: Steps,
    scratch: Path,
) -> int:
    """Run the command, keep its lines, tell what it does each second; returns its exit code."""
    began = time.monotonic()
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )

    def read() -> None:
        assert process.stdout is not None  # it is a pipe
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            seconds = time.monotonic() - began
            try:
                line = lines.get(timeout=1.0)
            except queue.Empty:
                steps.status(seconds, narrator.now + ("" if narrator.unpacking else _so_far(scratch)))
                continue
            if line is None:
                return process.wait()
            log.append(line)
            narrator.hear(line, seconds)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _so_far(scratch: Path) -> str:
    """How much was downloaded, from the size of what lies in the scratch folder."""
    size = 0
    with contextlib.suppress(OSError):  # pip may delete a file while it is counted
        size = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
    return f", {size / 1e6:,.0f} MB so far" if size > 1e6 else ""


_UNREACHABLE = re.compile(
    r"NewConnectionError|Failed to establish a new connection|NameResolutionError|Name or service not known"
    r"|Temporary failure in name resolution|getaddrinfo failed|Network is unreachable|ConnectTimeoutError"
    r"|ReadTimeoutError|Read timed out|ProxyError|Max retries exceeded|RemoteDisconnected|Connection refused"
    r"|Connection aborted|Connection reset|IncompleteRead|IncompleteDownload|ConnectionResetError"
)
_FULL = re.compile(r"No space left on device|\[Errno 28\]|WinError 112|Disk quota exceeded|\[Errno 122\]")
_AGAIN = "run it again: it goes on where it stopped"


def _without_torch() -> str:
    """What this Python runs on where PyTorch, of the versions that we need, has no builds at all; "" elsewhere."""
    if sys.maxsize < 2**32:
        return "a 32-bit Python"
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        return "Macs with an Intel processor (or a Python made for one)"
    return ""


def diagnosis(output: str, code: int) -> InstallError:
    """What pip's output means, and what to do next."""
    if _FULL.search(output):
        return InstallError("The disk is full, so the packages could not be installed.", f"Make room and {_AGAIN}.")
    if "CERTIFICATE_VERIFY_FAILED" in output:
        return InstallError(
            "The package registry's certificate is not trusted by this Python.",
            "Behind a company proxy, set PIP_CERT to the file of its certificate authority and run it again.",
        )
    if _UNREACHABLE.search(output):
        return InstallError(
            "The package registry cannot be reached.", f"Check the network (and PIP_PROXY behind a proxy) and {_AGAIN}."
        )
    if found := re.search(r"satisfies the requirement (\S+)", output):
        if re.match(r"torch\b", found[1]) and (never := _without_torch()):
            return InstallError(
                f"PyTorch has no builds for {never}.",
                "It has for 64-bit Python on Linux and Windows, and for Macs with an Apple chip.",
            )
        return InstallError(
            f"There is no build of {found[1]} for Python {sys.version_info[0]}.{sys.version_info[1]} on this platform.",
            "Try another Python from 3.10 to 3.13: delete the folder .venv and run that one with app.py.",
        )
    if "Permission denied" in output or "[Errno 13]" in output or "Read-only file system" in output:
        return InstallError(
            "The folder .venv cannot be written to.", "Check who owns it, or delete it, and run it again."
        )
    if "DO NOT MATCH THE HASHES" in output:
        return InstallError("A download was damaged.", "Run it again; `pip cache purge` empties the download cache.")
    if code < 0:
        cause = " (often a lack of memory)" if code == -9 else ""
        return InstallError(f"The installation was ended by signal {-code}{cause}.", f"When that is cured, {_AGAIN}.")
    errors = [line.strip() for line in output.splitlines() if line.startswith("ERROR:")]
    last = (errors or [line.strip() for line in output.splitlines() if line.strip()] or ["pip said nothing"])[-1]
    return InstallError(
        f"The packages could not be installed: {last.removeprefix('ERROR: ')[:200].rstrip('.')}.",
        "The file .venv/install.log has the whole story.",
    )
