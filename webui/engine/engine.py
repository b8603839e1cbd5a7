"""`Engine`: params in, events out. It owns the device, the networks, and one thread in which all of torch runs."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from webui.caches import CacheState, known_caches
from webui.catalog import Catalog, ModelFile
from webui.engine.attempts import free_memory_of
from webui.engine.caches import cache_states, clear_caches
from webui.engine.checkpoints.models import ModelStore
from webui.engine.compute.attention import Attention
from webui.engine.compute.device import DeviceReport, choose_device
from webui.engine.compute.graphs import Graphs, recorder_for
from webui.engine.compute.kernels import kernels_for
from webui.engine.control import Control
from webui.engine.expansion import run_request
from webui.engine.extensions import register_functions
from webui.engine.faces import Faces
from webui.engine.memory.allocator import KeptPages, keep_pages
from webui.engine.memory.residency import Residency
from webui.engine.memory.usage import free_memory, give_back, is_out_of_memory, out_of_memory, read_memory, total_memory
from webui.engine.networks.library import NetworkLibrary
from webui.engine.shared import Tools
from webui.engine.upscaling import Upscalers
from webui.errors import DeviceLost, EngineFault, WebUIError
from webui.events import Event, Failed, Finished, Image, Memory
from webui.extensions import Host
from webui.params import GenerationParams, make_params
from webui.paths import Paths
from webui.provenance import SaveHook, no_record
from webui.settings import Settings

_POLL_SECONDS = 0.5  # so that Ctrl-C is heard while waiting, on every system
_LOST_DEVICE_TEXTS = (
    "cuda error",
    "device-side assert",
    "illegal memory access",
    "device lost",
    "cublas_status",
    "hip error",
    "internal assert failed",  # of torch's allocator; it stays so until the process ends
)

_log = logging.getLogger(__name__)

Work = Callable[[Callable[[Event], None]], None]


class Engine:
    """Makes pictures. Cheap to make: it picks the device and loads nothing. One job runs at a time.

    `save_hook` is entered around the write of each picture (see `webui.provenance`). `extensions` are asked on the way
    of each job; without, there are none. A job that ends with the error
    `DeviceLost` says that only a new process can use the device again.
    """

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        catalog: Catalog | None = None,
        save_hook: SaveHook = no_record,
        extensions: Host | None = None,
    ) -> None:
        self.device = choose_device(settings.device)
        if self.device.kind == "cpu":
            keep_pages()
        self._pages = KeptPages()
        self.attention = Attention(self.device.device, self.device.dtype, settings.device.attention)
        wanted = settings.device.kernels
        kernels, self._kernels = kernels_for(self.device.device, self.device.dtype, wanted=wanted)
        catalog = catalog or Catalog(paths)
        vram = int(settings.device.vram_limit_gb * 2**30) if self.device.kind == "cuda" else 0
        residency = Residency(self.device.device, self.device.memory, vram or None)
        recorder = recorder_for(self.device.device, wanted=settings.device.graphs)
        self._tools = Tools(
            settings=settings,
            paths=paths,
            catalog=catalog,
            device=self.device,
            residency=residency,
            upscalers=Upscalers(catalog, self.device, settings),
            faces=Faces(catalog, self.device, settings),
            attention=self.attention.name,
            save_hook=save_hook,
            graphs=Graphs(recorder, lambda: free_memory(self.device.device)),
            library=NetworkLibrary(catalog, settings, paths.cache_dir, residency),
            extensions=extensions or Host(side="engine"),
            store=ModelStore(
                device=self.device,
                attention=self.attention,
                kernels=kernels,
                residency=residency,
                cache_dir=paths.cache_dir,
                keep=settings.model.checkpoints_in_memory,
                limit=int(settings.model.memory_limit_gb * 2**30),
                compiled=settings.device.compile,
                allow_pickle=settings.model.allow_pickle,
                sha256=lambda file: _known_hash(catalog, file),
            ),
        )
        register_functions(self._tools.extensions, self._tools.upscalers)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    def generate(
        self, params: GenerationParams, control: Control | None = None, *, user: str = "", made: Sequence[Image] = ()
    ) -> Iterator[Event]:
        """Do a job; the last event is `Finished` or `Failed`. Never raises for a fault of the request or the machine.

        A request of many cells that this `user` began before goes on where it ended; so does any other behind what is
        told to be `made` of it already, which is told again. Leaving the iteration early interrupts the job and waits
        for its end.
        """
        control = control or Control()
        return self._stream(lambda emit: run_request(self._tools, params, control, emit, user, made), control)

    def load(self, checkpoint: str | None = None, vae: str | None = None) -> Iterator[Event]:
        """Load ahead of the first job: the named checkpoint and VAE, or those that the settings choose.

        Ends with the last `Loaded`, or with `Failed`.
        """

        def work(emit: Callable[[Event], None]) -> None:
            tools, model = self._tools, self._tools.settings.model
            wanted = make_params({"checkpoint": checkpoint, "vae": vae or model.vae})
            params = tools.catalog.resolve(wanted, tools.settings)
            file = tools.catalog.find_checkpoint(params.checkpoint or "")
            choice = tools.catalog.resolve_vae(
                file, params.vae, model.vae_overrides_preferences, allow_pickle=model.allow_pickle
            )
            tools.store.vae(tools.store.checkpoint(file, emit), choice, emit)

        return self._stream(work, Control())

    def caches(self) -> tuple[CacheState, ...]:
        """What is kept from job to job. Waits for the running job."""
        return self._executor.submit(cache_states, self._tools).result()

    def clear(self, names: Sequence[str] = ()) -> None:
        """Empty these caches, or all of them. Waits for the running job. Raises `NotFound` for an unknown name."""
        self._executor.submit(clear_caches, self._tools, known_caches(names)).result()

    def memory(self) -> Memory:
        """Memory in use now."""
        return read_memory(self.device.device)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the checkpoints in memory, the one used last at the end."""
        return self._tools.store.loaded

    def report(self) -> DeviceReport:
        """Device, precision and attention backends, with reasons."""
        chosen = self.device
        return DeviceReport(
            device=str(chosen.device),
            name=chosen.name,
            precision=chosen.formats,
            vae_precision=chosen.vae_precision,
            reason=chosen.reason,
            memory_mode=chosen.memory.value,
            torch_version=torch.__version__,
            threads=torch.get_num_threads(),
            total_memory=total_memory(chosen.device),
            attention=self.attention.name,
            backends=self.attention.statuses,
            kernels=self._kernels,
            gpu_build=bool(torch.version.cuda or torch.version.hip),
        )

    def close(self) -> None:
        """Wait for the running job, end the thread, unload everything."""
        self._executor.shutdown(wait=True)
        self._tools.upscalers.networks.clear()
        self._tools.faces.networks.clear()
        self._tools.chunks.clear()
        self._tools.graphs.clear()
        self._tools.store.drop_all()  # gives the memory back

    def _stream(self, work: Work, control: Control) -> Iterator[Event]:
        """Run `work` in the engine's thread and yield what it emits, as it emits it."""
        events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        future = self._executor.submit(self._guarded, work, events.put)
        future.add_done_callback(lambda _done: events.put(None))
        over = False  # the thread may still be tidying up then; the control is the caller's, and may serve another job
        try:
            while not over:
                event = _next(events, future)
                if event is None:
                    return
                over = isinstance(event, Finished | Failed)
                yield event
        finally:
            if not over and not future.done():
                control.interrupt()
            future.result()

    def _guarded(self, work: Work, emit: Callable[[Event], None]) -> None:
        """`work`, with every way to fail turned into a `Failed` event."""
        failure: WebUIError | None = None
        no_memory = False
        try:
            with torch.inference_mode():
                work(emit)
        except WebUIError as error:
            failure = error.with_traceback(None)
        except Exception as error:
            no_memory = is_out_of_memory(error)
            if no_memory:
                _log.warning("Out of memory: %s", str(error).strip().splitlines()[0] if str(error).strip() else error)
                failure = out_of_memory(self.device.kind)
            else:
                _log.exception("The engine failed")
                failure = _fault(error, self.device.kind)
        # Here the traceback is gone, and with its frames the tensors that they held.
        if failure is not None:
            failure.__context__ = failure.__cause__ = None
            if no_memory:
                free_memory_of(self._tools)
            if not isinstance(failure, DeviceLost):
                give_back(self.device.device)
            emit(Failed(failure.to_dict()))
        self._pages.job_over()


def _next(events: queue.SimpleQueue[Event | None], future: Future[None]) -> Event | None:
    while True:
        try:
            return events.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            if future.done() and events.empty():
                return None


def _known_hash(catalog: Catalog, file: ModelFile) -> str:
    """Computed where it is not known: reading the file for it also brings it into the system's cache for loading."""
    return catalog.sha256(file, wait=True)


def _fault(error: Exception, device: str) -> WebUIError:
    first = (str(error).strip().splitlines() or [""])[0][:200]
    if device != "cpu" and any(part in str(error).lower() for part in _LOST_DEVICE_TEXTS):
        return DeviceLost(f"The GPU failed ({first}).", "Restart the machine if it happens again.")
    return EngineFault(
        f"The engine failed ({type(error).__name__}{': ' if first else ''}{first}).",
        "The log has the details; please report it with them.",
    )
