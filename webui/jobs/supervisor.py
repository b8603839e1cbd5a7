"""Keeps one engine worker alive, gives it one job at a time, and says what became of each.

One thread does everything; what it decides on comes through one inbox. A worker that dies or stops answering costs
the job it was at, never the queue: it is replaced, with a growing pause, until it has crashed too often in a row.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from webui.caches import CacheState
from webui.errors import DeviceLost, WebUIError, WorkerDied
from webui.events import Event, Failed, Finished, Image, Loaded, Loading, Memory, Started, to_json_dict
from webui.jobs.crashes import Crashes
from webui.jobs.live import loading_line
from webui.jobs.patience import patience_scale
from webui.jobs.process import Received, WorkerProcess, device_line, explain_exit, log_record
from webui.jobs.wire import Message, message_event
from webui.jobs.worker import EXIT_DEVICE_LOST

logger = logging.getLogger(__name__)

TICK = 0.5  # seconds between looks at the clock
LOADING_PATIENCE = 10  # times the usual: nothing is said while a large file comes from a slow disk
INBOX = 256  # messages; when it is full, the worker waits
END_PATIENCE = 0.7  # seconds that a worker at rest gets to end by itself
STOP_PATIENCE = 3.0  # seconds that a running job gets to save what it has when the program stops


class WorkerState(str, Enum):
    starting = "starting"
    ready = "ready"
    busy = "busy"
    restarting = "restarting"
    failed = "failed"
    stopped = "stopped"


@dataclass(frozen=True, slots=True)
class Assignment:
    """A claimed job: its params as canonical JSON, how much longer than a 512x512 picture it may be silent, whose.

    `made`: what a first run of it has saved, which the second one need not make.
    """

    id: str
    params_json: str
    scale: float
    user: str = ""
    made: tuple[Image, ...] = ()


class Host(Protocol):
    """Who has the jobs. Called by the supervisor's thread alone."""

    def claim(self) -> Assignment | None:
        """The next job, made running; None when none waits."""

    def event(self, job: str, event: Event) -> None:
        """The worker said something; job "" for what belongs to none. Finished and Failed end the job."""

    def failed(self, job: str, error: WebUIError) -> None:
        """The job ended with its worker."""

    def requeued(self, job: str, error: WebUIError) -> bool:
        """The device was lost under the job. False if it had its second chance already."""

    def lost(self, job: str) -> None:
        """The program ends before the job could."""


@dataclass(slots=True)
class _Current:
    id: str
    patience: float  # seconds of silence that are allowed
    last_event: float
    loading: bool = True
    interrupted: bool = False


