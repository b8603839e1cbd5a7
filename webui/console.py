"""The terminal: start-up times, loading lines, one progress bar a job, live memory; and the log file behind it all.

In a terminal there is a bar that moves and a line of memory below it; anywhere else (a pipe, a file, a service) plain
lines without control codes. Names come from users and files, so whatever is printed or logged loses its control
characters first: a prompt can neither colour the screen nor forge a line of the log.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import math
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO, cast

from rich.console import Console as Terminal
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from webui.errors import WebUIError, error_from_dict
from webui.events import Event, Failed, Finished, Image, Loaded, Loading, Memory, Started, Step, Warning

LOG_NAME = "webui.log"
LOG_BYTES = 5 * 2**20  # of one file; five older ones are kept
LOG_FILES = 5
MAX_LINE = 2000  # characters
PLAIN_EVERY = 5.0  # seconds between progress lines where there is no terminal
REDRAWS = 8  # a second
MAX_BAR = 110  # characters of the whole line

_LINE_BREAKS_AND_MARKS = {"\u2028", "\u2029", "\ufeff", *map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))}

_STYLES = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "bold red"}

logger = logging.getLogger("webui.console")


class Console:
    """Shows what happens, to people and to the log. Every method is safe from any thread.

    `log_dir` None writes no log. `stderr` keeps standard output free for results; `file` is for tests. `terminal`
    says whether control codes are welcome; None finds out.
    """

    def __init__(
        self,
        log_dir: Path | None,
        *,
        stderr: bool = False,
        file: TextIO | None = None,
        terminal: bool | None = None,
    ) -> None:
        stream = _Patient(file or (sys.stderr if stderr else sys.stdout))
        self._terminal = Terminal(
            file=cast(TextIO, stream),
            force_terminal=terminal,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
        )
        self.interactive = self._terminal.is_terminal and not self._terminal.is_dumb_terminal
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._job = ""
        self._step: Step | None = None
        self._memory: Memory | None = None
        self._peak = 0  # bytes, of this job
        self._told_at = 0.0
        self._handlers = self._open_log(log_dir)

    # Lines

    def say(self, text: str, style: str = "") -> None:
        """One line for people and for the log."""
        logger.info("%s", clean(text))
        self._print(Text(clean(text), style=style))

    def whisper(self, text: str, style: str = "") -> None:
        """A line for whoever sits here alone: it is in no log. Links that sign in are told this way."""
        self._print(Text(clean(text), style=style))

    def warn(self, text: str) -> None:
        """A line that should be noticed."""
        logger.warning("%s", clean(text))
        self._print(Text(clean(text), style="yellow"))

    def error(self, error: WebUIError) -> None:
        """What happened, and what to do about it."""
        logger.error("%s", clean(str(error)))
        text = Text(clean(error.message), style="bold red")
        self._print(text.append(f" {clean(error.advice)}", style="not bold default") if error.advice else text)

    def started(self, stages: Mapping[str, float], addresses: Sequence[str]) -> None:
        """The table of what the start took, in seconds by stage, and where the page is."""
        total = sum(stages.values())
        times = ", ".join(f"{name}: {seconds:.1f}s" for name, seconds in stages.items())
        summary = f"Startup time: {total:.1f}s ({times})" if stages else ""
        lines = [f"Latent WebUI is at {address}" for address in addresses]
        for line in (summary, *lines):
            if line:
                logger.info("%s", clean(line))
        if not self.interactive:
            for line in (summary, *lines):
                if line:
                    self._print(Text(clean(line)))
            return
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(style="dim")
        table.add_column(justify="right")
        for name, seconds in stages.items():
            table.add_row(clean(name), f"{seconds:.2f} s")
        if stages:
            table.add_row("Startup time", Text(f"{total:.2f} s", style="bold"))
        self._print(table)
        for line in lines:
            self._print(Text(clean(line), style="bold green"))

    # Events

    def show(self, event: Event) -> None:
        """An event of the only job there is (the command line's)."""
        self.handle("", event)

    def handle(self, job: str, event: Event) -> None:
        """An event of `job`; "" for what belongs to none (memory at rest, a model that is loaded ahead)."""
        with self._lock:
            if isinstance(event, Memory):
                self._memory = event
                self._peak = max(self._peak, event.peak)
            elif isinstance(event, Step):
                self._step = event
                self._progress(job, event)
            elif isinstance(event, Loading):
                self.say(event.line)
            elif isinstance(event, Loaded):
                self._loaded(event)
            elif isinstance(event, Started):
                self._started(job, event)
            elif isinstance(event, Image):
                self._image(event)
            elif isinstance(event, Warning):
                self.warn(f"{_named(job)}{event.text}")
            elif isinstance(event, Finished):
                self._finished(job, event)
            elif isinstance(event, Failed):
                self._end_bar()
                error = error_from_dict(event.error)
                self.error(type(error)(f"{_named(job)}{error.message}", error.advice))

    def _loaded(self, event: Loaded) -> None:
        total, stages = _total(event.seconds)
        times = f" ({', '.join(f'{name}: {seconds:.1f}s' for name, seconds in stages.items())})" if stages else ""
        if event.what == "vae":
            if total >= 0.05:
                self.say(f"VAE loaded in {total:.1f}s{times}")
        elif event.what == "lora":
            logger.info("LoRA %s attached in %.2fs", clean(event.name), total)
        elif event.reused:
            logger.info("Using already loaded model %s", clean(event.name))
        elif event.what in ("upscaler", "face restorer"):
            logger.info("%s %s loaded", event.what.capitalize(), clean(event.name))
        else:
            self.say(f"Model loaded in {total:.1f}s{times}")

    def _started(self, job: str, event: Started) -> None:
        self._job = job
        self._step = None
        self._peak = self._memory.used if self._memory else 0
        self._told_at = time.monotonic()
        pictures = "1 picture" if event.pictures == 1 else f"{event.pictures} pictures"
        line = f"{_named(job)}{pictures} of {event.width}x{event.height} in {event.steps} steps"
        if not self.interactive:
            self.say(line)
            return
        logger.info("%s", clean(line))
        self._end_bar()
        self._live = Live(
            get_renderable=self._bar,
            console=self._terminal,
            refresh_per_second=REDRAWS,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def _progress(self, job: str, event: Step) -> None:
        now = time.monotonic()
        last = event.step >= event.steps and event.batch >= event.batches
        if self.interactive or not (last or now - self._told_at >= PLAIN_EVERY):
            return
        self._told_at = now
        memory = f", {memory_line(self._memory, self._peak)}" if self._memory else ""
        self._print(Text(f"{_named(job)}{step_line(event)}{memory}"))

    def _image(self, event: Image) -> None:
        if event.error:
            self.warn(f"Picture {event.index + 1} could not be saved: {event.error}")
        else:
            logger.info("saved %s", clean(event.path))

    def _finished(self, job: str, event: Finished) -> None:
        self._end_bar()
        total, stages = _total(event.seconds)
        pictures = "1 picture" if event.pictures == 1 else f"{event.pictures} pictures"
        times = f" ({', '.join(f'{name} {seconds:.1f}s' for name, seconds in stages.items())})" if stages else ""
        peak = max(self._peak, event.peak_memory)
        parts = [f"{_named(job)}{'interrupted, ' if event.interrupted else ''}{pictures} in {total:.1f}s{times}"]
        if peak:
            parts.append(f"peak memory {size(peak)}")
        self.say(", ".join(parts))

    # The bar

    def _bar(self) -> RenderableType:
        # Called by Rich's own thread as well. No lock: each attribute is read once, and printing may hold ours.
        event, memory = self._step, self._memory
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.width = min(self._terminal.width, MAX_BAR)
        for ratio in (None, None, 1, None):  # the bar takes what the texts leave
            grid.add_column(no_wrap=True, ratio=ratio)
        done = overall(event) if event else 0.0
        grid.add_row(
            Text(self._job[:8], style="dim"),
            Text(f"{done:4.0%}"),
            ProgressBar(total=1.0, completed=done),
            Text(step_line(event) if event else "starts"),
        )
        if memory is None:
            return grid
        return Group(grid, Text(memory_line(memory, self._peak), style="dim"))

    def _end_bar(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _print(self, what: RenderableType) -> None:
        with self._lock:
            self._terminal.print(what)

    # The log

    def _open_log(self, log_dir: Path | None) -> list[logging.Handler]:
        """Everything goes to the file; warnings of ours also to the screen."""
        root = logging.getLogger()
        root.setLevel(logging.WARNING)
        logging.getLogger("webui").setLevel(logging.INFO)
        handlers: list[logging.Handler] = [_Screen(self)]
        problem = ""
        if log_dir is not None:
            try:
                log_dir.mkdir(parents=True, exist_ok=True)
                log = logging.handlers.RotatingFileHandler(
                    log_dir / LOG_NAME, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", errors="replace"
                )
                log.setFormatter(_LogFormat("%(asctime)s %(levelname)s %(name)s: %(message)s"))
                handlers.append(log)
            except OSError as error:
                problem = f"There is no log file: {log_dir} cannot be written ({error.strerror or error})."
        for handler in handlers:
            root.addHandler(handler)
        if problem:
            self.warn(problem)
        return handlers

    @contextlib.contextmanager
    def running(self) -> Iterator[Console]:
        """Open for the time of the block."""
        try:
            yield self
        finally:
            self.close()

    def close(self) -> None:
        """End the bar and close the log. Twice is harmless."""
        with self._lock:
            self._end_bar()
            handlers, self._handlers = self._handlers, []
        for handler in handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()


class _Patient:
    """A stream that never raises: one that is gone, or cannot write a letter, must not end a job."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        """For the terminal's width. Raises OSError where there is none, as streams do."""
        return self._stream.fileno()


class _Screen(logging.Handler):
    """Warnings of our own code and what it logs with `extra={"show": True}`, one line each; the log has the rest.

    The console's own records are on the screen already. They are sorted out in `filter`, which runs outside the
    handler's lock: two threads, one logging and one showing, must not wait for each other.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def filter(self, record: logging.LogRecord) -> bool:
        wanted = record.levelno >= logging.WARNING or getattr(record, "show", False)
        return wanted and record.name != logger.name and record.name.partition(".")[0] == "webui"

    def emit(self, record: logging.LogRecord) -> None:
        line = next(iter(record.getMessage().splitlines()), "")
        self._console._print(Text(clean(line), style=_STYLES.get(record.levelno, "")))


class _LogFormat(logging.Formatter):
    """A line a record. What follows (a traceback, last words) is indented, so that nothing can pass for a record."""

    def format(self, record: logging.LogRecord) -> str:
        first, *rest = super().format(record).splitlines() or [""]
        return "\n".join([clean(first, MAX_LINE * 4), *("    | " + clean(line) for line in rest)])


def clean(text: str, limit: int = MAX_LINE) -> str:
    """`text` as one harmless line: no control characters, no line breaks, no marks that turn the reading direction."""
    text = " ".join(text.splitlines()) if "\n" in text or "\r" in text else text
    kept = (
        " " if ch == "\t" else ch
        for ch in text[: limit + 1]
        if ch == "\t" or (unicodedata.category(ch) not in ("Cc", "Cs") and ch not in _LINE_BREAKS_AND_MARKS)
    )
    line = "".join(kept)
    return line if len(text) <= limit else f"{line[:limit]}…"


def size(count: float) -> str:
    """Bytes for people, in powers of 1024: "4 kB", "980 MB", "1.31 GB"."""
    if count >= 2**30:
        return f"{count / 2**30:.2f} GB"
    return f"{count / 2**20:.0f} MB" if count >= 2**20 else f"{math.ceil(count / 2**10)} kB"


def memory_line(memory: Memory, peak: int = 0) -> str:
    """The live line: on CUDA the device's memory, elsewhere the worker's resident set and the machine's RAM."""
    highest = max(peak, memory.peak)
    if memory.device.startswith("cuda"):
        parts = f"VRAM allocated {size(memory.used)} / reserved {size(memory.reserved)} / total {size(memory.total)}"
    else:
        parts = f"RAM of the worker {size(memory.used)} / total {size(memory.total)}"
    return f"{parts}, peak {size(highest)}"


def step_line(event: Step) -> str:
    """Like "step 12/20 (batch 1/2), 8.1 it/s, 1.0 s left"; slow steps are told in seconds each, as users know it."""
    batch = f" (batch {event.batch}/{event.batches})" if event.batches > 1 else ""
    speed = f"{event.rate:.1f} it/s" if event.rate >= 1 or event.rate <= 0 else f"{1 / event.rate:.1f} s/it"
    return f"step {event.step}/{event.steps}{batch}, {speed}, {_left(event.seconds_left)} left"


def overall(event: Step) -> float:
    """The share of the whole job that is done, 0 to 1."""
    done = (event.batch - 1 + event.step / max(1, event.steps)) / max(1, event.batches)
    return min(1.0, max(0.0, done))


def _left(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.1f} s"


def _total(seconds: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """The whole time, and its stages."""
    stages = {clean(name, 60): value for name, value in seconds.items() if name != "total"}
    return seconds.get("total", sum(stages.values())), stages


def _named(job: str) -> str:
    return f"Job {job[:8]}: " if job else ""
