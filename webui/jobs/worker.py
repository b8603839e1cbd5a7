"""The engine worker: a child process that owns the device and runs one job at a time.

`main` is its whole life. The engine is made by a callable that the parent hands over, so that nothing here imports
torch. Three threads: the main one runs jobs, one listens to the parent (and ends the process when the parent is gone),
one sends a heartbeat with the memory in use about every second.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, runtime_checkable

from webui.caches import CacheState
from webui.errors import DeviceLost, EngineFault, OutOfMemory, WebUIError
from webui.events import Event, Failed, Finished, Image, Memory
from webui.jobs.wire import MAX_FRAME, Message, decode, encode, event_message, message_event
from webui.params import GenerationParams, params_from_json
from webui.paths import Paths
from webui.settings import Settings

if TYPE_CHECKING:
    from webui.engine.control import Control
    from webui.history import Recorder

logger = logging.getLogger(__name__)

HEARTBEAT = 1.0  # seconds
TERM_PATIENCE = 8.0  # seconds; more than the front takes to end its connections and then the job
EXIT_DEVICE_LOST = 75  # sysexits: a temporary failure, try again
OUTPUT_LOG = "worker-output.log"  # what libraries print, and what C code says before it aborts
MAX_OUTPUT_LOG = 2**20  # bytes; a longer one is emptied at the next start

# Before any library is imported: nothing may reach for the network.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

_DEVICE_LOST_TEXTS = ("cuda error", "illegal memory access", "device-side assert", "device lost", "hip error")


class EngineLike(Protocol):
    """What the worker needs of `webui.engine.Engine`."""

    def generate(
        self, params: GenerationParams, control: Control | None = None, *, user: str = "", made: Sequence[Image] = ()
    ) -> Iterator[Event]: ...

    def load(self, checkpoint: str | None = None, vae: str | None = None) -> Iterator[Event]: ...

    def memory(self) -> Memory: ...

    def report(self) -> Any: ...


@runtime_checkable
class Recording(Protocol):
    """An engine whose pictures are recorded: a job's stream has to say whose it is."""

    def following(self, stream: Iterator[Event], *, job: str, user: str) -> Iterator[Event]: ...


@runtime_checkable
class Caching(Protocol):
    """An engine that keeps things from job to job, which can be seen and cleared."""

    def caches(self) -> Sequence[CacheState]: ...

    def clear(self, names: Sequence[str] = ()) -> None: ...


class _Whole(EngineLike, Caching, Protocol): ...


EngineFactory = Callable[[Settings, Paths], EngineLike]


class RecordedEngine:
    """An engine and the recorder that its save hook belongs to (see `webui.history.recorder`)."""

    def __init__(self, engine: _Whole, recorder: Recorder) -> None:
        self.caches = engine.caches
        self.clear = engine.clear
        self.generate = engine.generate
        self.load = engine.load
        self.memory = engine.memory
        self.report = engine.report
        self.following = recorder.following


def real_engine(settings: Settings, paths: Paths) -> EngineLike:
    """The engine of the product, with history and extensions. Called in the worker alone: torch is imported here."""
    from webui.engine import Engine
    from webui.extensions.start import start
    from webui.history import Recorder

    _, extensions = start(paths, settings, "engine")
    recorder = Recorder(paths)
    return RecordedEngine(Engine(settings, paths, save_hook=recorder.saving, extensions=extensions), recorder)


def main(connection: Connection, settings: Settings, paths: Paths, factory: EngineFactory) -> None:
    """Run until the parent says stop or is gone. The exit status tells what happened (`process.explain_exit`)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _put_off_sigterm()
    os.environ.update(ENVIRONMENT)
    _redirect_output(paths)
    channel = _Channel(connection)
    root = logging.getLogger()
    root.handlers[:] = [_Forward(channel)]
    root.setLevel(logging.WARNING)
    logging.getLogger("webui").setLevel(logging.INFO)
    logging.captureWarnings(True)
    worker = _Worker(channel)
    worker.start_threads()
    try:
        engine = factory(settings, paths)
        report = engine.report()
    except Exception as error:
        logger.exception("the engine could not start")
        channel.send(Message("broken", data=as_error(error).to_dict()))
        _leave(1)
    worker.serve(engine, report)
    _leave(0)


class _Channel:
    """Sends whole messages from any thread."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        frame = encode(message)
        try:
            with self._lock:
                self.connection.send_bytes(frame)
        except OSError:
            _leave(0)  # the parent is gone, and so is every reason to go on


