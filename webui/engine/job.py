"""One job from params to saved pictures: load, encode, and for each batch sample, decode, save."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import torch
from PIL import Image as PillowImage
from torch import Tensor

import webui
from webui import infotext, pictures
from webui.catalog import Catalog
from webui.engine.control import Control
from webui.engine.denoise import GroupedDenoiser, Stopped, UnetEvaluator, Watch
from webui.engine.device import DeviceChoice
from webui.engine.extensions import JobExtensions
from webui.engine.inpainting import blank_channels
from webui.engine.memory import PeakMeter, read_memory
from webui.engine.models import LoadedCheckpoint, ModelStore
from webui.engine.networks.library import NetworkLibrary
from webui.engine.networks.used import hash_entries, used_models
from webui.engine.preview import PreviewClock, latent_rgb, render
from webui.engine.progress import Progress
from webui.engine.prompt_reader import PromptReader
from webui.engine.prompts import EncodedPrompts, PicturePrompts
from webui.engine.residency import Residency
from webui.engine.sampling_plan import SamplingPlan
from webui.engine.save import save_picture
from webui.engine.sizes import size_conditioning
from webui.engine.text import ChunkCache, Conditioning, PromptEncoder
from webui.engine.vae import SCALE, Pixels, Vae, decode
from webui.errors import SaveError
from webui.events import Event, Finished, Image, Preview, Started, Warning
from webui.extensions import Host
from webui.params import GenerationParams
from webui.paths import Paths
from webui.provenance import Environment, SavedPicture, SaveHook, UsedModel, no_record
from webui.sampling import GuidedDenoiser, StepInfo
from webui.settings import Settings

MEMORY_EVERY_SECONDS = 0.5
STAGES = ("load", "encode", "sample", "decode", "save")


@dataclass
class Tools:
    """What jobs share: the engine's parts."""

    settings: Settings
    paths: Paths
    catalog: Catalog
    device: DeviceChoice
    residency: Residency
    store: ModelStore
    library: NetworkLibrary
    attention: str  # name of the backend
    save_hook: SaveHook = no_record
    extensions: Host = field(default_factory=lambda: Host(side="engine"))
    chunks: ChunkCache = field(default_factory=ChunkCache)

    def environment(self, vae: Vae) -> Environment:
        """What besides params and models can change a picture's last bits."""
        device = self.device
        on_cpu = device.kind == "cpu"
        return Environment(
            product=webui.__version__,
            torch=torch.__version__,
            diffusers=_version("diffusers"),
            device="cpu" if on_cpu else f"{device.device} {device.name}",
            dtype=str(device.dtype).removeprefix("torch."),
            vae_dtype=str(vae.dtype).removeprefix("torch."),
            attention=f"xformers {_version('xformers')}" if self.attention == "xformers" else self.attention,
            threads=str(torch.get_num_threads()) if on_cpu else "",
        )


@dataclass
class Batch:
    """The clean latents of one batch; `stopped_at` is the step at which it was ended early, 0 when it was not."""

    latents: Tensor
    stopped_at: int = 0