class Supervisor:
    """Owns the worker process. `launch(number, receive)` starts one; `timeout()` is the allowed silence in seconds."""

    def __init__(
        self,
        launch: Callable[[int, Callable[[Received], None]], WorkerProcess],
        host: Host,
        timeout: Callable[[], float],
    ) -> None:
        self._launch = launch
        self._host = host
        self._timeout = timeout
        self._inbox: queue.Queue[Received | None] = queue.Queue(INBOX)
        self._lock = threading.Lock()  # over _current and the order of messages about it
        self._current: _Current | None = None
        self._worker: WorkerProcess | None = None
        self._number = 0
        self._idle = False  # the worker waits for something to do
        self._preload: tuple[str | None, str | None] | None = None  # asked for, not yet sent
        self._preloading = False
        self._waiting_since = 0.0  # when it was last given something to do, or said that a job was over
        self._clear: set[str] = set()  # caches that are to be emptied
        self._selected: tuple[str | None, str | None] | None = None
        self._crashes = Crashes()
        self._restart_at: float | None = None
        self._restart_wanted = False
        self._revive_wanted = False
        self._kill_reason: tuple[str, str] | None = None
        self._held = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._last_tick = time.monotonic()
        self.state = WorkerState.starting
        self.detail = ""
        self.report: dict[str, Any] = {}
        self.memory: Memory | None = None
        self.caches: tuple[CacheState, ...] = ()  # as they were after the last job

    # For any thread

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There may be a new job."""
        with contextlib.suppress(queue.Full):  # then the thread is awake
            self._inbox.put_nowait(None)

    def revive(self) -> None:
        """Somebody wants something done: forget the crashes and try again, if it was given up."""
        self._revive_wanted = self.state is WorkerState.failed
        self.wake()

    def restart(self) -> None:
        """Replace the worker as soon as it is idle; at once if it was given up."""
        self._restart_wanted = True
        self.revive()

    def preload(self, checkpoint: str | None, vae: str | None) -> None:
        """Have a model read before a job asks for it. The latest wish counts."""
        with self._lock:
            self._selected = self._preload = (checkpoint, vae)
        self.wake()

    def unload(self) -> None:
        """Give all memory of the device back, as soon as the worker is idle; nothing is read ahead until asked for."""
        with self._lock:
            self._selected = self._preload = None
        self.restart()

    def clear(self, names: Iterable[str]) -> bool:
        """Have these caches emptied, before any other job begins; whether something runs, for which that waits."""
        with self._lock:
            self._clear.update(names)
            waits = self._current is not None or self._preloading
        self.wake()
        return waits

    def interrupt(self, job: str) -> bool:
        """End that job early, if it is the one that runs."""
        return self._steer(job, "interrupt")

    def skip(self, job: str) -> bool:
        """End the picture in the making, if that job runs."""
        return self._steer(job, "skip")

    def _steer(self, job: str, kind: str) -> bool:
        with self._lock:
            if self._current is None or self._current.id != job or self._worker is None:
                return False
            self._current.interrupted |= kind == "interrupt"
            self._worker.send(Message(kind, job))
            return True

    @property
    def pid(self) -> int | None:
        worker = self._worker
        return worker.pid if worker else None

    def hold(self) -> None:
        """Begin no job and start no worker any more: the program is about to stop. For signal handlers, so no lock."""
        self._held = True

    def stop(self) -> None:
        """Interrupt what runs, end the worker, and come back in less than five seconds."""
        self._stopping.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join()

    # The thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._start_if_due()
                self._dispatch()
                self._wait(TICK)
                self._check_silence()
            except Exception:  # whatever it is, the queue goes on
                logger.exception("the supervisor met a fault")
                self._stopping.wait(TICK)
        self._shut_down()

    def _wait(self, seconds: float) -> None:
        """Take messages: at most `seconds` until the first, then whatever is there."""
        if self._restart_at is not None and not self._held:
            seconds = min(seconds, max(0.0, self._restart_at - time.monotonic()))
        try:
            received = self._inbox.get(timeout=seconds)
            for _ in range(INBOX):  # a flood must not keep this thread from its watch
                if received is not None:
                    self._take(received)
                received = self._inbox.get_nowait()
            if received is not None:
                self._take(received)
        except queue.Empty:
            return

    def _start_if_due(self) -> None:
        if self._revive_wanted:
            self._revive_wanted = False
            if self.state is WorkerState.failed:
                self._crashes.clear()
                self.state = WorkerState.restarting
        if self._worker is not None or self._held or self.state is WorkerState.failed:
            return
        if self._restart_at is not None and time.monotonic() < self._restart_at:
            return
        self._restart_at = None
        self._restart_wanted = False
        self._idle = False
        self._kill_reason = None
        self._number += 1
        self._waiting_since = time.monotonic()
        try:
            self._worker = self._launch(self._number, self._inbox.put)
        except Exception as error:
            logger.exception("the engine worker could not be started")
            self._crashed(f"The engine worker could not be started: {error}.")

    def _dispatch(self) -> None:
        """Give an idle worker something to do."""
        if self._worker is None or not self._idle or self._held or self._stopping.is_set():
            return
        if self._restart_wanted:
            self._replace()
            return
        with self._lock:
            if self._clear:
                names, self._clear = sorted(self._clear), set()
                self._busy_with(Message("clear", data={"names": names}))
                return
            # Claimed under the lock: an interrupt finds the job either waiting in the queue or running here.
            assignment = self._host.claim()
            if assignment is not None:
                self._current = _Current(assignment.id, self._timeout() * assignment.scale, time.monotonic())
                made = [to_json_dict(image) for image in assignment.made]
                job = {"params": assignment.params_json, "user": assignment.user, "made": made}
                self._busy_with(Message("job", assignment.id, job))
            elif self._preload is not None:  # only when no job waits: each brings its own model
                checkpoint, vae = self._preload
                self._preload = None
                self._preloading = True
                self._busy_with(Message("load", data={"checkpoint": checkpoint, "vae": vae}))

    def _busy_with(self, message: Message) -> None:
        assert self._worker is not None
        self._idle = False
        self._waiting_since = time.monotonic()
        self.state = WorkerState.busy
        self._worker.send(message)

    def _replace(self) -> None:
        """End an idle worker on purpose."""
        assert self._worker is not None
        self._worker.send(Message("stop"))
        self._worker.end(1.0)
        self._forget_worker()
        self.state = WorkerState.restarting
        self.detail = ""
        with self._lock:
            self._preload = self._preload or self._selected

    def _forget_worker(self) -> None:
        self._worker = None
        self._idle = False
        self._preloading = False
        self.memory = None
        self.caches = ()

    def _take(self, received: Received) -> None:
        worker = self._worker
        if worker is None or received.worker != worker.number:
            return  # from one that was replaced
        message = received.message
        if message.kind == "heartbeat":
            self._heartbeat(message)
        elif message.kind == "event":
            self._event(message)
        elif message.kind == "idle":
            self._became_idle(message)
        elif message.kind == "ready":
            self.report = message.data.get("report") or {}
            logger.info("%s", device_line(self.report), extra={"show": True})
            self.detail = ""
            self._became_idle(message)
        elif message.kind == "broken":
            self._kill_reason = (f"The engine could not start: {message.data['message']}", message.data["advice"])
        elif message.kind == "device_lost":
            logger.error("the device was lost: %s", message.data.get("message", ""))
        elif message.kind == "log":
            log_record(message.data)
        elif message.kind == "gone":
            self._gone(worker)

    def _became_idle(self, message: Message) -> None:
        with self._lock:
            unfinished = self._current.id if self._current and message.kind == "idle" else None
            self._current = None
            self._idle = True
            self._preloading = False
            self.state = WorkerState.ready
            self.caches = tuple(
                CacheState(**{**cache, "held": tuple(cache["held"])}) for cache in message.data.get("caches", ())
            )
        if unfinished is not None:  # cannot happen with our worker; a job must never stay running for ever
            self._host.failed(unfinished, WorkerDied("The engine worker left the job without a result."))

    def _heartbeat(self, message: Message) -> None:
        if message.data.get("memory"):
            self.memory = Memory(**message.data["memory"])
            current = self._current
            self._host.event(current.id if current else "", self.memory)

    def _event(self, message: Message) -> None:
        event = message_event(message)
        if isinstance(event, Memory):
            self.memory = event
        if isinstance(event, Loading):
            self.detail = loading_line(event)  # not its line, which names a folder: everybody may see this
        elif isinstance(event, Loaded | Failed):
            self.detail = ""
        if not message.job:
            self._host.event("", event)
            return
        current = self._current
        if current is None or current.id != message.job:
            return  # the job is over already; its worker may say what it likes
        current.last_event = time.monotonic()
        current.loading = isinstance(event, Loading)
        if isinstance(event, Started):  # the size may follow from a picture that only the worker has opened
            current.patience = max(current.patience, self._timeout() * patience_scale(event.width * event.height))
        if isinstance(event, Finished | Failed):
            with self._lock:
                self._current = None  # from here on an interrupt of this job does nothing
                self._waiting_since = time.monotonic()  # for the worker's "idle", however old the worker is
            if isinstance(event, Finished):
                self._crashes.clear()
        self._host.event(message.job, event)

    # Trouble

    def _check_silence(self) -> None:
        """Kill a worker that does not answer: no heartbeat, or no event of a job that should have some."""
        now = time.monotonic()
        asleep = now - self._last_tick > 10 * TICK  # this process itself was stopped, or the machine slept
        self._last_tick = now
        worker = self._worker
        if worker is None:
            return
        if asleep:
            worker.heard = self._waiting_since = now
            if self._current:
                self._current.last_event = now
            return
        current = self._current
        patience = max(self._timeout(), current.patience if current else 0.0)
        if worker.heard == worker.started:
            patience *= LOADING_PATIENCE  # Python itself is still coming up
        if worker.exit_code is not None and now - worker.heard > 2:
            self._gone(worker)  # dead, though something it started still holds its pipe
        elif now - worker.heard > patience:
            self._hangs(worker, f"The engine worker did not answer for {now - worker.heard:.0f} seconds.")
        elif current is not None:
            silence = now - current.last_event
            if silence > current.patience * (LOADING_PATIENCE if current.loading else 1):
                self._hangs(worker, f"The job made no progress for {silence:.0f} seconds.")
        elif not self._idle:
            silence = now - self._waiting_since
            if silence > patience * LOADING_PATIENCE:
                self._hangs(worker, f"The engine worker was not ready after {silence:.0f} seconds.")

    def _hangs(self, worker: WorkerProcess, what: str) -> None:
        self._kill_reason = (
            f"{what} It was stopped.",
            "Try a smaller picture; for very slow machines raise the time limit in the settings (queue).",
        )
        worker.kill()
        self._gone(worker)

    def _gone(self, worker: WorkerProcess) -> None:
        """The worker has ended without being asked to."""
        code = worker.end(5.0)
        words = worker.last_words()
        what, advice = self._kill_reason or explain_exit(code)
        logger.error("%s%s", what, f" Its last output:\n{words}" if words else "")
        device_lost = code == EXIT_DEVICE_LOST
        error = DeviceLost(what, advice) if device_lost else WorkerDied(what, advice)
        with self._lock:
            failed = self._current
            # Under the lock: an interrupt finds the job either running here or waiting in the queue again.
            if failed and device_lost and not failed.interrupted and self._host.requeued(failed.id, error):
                failed = None
            self._current = None
            if not self._preloading:  # what kills it while it loads ahead is not loaded ahead again
                self._preload = self._preload or self._selected
        self._forget_worker()
        if failed is not None:
            self._host.failed(failed.id, error)
        self._crashed(what, advice)

    def _crashed(self, what: str, advice: str = "") -> None:
        self.detail = f"{what} {advice}".strip()
        pause = self._crashes.add()
        if pause is None:
            self.state = WorkerState.failed
            logger.error("the engine worker crashed too often in a row; it is not restarted by itself any more")
        else:
            self.state = WorkerState.restarting
            self._restart_at = time.monotonic() + pause

    def _shut_down(self) -> None:
        """The clean end: interrupt, wait a little, end the process whatever it does."""
        deadline = time.monotonic() + STOP_PATIENCE
        worker = self._worker
        if worker is not None:
            current = self._current
            if current is not None:
                worker.send(Message("interrupt", current.id))
            while self._current is not None and self._worker is worker and time.monotonic() < deadline:
                self._wait(max(0.0, min(0.1, deadline - time.monotonic())))
            worker.send(Message("stop"))
            if self._worker is worker:
                worker.end(END_PATIENCE if self._idle or self._current is None else 0.0)
        with self._lock:
            left, self._current = self._current, None
        if left is not None:
            self._host.lost(left.id)
        self._forget_worker()
        self.state = WorkerState.stopped
