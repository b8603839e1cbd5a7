"""A scripted JobService and Catalog: real states, steps, previews and files, no engine. Tests of the faces use it."""

from __future__ import annotations

import io
import threading
import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from embedded import EMBEDDED_CHECKPOINT
from PIL import Image, ImageFilter, PngImagePlugin

from webui.caches import CacheState, known_caches
from webui.errors import ModelNotFound, NotFound, QueueFull
from webui.jobs.states import OVER, JobState
from webui.params import GenerationParams
from webui.settings import Settings

GB = 2**30


@dataclass(frozen=True)
class FakeModel:
    name: str = EMBEDDED_CHECKPOINT.name
    family: str = "SD1"
    size: int = 42_500_000
    native_size: int = 128
    prediction: str = "v"
    short_hash: str | None = "0a1b2c3d4e"
    runnable: bool = True
    reason: str = ""
    kind: str = "checkpoint"
    is_pickle: bool = False
    guided: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    variant: str = ""
    context_dim: int = 768

    @property
    def title(self) -> str:
        return f"{self.name} [{self.short_hash}]" if self.short_hash else self.name

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def name_without_suffix(self) -> str:
        return self.stem

    @property
    def sha256(self) -> str | None:
        return self.short_hash and self.short_hash + "0" * 54

    @property
    def old_hash(self) -> str | None:
        return None


class FakeCatalog:
    def __init__(self) -> None:
        self.checkpoints = (
            FakeModel(),
            FakeModel("photo/base-v15.safetensors", "SD1", 2_132_000_000, 512, "eps", "6ce0161689"),
            FakeModel("sdxl-base.safetensors", "SDXL", 6_940_000_000, 1024, "eps", None, False, "SDXL cannot run yet."),
        )
        self.vaes = (FakeModel("vae-ft-mse-840000.safetensors", "VAE", 334_000_000, 512, "eps", "735e4c3a44"),)
        self.upscalers = (FakeModel("realesr-animevideov3.safetensors", "upscaler", 1_200_000, 0),)
        self.face_restorers: tuple[FakeModel, ...] = ()
        self.loras: tuple[FakeModel, ...] = ()
        self.embeddings: tuple[FakeModel, ...] = ()
        self.hypernetworks: tuple[FakeModel, ...] = ()
        self.refreshed = 0

    def refresh(self) -> None:
        self.refreshed += 1

    def find_checkpoint(self, alias: str) -> FakeModel:
        for model in self.checkpoints:
            if alias in (model.name, model.stem, model.title):
                return model
        raise ModelNotFound(f'No checkpoint answers to "{alias}".')

    def default_checkpoint(self, preferred: str, *, allow_pickle: bool = False) -> FakeModel | None:
        return next((m for m in self.checkpoints if preferred and m.name == preferred), self.checkpoints[0])

    def resolve(self, params: GenerationParams, settings: Settings) -> GenerationParams:
        checkpoint = params.checkpoint or self.checkpoints[0].name
        model = next((m for m in self.checkpoints if m.name == checkpoint), self.checkpoints[0])
        size = {"width": params.width or model.native_size, "height": params.height or model.native_size}
        return params.changed(checkpoint=checkpoint, **size).with_fixed_seeds()


@dataclass
class _Job:
    view: dict[str, Any]
    preview: bytes | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    skip: threading.Event = field(default_factory=threading.Event)


def _picture(params: GenerationParams, seed: int, size: int = 512) -> Image.Image:
    """A smooth picture that depends on the seed, at the requested aspect ratio."""
    width, height = params.width or size, params.height or size
    hue = seed * 47 % 255
    base = Image.new("HSV", (4, 4))
    base.putdata([((hue + 11 * i) % 255, 120 + 5 * i, 250 - 9 * i) for i in range(16)])
    return base.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


