"""One worker process seen from the front: start it, talk to it without ever blocking, end it, and say how it ended."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webui.jobs import worker
from webui.jobs.wire import MAX_FRAME, Message, decode, encode
from webui.paths import Paths
from webui.settings import Settings

LAST_WORDS = 2000  # bytes of the worker's own output that go to the log when it dies


@dataclass(frozen=True, slots=True)
class Received:
    """A message of worker number `worker`; kind "gone" is made here when its pipe ends."""

    worker: int
    message: Message


class WorkerProcess:
    """A running child. Messages come to `receive` from a thread of this object, "gone" last.

    `send` only queues: a child that was stopped in mid-read must not stop its parent. Everything else is for one
    thread, the supervisor's, which is also the one that makes it.
    """

    def __init__(
        self,
        number: int,
        settings: Settings,
        paths: Paths,
        factory: worker.EngineFactory,
        receive: Callable[[Received], None],
    ) -> None:
        self.number = number
        self.heard = time.monotonic()  # when anything came from it, by the clock of time.monotonic
        self.started = self.heard
        self._receive = receive
        self._outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._output = paths.log_dir / worker.OUTPUT_LOG
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        # daemon: Python itself ends it, should the front leave without having called `end`.
        self._process = context.Process(
            target=worker.main, args=(theirs, settings, paths, factory), name="engine-worker", daemon=True
        )
        if hasattr(signal, "pthread_sigmask"):
            # Inherited by the child, so that Ctrl-C cannot hit it before it ignores the signal itself.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._process.start()
        theirs.close()
        self._threads = [
            threading.Thread(target=target, name=f"worker-{number}-{target.__name__.strip('_')}", daemon=True)
            for target in (self._read, self._write)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the number of the signal that ended it."""
        return self._process.exitcode

    def send(self, message: Message) -> None:
        self._outbox.put(message)

    def kill(self) -> None:
        """End it now, whatever it does."""
        self._process.kill()

    def end(self, patience: float) -> int | None:
        """Wait `patience` seconds for it to end by itself, then kill it. Gives the exit code; nothing is left over."""
        self._process.join(patience)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join(5)
        self._outbox.put(None)
        for thread in self._threads:  # the other end is closed now, so both find that out
            if thread is not threading.current_thread():
                thread.join(1)
        self._connection.close()
        return self._process.exitcode

    def last_words(self) -> str:
        """The end of what it printed; "" when there is nothing."""
        try:
            with Path(self._output).open("rb") as file:
                file.seek(max(0, self._output.stat().st_size - LAST_WORDS))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""

    def _read(self) -> None:
        while True:
            try:
                message = decode(self._connection.recv_bytes(MAX_FRAME))
            except (EOFError, OSError, ValueError):
                self._receive(Received(self.number, Message("gone")))
                return
            self.heard = time.monotonic()
            self._receive(Received(self.number, message))

    def _write(self) -> None:
        while True:
            message = self._outbox.get()
            if message is None:
                return
            try:
                self._connection.send_bytes(encode(message))
            except (OSError, ValueError):
                return  # gone; the reader tells


def signal_name(number: int) -> str:
    """ "SIGKILL" for 9; the number where the platform has no name for it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def explain_exit(code: int | None) -> tuple[str, str]:
    """(what happened, what to do) for the exit code of a worker that nobody asked to end."""
    if code is None:
        return "The engine worker broke off the connection.", "Run the job again; the log may tell more."
    if code == worker.EXIT_DEVICE_LOST:
        return "The graphics device failed.", "If it happens again, restart the machine or update its driver."
    if code >= 0:
        return f"The engine worker ended by itself (exit code {code}).", "Run the job again; the log may tell more."
    name = signal_name(-code)
    advice = {
        "SIGKILL": "The system may have run out of memory: try a smaller picture or batch, or --medvram.",
        "SIGBUS": "A model file may have changed while it was in use: check it, then run the job again.",
        "SIGILL": "A library does not fit this processor: run the doctor command and see the log.",
    }.get(name, "A driver or a library may be at fault: run the job again, and see the log if it happens again.")
    return f"The engine worker died (signal {-code}, {name}).", advice


def log_record(data: dict[str, Any]) -> None:
    """A log record of the worker, into this process's log."""
    level = int(data.get("level", logging.INFO))
    text = str(data.get("text", ""))
    if data.get("trace"):
        text = f"{text}\n{data['trace']}"
    logging.getLogger(str(data.get("name") or "webui.engine")).log(level, "%s", text)


def device_line(report: Mapping[str, Any]) -> str:
    """The device, the precision and the reason for both, for the console."""
    parts = [f"Device: {report.get('name') or report.get('device') or 'unknown'}"]
    if report.get("precision"):
        vae = f" (VAE {report['vae_precision']})" if report.get("vae_precision") != report["precision"] else ""
        parts.append(f"{report['precision']}{vae}")
    if report.get("attention"):
        parts.append(f"{report['attention']} attention")
    return f"{', '.join(parts)}. {report.get('reason', '')}".strip()