class Job:
    """One request. `run` does it all; the events it emits are described in `webui.events`."""

    def __init__(self, tools: Tools, params: GenerationParams, control: Control, emit: Callable[[Event], None]) -> None:
        self._tools = tools
        self._control = control
        self._emit = emit
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._started = time.perf_counter()
        self._meter = PeakMeter(tools.device.device)
        self._memory_due = 0.0
        self._warned: set[Warning] = set()
        self._notes: list[Warning] = []  # to be told once the sampling has begun
        self._saved = 0
        self._cut_short = False  # a picture was ended early by an interrupt
        self._params = params
        self._extensions = JobExtensions(tools.extensions, params, lambda text: self._warn(Warning("extension", text)))

    def run(self) -> None:
        """Ends with a `Finished` event. Raises the errors of its parts; pictures saved before stay."""
        tools = self._tools
        with self._timed("load"):
            params = self._params = tools.catalog.resolve(self._params, tools.settings)
            checkpoint, vae, note = self._load(params)
        self._prompts = self._picture_prompts(params, checkpoint)
        with self._timed("encode"):
            self._prompts.of_batch(0, params.batch_size)
        sampling = SamplingPlan(params, checkpoint)
        width, height = params.width or checkpoint.file.native_size, params.height or checkpoint.file.native_size
        self._emit(Started(params.pictures, width, height, sampling.steps))
        if note:
            self._warn(Warning("vae", note))
        progress = Progress(sampling.steps, params.batch_count, params.batch_size)
        for index in range(params.batch_count):
            if self._control.interrupted:
                break
            with self._timed("encode"):
                conditionings = self._prompts.of_batch(index * params.batch_size, params.batch_size)
            self._tell_notes()
            with self._timed("sample"):
                batch = self._sample(index, sampling, checkpoint, vae, conditionings, progress)
            self._control.batch_done()
            if batch is not None:
                if checkpoint.mapped:
                    checkpoint.check_unchanged()
                self._cut_short |= batch.stopped_at > 0 and self._control.interrupted
                self._finish(index, batch, checkpoint, vae, progress)
        self._show_memory()
        total = time.perf_counter() - self._started
        interrupted = self._control.interrupted and (self._cut_short or self._saved < params.pictures)
        self._emit(Finished(self._saved, {**self._seconds, "total": total}, self._meter.peak, interrupted))

    def _load(self, params: GenerationParams) -> tuple[LoadedCheckpoint, Vae, str]:
        tools, model = self._tools, self._tools.settings.model
        file = tools.catalog.find_checkpoint(params.checkpoint or "")
        choice = tools.catalog.resolve_vae(
            file, params.vae, model.vae_overrides_preferences, allow_pickle=model.allow_pickle
        )
        checkpoint = tools.store.checkpoint(file, self._emit)
        vae = tools.store.vae(checkpoint, choice, self._emit)
        if tools.settings.preview.enabled and checkpoint.rgb is None:
            checkpoint.rgb = latent_rgb(vae, checkpoint.sidecar)
        return checkpoint, vae, choice.note

    def _picture_prompts(self, params: GenerationParams, checkpoint: LoadedCheckpoint) -> PicturePrompts:
        tools = self._tools
        encoder = PromptEncoder(
            checkpoint.text_encoders,
            checkpoint.key,
            tools.chunks,
            tools.device.device,
            tools.residency,
            zero_empty_negative=checkpoint.zeroes_empty_negative,
        )

        reader = PromptReader(checkpoint, encoder, tools.library, self._notes, self._emit)

        def encode(chosen: GenerationParams) -> EncodedPrompts:
            encoded = reader.encode(chosen)
            return replace(encoded, conditioning=self._extensions.conditioning(encoded.conditioning))

        return PicturePrompts(params, tools.paths.wildcards, encode, self._notes.append)

    def _tell_notes(self) -> None:
        for note in self._notes:
            self._warn(note)
        self._notes.clear()

    def _sample(
        self,
        index: int,
        sampling: SamplingPlan,
        checkpoint: LoadedCheckpoint,
        vae: Vae,
        conditionings: Sequence[Conditioning],
        progress: Progress,
    ) -> Batch | None:
        """The clean latents of batch `index`; None when it was stopped before there were any."""
        tools, params, device = self._tools, self._params, self._tools.device.device
        first = index * params.batch_size
        noise = sampling.noise(first, vae, device)
        cells = noise.shape[-2:]
        sizes = size_conditioning(params, checkpoint, width=cells[1] * SCALE, height=cells[0] * SCALE)
        channels = blank_channels(vae, cells[0], cells[1]) if checkpoint.extra_channels else None
        watch = Watch(checkpoint.file.name, tools.device.precision)
        clock = PreviewClock(tools.settings.preview.every_seconds)
        done = 0

        def stop_if_asked() -> None:
            if self._control.stopping:
                raise Stopped

        def after_step(info: StepInfo) -> None:
            nonlocal done
            done = info.index + 1
            step = progress.step(index, done)
            self._emit(step)
            if checkpoint.rgb is not None and tools.settings.preview.enabled:
                rgb = checkpoint.rgb
                jpeg = clock.maybe(lambda: render(info.denoised, rgb, tools.settings.preview.max_side))
                if jpeg is not None:
                    self._emit(Preview(jpeg, step.step))
            self._show_memory(MEMORY_EVERY_SECONDS)
            if done < sampling.steps:
                stop_if_asked()

        progress.start_batch()
        with tools.residency.using(checkpoint.unet) as unet:

            def denoiser_of(conditioning: Conditioning) -> GuidedDenoiser:
                evaluate = UnetEvaluator(
                    unet,
                    conditioning,
                    sampling.table,
                    checkpoint.prediction,
                    dtype=tools.device.dtype,
                    quantize=params.quantize_timesteps,
                    check=stop_if_asked,
                    sizes=sizes,
                    channels=channels,
                )
                return GuidedDenoiser(
                    evaluate,
                    cfg_scale=params.cfg_scale,
                    total_calls=sampling.total_calls,
                    hooks=(*sampling.hooks(), *self._extensions.guidance()),
                )

            denoiser = GroupedDenoiser(conditionings, denoiser_of, watch)
            try:
                return Batch(sampling.run(denoiser, noise, after_step))
            except Stopped:
                return None if watch.denoised is None else Batch(watch.denoised, max(1, done))

    def _finish(self, index: int, batch: Batch, checkpoint: LoadedCheckpoint, vae: Vae, progress: Progress) -> None:
        """Decode and save a batch, picture by picture."""
        first = index * self._params.batch_size
        for i in range(batch.latents.shape[0]):
            with self._timed("decode") as timer:
                dtype = vae.dtype
                pixels = decode(vae, batch.latents[i : i + 1], self._tools.device, self._warn, lambda: None)
                if vae.dtype is not dtype:
                    self._tools.store.remember_precision(vae)
            pixels = self._extensions.decoded(pixels, first + i)
            progress.decoded(timer())
            with self._timed("save"):
                self._save(first + i, pixels, batch.stopped_at, checkpoint, vae)
            self._show_memory(MEMORY_EVERY_SECONDS)

    def _save(self, index: int, pixels: Pixels, stopped_at: int, checkpoint: LoadedCheckpoint, vae: Vae) -> None:
        params, networks = self._prompts.params_of(index), self._prompts.networks_of(index)
        extra = (("Stopped at step", str(stopped_at)),) if stopped_at else ()
        text = infotext.format(
            params,
            index=index,
            model_name=checkpoint.file.stem,
            model_hash=checkpoint.short_hash,
            vae_name=vae.name if vae.external else None,
            vae_hash=vae.short_hash if vae.external else None,
            extra=(*hash_entries(networks), *extra),
        )
        seed = params.seeds_of(index)[0]
        picture = PillowImage.fromarray(pixels)
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        height, width = pixels.shape[:2]
        path, error, png = "", "", b""

        models = (*_used(checkpoint, vae), *used_models(networks))
        environment = self._tools.environment(vae)

        def saved_as(target: Path) -> SavedPicture:
            return SavedPicture(params, index, target, width, height, text, digest, environment, models)

        def record(target: Path) -> AbstractContextManager[None]:
            return self._tools.save_hook(saved_as(target))

        data = pictures.encode(picture, params.image_format, params.image_quality, text)
        try:
            if params.save:
                written = pictures.file_format(params.image_format, width, height, text)
                today = datetime.date.today()
                path = str(save_picture(self._tools.paths.outputs, data, seed, written, today, record))
                self._extensions.saved(saved_as(Path(path)))
            else:
                png = data
        except SaveError as failure:
            error = str(failure)
            png = pictures.encode(picture, "png", params.image_quality, text)
        self._saved += 1
        self._emit(Image(index, path, seed, width, height, text, digest, error, png))

    def _warn(self, warning: Warning) -> None:
        """Each thing is said once a job."""
        if warning not in self._warned:
            self._warned.add(warning)
            self._emit(warning)

    def _show_memory(self, every_seconds: float = 0.0) -> None:
        now = time.perf_counter()
        if now >= self._memory_due or not every_seconds:
            self._meter.sample()
            self._emit(read_memory(self._tools.device.device, self._meter.peak))
            self._memory_due = now + every_seconds

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[Callable[[], float]]:
        """Add the time of the block to its stage; yields a function that tells the time so far."""
        started = time.perf_counter()
        try:
            yield lambda: time.perf_counter() - started
        finally:
            self._seconds[stage] += time.perf_counter() - started


def _used(checkpoint: LoadedCheckpoint, vae: Vae) -> tuple[UsedModel, ...]:
    models = [UsedModel("checkpoint", checkpoint.file.name, checkpoint.sha256)]
    if vae.external:
        models.append(UsedModel("vae", vae.name, vae.sha256))
    return tuple(models)


@lru_cache(maxsize=8)
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