class FakeJobs:
    """One job at a time, `seconds_per_step` each step. A prompt that says "fail" fails half-way."""

    def __init__(self, outputs: Path, catalog: FakeCatalog, seconds_per_step: float = 0.02, max_pending: int = 500):
        self.outputs = outputs
        self.catalog = catalog
        self.pause = seconds_per_step
        self.max_pending = max_pending
        self._jobs: dict[str, _Job] = {}
        self._keys: dict[str, str] = {}
        self._lock = threading.RLock()
        self._rev = 0
        self._wake = threading.Event()
        self._ended = False
        self._state = "ready"
        self._count = 0
        self.selected: tuple[str | None, str | None] | None = None
        self.applied: Settings | None = None
        self.restarts = 0
        self.kept = [CacheState("checkpoints", 1, 40 * 10**6, 1, 0, ("emoji.safetensors",))]

    def start(self) -> None:
        threading.Thread(target=self._work, daemon=True).start()

    def stop(self) -> None:
        self._ended = True
        self._wake.set()

    def submit(self, params: GenerationParams, user: str = "", key: str | None = None) -> str:
        params = self.catalog.resolve(params, Settings())
        with self._lock:
            if key and key in self._keys:
                return self._keys[key]
            if sum(j.view["state"] == "pending" for j in self._jobs.values()) >= self.max_pending:
                raise QueueFull("The queue is full.", "Wait until some jobs are done.")
            job_id = uuid.uuid4().hex
            self._jobs[job_id] = _Job(
                {
                    "id": job_id, "rev": 0, "user": user, "state": "pending", "position": None,
                    "params": params.model_dump(mode="json"), "created": time.time(), "started": None,
                    "finished": None, "phase": "waiting", "line": "", "step": 0, "steps": params.steps, "batch": 0,
                    "batches": params.batch_count, "rate": 0.0, "seconds_left": None, "progress": 0.0, "preview": 0,
                    "images": [], "image_count": 0, "warnings": [], "seconds": {}, "peak_memory": None, "error": None,
                }
            )  # fmt: skip
            if key:
                self._keys[key] = job_id
            self._changed(job_id)
        self._wake.set()
        return job_id

    def view(self, job_id: str) -> dict[str, Any] | None:
        with self._lock:
            job = self._jobs.get(job_id)
            return dict(job.view) if job else None

    def preview(self, job_id: str) -> bytes | None:
        job = self._jobs.get(job_id)
        return job.preview if job else None

    def started_from(self, user: str, reference: str) -> bool:
        return False

    def list(
        self,
        limit: int = 50,
        user: str | None = None,
        states: Collection[JobState] = tuple(JobState),
        pictures: int | None = None,
    ) -> list[dict[str, Any]]:
        with self._lock:
            views = [{**j.view, "images": j.view["images"][:pictures]} for j in reversed(self._jobs.values())]
            return [v for v in views if v["state"] in states and user in (None, v["user"])][:limit]

    def in_turn(self, limit: int = 50, user: str | None = None, pictures: int | None = None) -> Any:
        running, waiting, over = (
            self.list(limit, user, states, pictures) for states in ((JobState.running,), (JobState.pending,), OVER)
        )
        return [*running, *reversed(waiting), *over]

    def interrupt(self, job_id: str) -> bool:
        job = self._jobs[job_id]
        if job.view["state"] == "pending":
            return self.cancel(job_id)
        job.stop.set()
        return job.view["state"] == "running"

    def skip(self, job_id: str) -> bool:
        self._jobs[job_id].skip.set()
        return self._jobs[job_id].view["state"] == "running"

    def cancel(self, job_id: str) -> bool:
        with self._lock:
            if self._jobs[job_id].view["state"] != "pending":
                return False
            self._changed(job_id, state="cancelled", phase="", finished=time.time())
            return True

    def move_up(self, job_id: str, user: str | None = None) -> bool:
        with self._lock:
            waiting = [
                i for i, j in self._jobs.items() if j.view["state"] == "pending" and user in (None, j.view["user"])
            ]
            return job_id in waiting[1:] and self.move(job_id, waiting.index(job_id) - 1)

    def move(self, job_id: str, position: int = 0, user: str | None = None) -> bool:
        with self._lock:
            waiting = [i for i, j in self._jobs.items() if j.view["state"] == "pending"]
            if job_id not in waiting:
                return False
            waiting.remove(job_id)
            waiting.insert(max(position, 0), job_id)
            for entry in waiting:
                self._jobs[entry] = self._jobs.pop(entry)
            self._changed(job_id)
            return True

    def retry(self, job_id: str) -> str:
        if job_id not in self._jobs:
            raise NotFound("There is no such job.")
        return self.submit(GenerationParams(**self._jobs[job_id].view["params"]), self._jobs[job_id].view["user"])

    problem = ""

    def picture(self, job_id: str, index: int) -> bytes | None:
        return None

    def set_selected(self, checkpoint: str | None, vae: str | None = None) -> None:
        self.selected = (checkpoint, vae)

    def caches(self) -> tuple[CacheState, ...]:
        return tuple(self.kept)

    def clear_caches(self, names: Iterable[str] = ()) -> bool:
        cleared = known_caches(names)
        self.kept = [replace(c, entries=0, bytes=0, held=()) if c.name in cleared else c for c in self.kept]
        return any(job.view["state"] == "running" for job in self._jobs.values())

    def restart_worker(self) -> None:
        self.restarts += 1

    def apply_settings(self, settings: Settings) -> None:
        self.applied = settings

    def worker(self) -> dict[str, Any]:
        memory = {"device": "cpu", "used": int(1.3 * GB), "reserved": 0, "total": 16 * GB, "peak": int(1.6 * GB)}
        return {"state": self._state, "device": "cpu", "memory": memory, "detail": "fp32, SDPA attention"}

    def _changed(self, job_id: str, **values: Any) -> None:
        with self._lock:
            self._jobs[job_id].view.update(values)
            waiting = [j.view for j in self._jobs.values() if j.view["state"] == "pending"]
            for view in self._jobs.values():
                view.view["position"] = None
            for position, view in enumerate(waiting):
                view["position"] = position
                self._rev += 1
                view["rev"] = self._rev
            self._rev += 1
            self._jobs[job_id].view["rev"] = self._rev

    def _work(self) -> None:
        while not self._ended:
            with self._lock:
                job_id = next((i for i, j in self._jobs.items() if j.view["state"] == "pending"), None)
            if job_id is None:
                self._wake.wait(0.05)
                self._wake.clear()
                continue
            self._state = "busy"
            self._run(job_id)
            self._state = "ready"

    def _run(self, job_id: str) -> None:
        job = self._jobs[job_id]
        params = GenerationParams(**job.view["params"])
        began = time.time()
        self._changed(
            job_id, state="running", phase="loading", started=began, line=f"Loading weights from {params.checkpoint}"
        )
        time.sleep(self.pause * 5)
        total = params.steps * params.batch_count
        index = 0
        for batch in range(1, params.batch_count + 1):
            job.skip.clear()
            for step in range(1, params.steps + 1):
                time.sleep(self.pause)
                if job.stop.is_set() or job.skip.is_set():
                    break
                if "fail" in params.prompt and step > params.steps // 2:
                    error = {
                        "error": "OutOfMemory",
                        "message": "The device ran out of memory at step 11 of 20.",
                        "advice": "Choose a smaller size or batch, or start with --medvram.",
                    }
                    self._changed(job_id, state="failed", phase="", finished=time.time(), error=error)
                    return
                done = (batch - 1) * params.steps + step
                blur = _picture(params, params.seed + index).filter(
                    ImageFilter.GaussianBlur(20 * (1 - step / params.steps))
                )
                buffer = io.BytesIO()
                blur.save(buffer, "JPEG", quality=70)
                job.preview = buffer.getvalue()
                self._changed(
                    job_id, phase="sampling", step=step, steps=params.steps, batch=batch, batches=params.batch_count,
                    rate=1 / self.pause, seconds_left=(total - done) * self.pause, progress=done / total,
                    preview=job.view["preview"] + 1,
                )  # fmt: skip
            for _ in range(params.batch_size):
                if not job.skip.is_set():
                    self._save(job_id, params, index)
                index += 1
            if job.stop.is_set():
                break
        seconds = {"load": 0.1, "encode": 0.02, "sample": time.time() - began, "decode": 0.05, "save": 0.01}
        seconds["total"] = sum(seconds.values())
        state = "interrupted" if job.stop.is_set() else "done"
        job.preview = None
        self._changed(
            job_id, state=state, phase="", finished=time.time(), progress=1.0, seconds=seconds,
            peak_memory=int(1.6 * GB), seconds_left=0.0,
        )  # fmt: skip

    def _save(self, job_id: str, params: GenerationParams, index: int) -> None:
        seed = params.seeds_of(index)[0]
        text = (
            f"{params.prompt}\nNegative prompt: {params.negative_prompt}\nSteps: {params.steps}, "
            f"Sampler: {params.sampler}, "
            f"Schedule type: {params.schedule}, CFG scale: {params.cfg_scale:g}, Seed: {seed}, "
            f"Size: {params.width}x{params.height}, Model hash: 0a1b2c3d4e, Model: {EMBEDDED_CHECKPOINT.stem}"
        )
        path = self.outputs / "txt2img-images" / "2026-11-23" / f"{self._count:05d}-{seed}.png"
        self._count += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", text)
        _picture(params, seed).save(path, pnginfo=info)
        images = [*self._jobs[job_id].view["images"], {
            "index": index, "path": path.relative_to(self.outputs).as_posix(), "seed": seed, "width": params.width,
            "height": params.height, "infotext": text, "error": "",
        }]  # fmt: skip
        self._changed(job_id, images=images, image_count=len(images))
