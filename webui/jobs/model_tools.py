"""Merging, pruning and converting from the page: the command line's commands, each in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from webui.errors import InvalidParams
from webui.paths import REPO_ROOT, Paths

MAX_LINES = 30  # of the command's own words, the last ones
_NAME = re.compile(r"[^/\\\x00-\x1f]{1,120}(/[^/\\\x00-\x1f]{1,120}){0,4}")
_METHODS = ("weighted-sum", "add-difference", "slerp")
_PRECISIONS = ("keep", "fp16", "bf16", "fp32")
PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True, slots=True)
class ToolState:
    """What runs or ran last. `code` is the command's exit code, None while it runs; `output` the new file's name."""

    running: bool = False
    lines: tuple[str, ...] = ()
    code: int | None = None
    output: str = ""


class ModelTools:
    """Starts the commands of `webui.cli.model_tools` and keeps their last words. Safe to use from several threads."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._output = ""
        self._reader: threading.Thread | None = None

    def start(self, request: Mapping[str, Any]) -> ToolState:
        """Run a merge, prune or convert. Raises `InvalidParams` for a bad request, and while another one runs."""
        words, output = arguments(request)
        folders = [f"--data-dir={self._paths.data_dir}"]
        folders += [f"--ckpt-dir={folder}" for folder in self._paths.checkpoints if folder.is_dir()]
        folders += [f"--vae-dir={folder}" for folder in self._paths.vaes if folder.is_dir()]
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                raise InvalidParams("Another model is being made.", "Wait until it is done.")
            self._lines.clear()
            self._output = output
            self._process = subprocess.Popen(
                [sys.executable, "-m", "webui", "models", *words[:1], *folders, *words[1:]],
                cwd=REPO_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
            self._reader.start()
        return self.state

    @property
    def state(self) -> ToolState:
        process = self._process
        code = process.poll() if process else None
        return ToolState(process is not None and code is None, tuple(self._lines), code, self._output)

    def wait(self) -> ToolState:
        """The state when the command has ended."""
        if self._process is not None and self._reader is not None:
            self._process.wait()
            self._reader.join()
        return self.state

    def _read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stderr or ():
            self._lines.append(line.rstrip()[:400])


def arguments(request: Mapping[str, Any]) -> tuple[list[str], str]:
    """(the command's words, the new file's name) of a request from a page. Raises `InvalidParams`.

    Options are written as one word and names follow `--`, so that no name is ever taken for an option.
    """
    known = {"tool", "a", "b", "c", "vae", "method", "alpha", "precision", "ema", "output"}
    unknown = sorted(set(request) - known)
    if unknown:
        raise InvalidParams(f'There is no field "{unknown[0][:80]}".', f"Known: {', '.join(sorted(known))}.")
    tool = request.get("tool")
    if tool not in ("merge", "prune", "convert"):
        raise InvalidParams("tool: must be merge, prune or convert.")
    if tool == "convert":
        return _convert(request)
    output = _text(request, "output")
    _check_name(output)
    words = [tool, f"--output={output}", f"--precision={_one_of(request, 'precision', _PRECISIONS, 'fp16')}"]
    if tool == "prune":
        return [*words, *(["--ema"] if request.get("ema") is True else []), "--", _text(request, "a")], output
    alpha = request.get("alpha", 0.5)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise InvalidParams("alpha: must be a number.", "0 is A alone, 1 is B alone.")
    words += [f"--method={_one_of(request, 'method', _METHODS, _METHODS[0])}", f"--alpha={alpha!r}"]
    words += [f"--{name}={_text(request, name)}" for name in ("c", "vae") if request.get(name)]
    return [*words, "--", _text(request, "a"), _text(request, "b")], output


def _convert(request: Mapping[str, Any]) -> tuple[list[str], str]:
    """Without a name for the new file it lies beside the old one, under its name."""
    source = _text(request, "a")
    if not source.lower().endswith(PICKLE_SUFFIXES) or not _NAME.fullmatch(source) or ".." in source.split("/"):
        raise InvalidParams(f'"{source[:80]}" is no .ckpt file of the list.', "Choose one in the checkpoint folder.")
    words = ["convert", f"--precision={_one_of(request, 'precision', _PRECISIONS, 'keep')}"]
    if not request.get("output"):
        return [*words, "--", source], source.rpartition(".")[0]
    output = _text(request, "output")
    _check_name(output)
    return [*words, f"--output={output}", "--", source], output


def _check_name(output: str) -> None:
    if not _NAME.fullmatch(output) or any(part.strip(". ") == "" for part in output.split("/")):
        raise InvalidParams(f'"{output[:80]}" is no name for a new file.', "Give a name such as mixed or anime/mixed.")


def _text(request: Mapping[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > 1024:
        raise InvalidParams(f"{name}: must be a name.", "Choose a model.")
    return value


def _one_of(request: Mapping[str, Any], name: str, choices: tuple[str, ...], usual: str) -> str:
    value = request.get(name, usual)
    if value not in choices:
        raise InvalidParams(f"{name}: must be one of {', '.join(choices)}.")
    return str(value)