class _Worker:
    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._tasks: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._controls: dict[str, Control] = {}
        self._engine: EngineLike | None = None

    def start_threads(self) -> None:
        for target in (self._listen, self._beat):
            threading.Thread(target=target, name=target.__name__, daemon=True).start()

    def serve(self, engine: EngineLike, report: Any) -> None:
        """Run jobs until told to stop."""
        self._engine = engine
        facts = dataclasses.asdict(report) if dataclasses.is_dataclass(report) else report  # type: ignore[arg-type]
        self._channel.send(Message("ready", data={"report": facts}))
        while True:
            message = self._tasks.get()
            if message.kind == "stop":
                return
            if message.kind == "job":
                self._run(engine, message)
            elif message.kind == "load":
                self._load(engine, message)
            elif message.kind == "clear" and isinstance(engine, Caching):
                engine.clear(message.data["names"])
            kept = [dataclasses.asdict(cache) for cache in engine.caches()] if isinstance(engine, Caching) else []
            self._channel.send(Message("idle", message.job, {"caches": kept}))

    def _run(self, engine: EngineLike, message: Message) -> None:
        """One job. Whatever happens, exactly one of Finished and Failed is said."""
        over = False
        try:
            params = params_from_json(message.data["params"])
            user = message.data.get("user", "")
            told = [message_event(Message("event", data=event)) for event in message.data.get("made", ())]
            made = [event for event in told if isinstance(event, Image)]
            stream = engine.generate(params, self._controls[message.job], user=user, made=made)
            if isinstance(engine, Recording):
                stream = engine.following(stream, job=message.job, user=user)
            for event in stream:
                if over:
                    continue
                if isinstance(event, Failed) and event.error.get("error") == DeviceLost.__name__:
                    self._device_lost(message.job, event.error)
                self._channel.send(event_message(message.job, event))
                over = isinstance(event, Finished | Failed)
        except Exception as error:
            logger.exception("job %s failed", message.job)
            problem = as_error(error)
            if isinstance(problem, DeviceLost):
                self._device_lost(message.job, problem.to_dict())
            if not over:
                self._channel.send(event_message(message.job, Failed(problem.to_dict())))
            over = True
        finally:
            self._controls.pop(message.job, None)
        if not over:
            fault = EngineFault("The engine ended the job without a result.", "Try again; the log may tell more.")
            self._channel.send(event_message(message.job, Failed(fault.to_dict())))

    def _load(self, engine: EngineLike, message: Message) -> None:
        """Load ahead. A failure is told, and comes again with the job that needs the model."""
        try:
            for event in engine.load(message.data["checkpoint"], message.data["vae"]):
                self._channel.send(event_message("", event))
        except Exception as error:
            problem = as_error(error)
            if isinstance(problem, DeviceLost):
                self._device_lost("", problem.to_dict())
            if isinstance(problem, EngineFault):
                logger.exception("loading ahead failed")
            self._channel.send(event_message("", Failed(problem.to_dict())))

    def _device_lost(self, job: str, error: dict[str, str]) -> NoReturn:
        """Every later call to the device would fail as well: only a new process helps."""
        self._channel.send(Message("device_lost", job, dict(error)))
        _leave(EXIT_DEVICE_LOST)

    def _listen(self) -> None:
        from webui.engine.control import Control

        while True:
            try:
                message = decode(self._channel.connection.recv_bytes(MAX_FRAME))
            except (EOFError, OSError):
                _leave(0)  # the parent is gone
            control = self._controls.get(message.job)
            if message.kind == "interrupt":
                if control is not None:
                    control.interrupt()
            elif message.kind == "skip":
                if control is not None:
                    control.skip()
            else:
                if message.kind == "job":
                    self._controls[message.job] = Control()
                self._tasks.put(message)

    def _beat(self) -> None:
        told = False
        while True:
            memory = None
            if self._engine is not None:
                try:
                    memory = dataclasses.asdict(self._engine.memory())
                except Exception:  # a meter that fails must not look like a worker that hangs
                    if not told:
                        logger.exception("the memory in use cannot be read")
                        told = True
            self._channel.send(Message("heartbeat", data={"memory": memory}))
            time.sleep(HEARTBEAT)


class _Forward(logging.Handler):
    """Sends log records to the parent, which owns the log file."""

    def __init__(self, channel: _Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = {"level": record.levelno, "name": record.name, "text": record.getMessage(), "trace": ""}
            if record.exc_info:
                data["trace"] = logging.Formatter().formatException(record.exc_info)
            self._channel.send(Message("log", data=data))
        except Exception:
            self.handleError(record)


def as_error(error: BaseException) -> WebUIError:
    """What to tell the user about anything that was raised."""
    if isinstance(error, WebUIError):
        return error
    text = str(error)
    if isinstance(error, MemoryError) or "out of memory" in text.casefold():
        return OutOfMemory("The machine ran out of memory.", "Try a smaller picture or batch, or close other programs.")
    if any(mark in text.casefold() for mark in _DEVICE_LOST_TEXTS):
        return DeviceLost("The graphics device failed.", "Restart the machine if it happens again.")
    line = next(iter(text.strip().splitlines()), "")[:300]
    return EngineFault(
        f"The engine failed: {type(error).__name__}{': ' if line else ''}{line}", "The log file has the details."
    )


def _put_off_sigterm() -> None:
    """Die of SIGTERM only after a while: where the whole group gets it, the parent ends the job in its orderly way.

    Not ignored for ever, because a parent that leaves without a word waits for the end of a child that it sent this to.
    A thread waits for the signal, as a handler in Python would not run while the main thread is inside a library.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return  # Windows has no such signal from outside

    def wait() -> None:
        signal.sigwait({signal.SIGTERM})
        time.sleep(TERM_PATIENCE)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.kill(os.getpid(), signal.SIGTERM)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # here, and so in every thread that is begun later
    threading.Thread(target=wait, name="sigterm", daemon=True).start()


def _redirect_output(paths: Paths) -> None:
    """Prints of libraries and last words of C code go to a file, not through the console's progress bar."""
    try:
        paths.log_dir.mkdir(parents=True, exist_ok=True)
        path = paths.log_dir / OUTPUT_LOG
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        if path.exists() and path.stat().st_size > MAX_OUTPUT_LOG:
            flags |= os.O_TRUNC
        handle = os.open(path, flags, 0o600)
    except OSError:
        return  # a folder that cannot be written costs the last words, nothing more
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    faulthandler.enable()


def _leave(status: int) -> NoReturn:
    """End at once: nothing here has to be put in order, and interpreters with torch take a second to fold up."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue  # closed, or never there
    os._exit(status)
