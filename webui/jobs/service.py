"""`JobService`: everything the faces (page, API, scripts) may do with jobs. Threads only; every call is cheap.

It ties the parts together: the queue keeps the records, the supervisor runs them one by one, events are folded into
the live view and go to the bus.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from webui.caches import CacheState, known_caches
from webui.errors import InvalidParams, NotFound, WebUIError, WorkerDied
from webui.events import Event, Failed, Finished, Image, Preview, Warning
from webui.jobs.bus import Bus, Watcher
from webui.jobs.kept import KeptPictures
from webui.jobs.live import Live, as_dict, end_of, failed_result, fold, from_record, image_dict, to_result
from webui.jobs.lock import InstanceLock
from webui.jobs.patience import largest_batch, patience_scale
from webui.jobs.process import Received, WorkerProcess
from webui.jobs.queue import JobQueue, JobRecord
from webui.jobs.states import OVER, JobState
from webui.jobs.supervisor import Assignment, Supervisor, WorkerState
from webui.jobs.wire import without_bytes
from webui.jobs.worker import EngineFactory, real_engine
from webui.params import GenerationParams, params_from_json
from webui.paths import Paths
from webui.settings import Settings

logger = logging.getLogger(__name__)

MAX_INFOTEXT = 16 * 2**20  # characters of one job's parameters texts in memory; the files hold them anyway

LOST = WorkerDied("The program was stopped while this job ran.", "Run it again.")


class Resolver(Protocol):
    """What jobs need of `webui.catalog.Catalog`."""

    def resolve(self, params: GenerationParams, settings: Settings) -> GenerationParams: ...

    def default_checkpoint(self, preferred: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Running:
    record: JobRecord
    live: Live
    saved: list[Image] = field(default_factory=list)


class JobService:
    """Submit, watch and steer jobs. `on_event(job id, event)` is called for every event, in a thread of its own.

    `factory` makes the engine inside the worker process, so it is a function at a module's top level.
    """

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        catalog: Resolver,
        on_event: Callable[[str, Event], None] | None = None,
        *,
        factory: EngineFactory = real_engine,
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._catalog = catalog
        self._on_event = on_event
        self._factory = factory
        self._bus = Bus()
        self._lock = threading.Lock()  # over what the worker said last
        self._running: _Running | None = None  # written by the supervisor's thread alone
        self._to_repeat: _Running | None = None  # a job that is to run once more, as far as it came
        self._kept = KeptPictures()
        self._infotext_left = MAX_INFOTEXT
        self._worker_said: tuple[WorkerState, str] = (WorkerState.starting, "")
        self._worker_rev = 0
        self._instance: InstanceLock | None = None
        self._queue_or_none: JobQueue | None = None
        self._supervisor = Supervisor(self._launch, self, lambda: self._settings.queue.worker_timeout_seconds)
        self._listener: threading.Thread | None = None
        self._problem = ""  # the latest trouble with the job file, in a sentence

    # Start and stop

    def start(self) -> None:
        """Take the data folder, open the queue, start the worker, and have the selected model loaded ahead.

        Raises `AlreadyRunning` when another instance has the folder.
        """
        self._instance = InstanceLock(self._paths.cache_dir / "instance.lock")
        self._queue_or_none = JobQueue(
            self._paths.queue_db, tell=self._tell, resident=self._settings.model.checkpoints_in_memory
        )
        lost = self._queue.recover(failed_result(LOST))
        if lost:
            logger.warning("%d job(s) ran when the program ended last time; they can be run again", len(lost))
        if self._on_event is not None:
            watcher = self._bus.watch()
            self._listener = threading.Thread(target=self._listen, args=(watcher,), name="job-events", daemon=True)
            self._listener.start()
        self._supervisor.start()
        chosen = self._catalog.default_checkpoint(self._settings.model.checkpoint)
        if chosen is not None:
            self.set_selected(chosen.name, self._settings.model.vae)

    def hold(self) -> None:
        """Begin no waiting job any more: it would be interrupted by the `stop` that follows. For signal handlers."""
        self._supervisor.hold()

    def stop(self) -> None:
        """Interrupt the running job, keep what it finished, end the worker; below five seconds. Twice is harmless."""
        if self._instance is None:
            return
        self._supervisor.stop()
        self._bus.close()
        if self._listener is not None:
            self._listener.join(0.5)
        queue, self._queue_or_none = self._queue, None
        queue.close()
        self._instance.release()
        self._instance = None

    @property
    def _queue(self) -> JobQueue:
        if self._queue_or_none is None:
            raise WebUIError("The job queue is not open.", "The program starts or stops; try again in a moment.")
        return self._queue_or_none

    # Jobs in

    def submit(self, params: GenerationParams, user: str = "", key: str | None = None) -> str:
        """Queue a job and give its id. The same user's same `key` gives the job that it made before.

        Raises `QueueFull`, and `InvalidParams` or `ModelNotFound` for what cannot be made.
        """
        complete = self._catalog.resolve(params, self._settings).with_fixed_seeds()
        limits = self._settings.queue
        record = self._queue.enqueue(
            complete.canonical_json(),
            user=user,
            key=key,
            max_pending=limits.max_pending,
            max_own=limits.max_pending_per_user if user else None,  # whoever sits at the machine has no limit of theirs
        )
        self._supervisor.revive()
        return record.id

    def retry(self, job_id: str) -> str:
        """Queue a job that is over once more, as a new one with the same params. Gives the new id.

        Raises `NotFound`, and `InvalidParams` while the job still waits or runs.
        """
        record = self._queue.get(job_id)
        if not record.state.over:
            raise InvalidParams(f"The job is still {record.state.value}.", "Wait for it, or cancel it first.")
        return self.submit(params_from_json(record.params_json), user=record.user)

    # Steering, by job id; False when the job was not in a state where it does anything

    def interrupt(self, job_id: str) -> bool:
        """End a running job and keep what it finished; a waiting one is cancelled. Raises `NotFound`."""
        self._queue.get(job_id)
        # Running first, then waiting, then running again: the claim may happen between the first two looks.
        return self._supervisor.interrupt(job_id) or self._cancel(job_id) or self._supervisor.interrupt(job_id)

    def cancel(self, job_id: str) -> bool:
        """Take a waiting job out of the queue; one that was claimed a moment before is interrupted. `NotFound`."""
        return self.interrupt(job_id)

    def skip(self, job_id: str) -> bool:
        """Leave the picture (batch) in the making and go on with the next. Raises `NotFound`."""
        self._queue.get(job_id)
        return self._supervisor.skip(job_id)

    def cancel_all_pending(self, user: str | None = None) -> int:
        """Empty the queue, of one user or of all. Gives how many jobs were cancelled."""
        ids = self._queue.pending_ids(user)
        return sum(self._cancel(job_id) for job_id in ids)

    def move(self, job_id: str, position: int = 0, user: str | None = None) -> bool:
        """Let a waiting job run at `position` (0 = next): of all jobs, or among those of `user`."""
        return self._queue.reorder(job_id, position, user=user)

    def move_up(self, job_id: str, user: str | None = None) -> bool:
        """Let a waiting job run one place earlier, of all jobs or among those of `user`."""
        ids = self._queue.pending_ids(user)
        return job_id in ids[1:] and self.move(job_id, ids.index(job_id) - 1, user)

    def _cancel(self, job_id: str) -> bool:
        done = self._queue.transition(job_id, JobState.pending, JobState.cancelled)
        if done:
            self._bus.publish(job_id, Finished(0, {}, 0, interrupted=True))
        return done

    # Looking

    def inputs(self) -> set[str]:
        """References of the pictures that jobs start from: they are not to be cleaned away."""
        return self._queue.inputs()

    def started_from(self, user: str, reference: str) -> bool:
        """Whether a job of this user starts from that picture."""
        return self._queue.started_from(user, reference)

    def view(self, job_id: str) -> dict[str, Any] | None:
        """The job as it stands now, or None. `rev` grows with each change."""
        running = self._running
        if running is not None and running.record.id == job_id:
            return as_dict(running.record, running.live, None)
        try:
            record = self._queue.get(job_id)
        except NotFound:
            return None
        return self._view(record, self._queue.position(job_id))

    def running(self) -> dict[str, Any] | None:
        """The view of the job that runs now, whoever's it is."""
        running = self._running
        return None if running is None else as_dict(running.record, running.live, None)

    def in_turn(self, limit: int = 50, user: str | None = None, pictures: int | None = None) -> list[dict[str, Any]]:
        """As views: what runs, up to `limit` jobs that wait, the next one first, and as many that ended last.

        Of each its first `pictures`, or all.
        """
        running = self._queue.list(limit, user=user, states=(JobState.running,), pictures=pictures)
        waiting = [self._queue.get(job_id) for job_id in self._queue.pending_ids(user)[:limit]]
        ended = self._queue.list(limit, user=user, states=OVER, pictures=pictures)
        return self._views({record.id: record for record in (*running, *waiting, *ended)}.values(), pictures)

    def _views(self, records: Iterable[JobRecord], pictures: int | None) -> list[dict[str, Any]]:
        positions = {job_id: position for position, job_id in enumerate(self._queue.pending_ids())}
        return [self._view(record, positions.get(record.id), pictures) for record in records]

    def list(
        self,
        limit: int = 50,
        user: str | None = None,
        states: Collection[JobState] = tuple(JobState),
        pictures: int | None = None,
    ) -> list[dict[str, Any]]:
        """The newest jobs first, as views; of each its first `pictures`, or all."""
        return self._views(self._queue.list(limit, user=user, states=states, pictures=pictures), pictures)

    def _view(self, record: JobRecord, position: int | None, pictures: int | None = None) -> dict[str, Any]:
        running = self._running
        if running is not None and running.record.id == record.id:
            return as_dict(running.record, running.live, None, pictures)
        live = from_record(record)
        if record.state is JobState.pending:
            state, detail, rev = self._worker_news()
            words = {WorkerState.starting: "The engine is starting.", WorkerState.restarting: "The engine restarts."}
            line = detail or words.get(state, "") if position == 0 else ""
            live = replace(live, rev=max(record.rev, self._queue.order_rev, rev), line=line)
        return as_dict(record, live, position, pictures)

    def _worker_news(self) -> tuple[WorkerState, str, int]:
        """The worker's state and what it does, with a revision that grows when they change."""
        with self._lock:
            said = (self._supervisor.state, self._supervisor.detail)
            if said != self._worker_said:
                self._worker_said = said
                self._worker_rev = self._queue.revisions.next()
            return (*said, self._worker_rev)

    def preview(self, job_id: str) -> bytes | None:
        """The newest preview as JPEG, from memory."""
        return self._kept.preview(job_id)

    def picture(self, job_id: str, index: int) -> bytes | None:
        """A finished picture that is in no file, because it was not to be saved or could not be."""
        return self._kept.unsaved(job_id, index)

    def take_picture(self, job_id: str, index: int) -> bytes | None:
        """The same, for the last time: it makes room for others."""
        return self._kept.take_unsaved(job_id, index)

    def watch(self, job_id: str | None = None, after: int | None = None, by: str | None = None) -> Watcher:
        """Events as (sequence, event): of one job from its beginning to its end, or of all jobs from now on.

        `after` is the last sequence number that was seen. A slow watcher misses steps and previews, never pictures,
        warnings or the end. `by` is the user who follows over the network, if somebody does. Raises `NotFound`, and
        `TooBusy` where too many do.
        """
        if job_id is None:
            return self._bus.watch(None, after, by=by)
        record = self._queue.get(job_id)
        retold = end_of(record, from_record(record)) if record.state.over else None
        return self._bus.watch(job_id, after or 0, retold, by)

    # The worker

    def worker(self) -> dict[str, Any]:
        """State, device, memory in bytes and what it does, for the page's footer."""
        supervisor = self._supervisor
        memory = supervisor.memory
        return {
            "state": supervisor.state.value,
            "device": str(supervisor.report.get("device", "")),
            "memory": asdict(memory) if memory else None,
            "detail": supervisor.detail,
        }

    def report(self) -> dict[str, Any]:
        """What the worker found out about the device; empty until it is ready."""
        return dict(self._supervisor.report)

    @property
    def problem(self) -> str:
        """Why jobs are not kept at present; "" when they are."""
        return "" if self._queue.durable else self._problem

    def set_selected(self, checkpoint: str | None, vae: str | None = None) -> None:
        """Have this model loaded before a job asks for it, and again after a restart of the worker."""
        self._supervisor.preload(checkpoint, vae)

    def unload(self) -> None:
        """Have no model in memory, as soon as no job runs, until a job or `set_selected` needs one."""
        self._supervisor.unload()

    def caches(self) -> tuple[CacheState, ...]:
        """What the worker keeps in memory from job to job, as it was after the last one; empty before that."""
        return self._supervisor.caches

    def clear_caches(self, names: Iterable[str] = ()) -> bool:
        """Have these emptied, or all of them: now, or when the running job is over, which is what the answer says.

        Raises `NotFound` for an unknown name.
        """
        return self._supervisor.clear(known_caches(names))

    def restart_worker(self) -> None:
        """Start a new worker: at once if the old one was given up, else when it has nothing to do."""
        self._supervisor.restart()

    def apply_settings(self, settings: Settings) -> None:
        """Put new settings in force. The worker is replaced, when idle, if they change what the engine does."""
        old, self._settings = self._settings, settings
        if self._queue_or_none is not None:
            self._queue_or_none.resident = settings.model.checkpoints_in_memory
        if _engine_part(old) != _engine_part(settings):
            self._supervisor.restart()

    def _launch(self, number: int, receive: Callable[[Received], None]) -> WorkerProcess:
        return WorkerProcess(number, self._settings, self._paths, self._factory, receive)

    def _tell(self, problem: str) -> None:
        self._problem = problem
        logger.warning("%s", problem)

    def _listen(self, watcher: Watcher) -> None:
        assert self._on_event is not None
        for entry in watcher.entries():
            try:
                self._on_event(entry.job, entry.event)
            except Exception:  # a listener's fault is no fault of the job
                logger.exception("the listener of job events failed")

    # `supervisor.Host`: called by the supervisor's thread alone

    def claim(self) -> Assignment | None:
        if self._instance is not None:
            self._instance.look()
        while True:
            record = self._queue.claim()
            if record is None:
                return None
            try:
                params = params_from_json(record.params_json)
            except InvalidParams as error:  # written by another version
                self._queue.transition(record.id, JobState.running, JobState.failed, result=failed_result(error))
                self._bus.publish(record.id, Failed(error.to_dict()))
                continue
            live = Live(
                rev=self._queue.revisions.next(), phase="loading", steps=params.steps, batches=params.batch_count
            )
            self._running = _Running(record, replace(live, warnings=from_record(record).warnings))
            self._infotext_left = MAX_INFOTEXT
            made: tuple[Image, ...] = ()
            if self._to_repeat is not None and self._to_repeat.record.id == record.id:
                made, self._to_repeat = tuple(self._to_repeat.saved), None
            scale = patience_scale(largest_batch(params))
            return Assignment(record.id, record.params_json, scale, record.user, made)

    def event(self, job: str, event: Event) -> None:
        running = self._running
        if running is None or running.record.id != job:
            self._bus.publish(job, event)
            return
        if isinstance(event, Image):
            event = self._keep_image(running, event)
        elif isinstance(event, Preview):
            self._kept.keep_preview(job, event.jpeg)
        live = fold(running.live, event, self._queue.revisions.next(), self._paths.outputs)
        if isinstance(event, Finished):
            self._end(job, JobState.interrupted if event.interrupted else JobState.done, live)
        elif isinstance(event, Failed):
            self._end(job, JobState.failed, live)
        else:
            self._running = replace(running, live=live)
        self._bus.publish(job, without_bytes(event))

    def failed(self, job: str, error: WebUIError) -> None:
        self.event(job, Failed(error.to_dict()))

    def requeued(self, job: str, error: WebUIError) -> bool:
        running = self._running
        if running is None or running.record.id != job or running.record.attempts > 1:
            return False
        warning = Warning("device_lost", f"{error.message} The job was run again.")
        live = fold(Live(), warning, 0, self._paths.outputs)
        self._queue.transition(job, JobState.running, JobState.pending, result=to_result(live))
        self._running, self._to_repeat = None, running
        self._bus.publish(job, warning)
        return True

    def lost(self, job: str) -> None:
        running = self._running
        live = running.live if running is not None and running.record.id == job else Live()
        self._end(job, JobState.lost, replace(live, error=LOST.to_dict()))
        self._bus.publish(job, Failed(LOST.to_dict()))

    def _end(self, job: str, state: JobState, live: Live) -> None:
        self._queue.transition(job, JobState.running, state, result=to_result(live), rev=live.rev)
        self._running = None  # after the record is written: a view finds the job in one place or the other

    def _keep_image(self, running: _Running, image: Image) -> Image:
        """Write the picture's facts down, keep its pixels if the disk did not. Gives the event as it is told on."""
        self._infotext_left -= len(image.infotext)
        if self._infotext_left < 0:
            image = replace(image, infotext="")
        if image.png:
            self._kept.keep_unsaved(running.record.id, image.index, image.png)
        elif image.path:
            running.saved.append(image)
        self._queue.add_image(running.record.id, image_dict(image, self._paths.outputs))
        return image


def _engine_part(settings: Settings) -> Any:
    """The settings that an engine is made with; the selected model is told apart."""
    model = replace(settings.model, checkpoint="", vae="")
    return (model, settings.device, settings.preview, settings.extensions)
