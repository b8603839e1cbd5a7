"""One job from params to saved pictures: load, encode, and for each batch sample, decode, save."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor

from webui import infotext
from webui.engine.begin import Beginning, pixels_of
from webui.engine.control import Control
from webui.engine.denoise import GroupedDenoiser, Stopped, UnetEvaluator, Watch, guidance_embedding
from webui.engine.enlarge import enlarged
from webui.engine.extensions import JobExtensions
from webui.engine.inpainting import blank_channels
from webui.engine.keeping import MadePicture, keep_picture
from webui.engine.memory import PeakMeter, read_memory
from webui.engine.models import LoadedCheckpoint
from webui.engine.networks.used import UsedNetwork, hash_entries, used_models
from webui.engine.passes import Batch, Pass, Tiles, part_of
from webui.engine.preview import SD_CHANNELS, PreviewClock, latent_rgb, render
from webui.engine.progress import Progress
from webui.engine.prompt_reader import PromptReader
from webui.engine.prompts import EncodedPrompts, PicturePrompts
from webui.engine.refiner import Refiner, Resident, Switch, check_latents, refining
from webui.engine.sampling_plan import Part, SamplingPlan, Start
from webui.engine.sd_upscale import Grid, whole_cells
from webui.engine.seamless import Axes, seamless
from webui.engine.shared import Tools
from webui.engine.sizes import size_conditioning
from webui.engine.text import Conditioning, PromptEncoder
from webui.engine.tiny_decoder import find_tiny_decoder, load_tiny_decoder
from webui.engine.vae import SCALE, Vae, decode, encode
from webui.events import Event, Finished, Preview, Started, Warning
from webui.inputs import InputStore
from webui.params import GenerationParams
from webui.pictures.canvas import flattened
from webui.pictures.colours import corrected
from webui.pictures.resizing import lanczos
from webui.provenance import UsedModel
from webui.sampling import Evaluate, GuidedDenoiser, StepInfo

MEMORY_EVERY_SECONDS = 0.5
STAGES = ("load", "encode", "sample", "decode", "save")


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
            first = self._first = self._pass(params, part_of(params))
            second = self._second = self._hires_pass(first)
        with self._timed("encode"):
            first.prompts.of_batch(0, params.batch_size)
            begin = self._begin = self._beginning(first)
        try:
            with self._timed("upscale" if params.sd_upscale else "encode"):
                self._tiles = self._enlarged_picture(first)
        except Stopped:
            self._end()
            return
        size = self._size(second)
        steps = (0 if self._skips_first else first.sampling.steps) + (second.sampling.steps if second else 0)
        steps *= len(self._tiles.grid) if self._tiles is not None else 1
        self._emit(Started(params.pictures, *size, steps))
        self._notes += [] if begin is None else begin.notes
        for note in dict.fromkeys(one.note for one in (first, second) if one is not None and one.note):
            self._warn(Warning("vae", note))
        rounds = params.pictures if self._tiles is not None else params.batch_count
        progress = Progress(steps, rounds, params.pictures // rounds)
        for index in range(params.batch_count):
            if self._control.interrupted:
                break
            if self._tiles is not None:
                self._make_in_tiles(index, self._tiles, progress)
                continue
            batch = self._make(index, progress)
            self._control.batch_done()
            if batch is not None:
                for one in (first, second):
                    for drawn in () if one is None else one.checkpoints:
                        if drawn.mapped:
                            drawn.check_unchanged()
                self._cut_short |= batch.stopped_at > 0 and self._control.interrupted
                self._finish(index, batch, second or first, progress)
        self._end()

    def _end(self) -> None:
        """The job's last words."""
        self._show_memory()
        total = time.perf_counter() - self._started
        interrupted = self._control.interrupted and (self._cut_short or self._saved < self._params.pictures)
        self._emit(Finished(self._saved, {**self._seconds, "total": total}, self._meter.peak, interrupted))

    @property
    def _skips_first(self) -> bool:
        """Whether there is a finished picture in place of the first pass."""
        return self._params.hires is not None and self._params.hires.first_pass is not None

    def _pass(self, params: GenerationParams, part: Part | None = None, after: Pass | None = None) -> Pass:
        """Everything for one pass; `after`: it is the hires pass of that first one."""
        if after is not None and (params.checkpoint, params.vae) == (after.params.checkpoint, after.params.vae):
            checkpoint, vae, note = after.checkpoint, after.vae, after.note
        else:
            checkpoint, vae, note = self._load(params)
        prompts = self._picture_prompts(
            params if after is None else after.params, checkpoint, params if after else None
        )
        refiner = self._refiner(params, checkpoint, after)
        return Pass(params, SamplingPlan(params, checkpoint, part), checkpoint, vae, prompts, note, refiner)

    def _refiner(self, params: GenerationParams, checkpoint: LoadedCheckpoint, after: Pass | None) -> Refiner | None:
        """Who draws the end of the last pass, None where nobody else does."""
        if params.refiner is None or params.hires is not None or params.refiner == checkpoint.file.name:
            return None
        file = self._tools.catalog.find_checkpoint(params.refiner)
        loaded = self._tools.store.checkpoint(file, self._emit, beside=str(checkpoint.file.path))
        check_latents(checkpoint, loaded)
        whole, second = (params, None) if after is None else (after.params, params)
        return Refiner(loaded, self._picture_prompts(whole, loaded, second))

    def _hires_pass(self, first: Pass) -> Pass | None:
        hires = first.params.hires
        if hires is None:
            return None
        return self._pass(first.params.second_pass(), Part(hires.denoising_strength, exact=True), first)

    def _beginning(self, first: Pass) -> Beginning | None:
        """The picture to start from, encoded; None where there is none."""
        if first.params.init is None or first.params.sd_upscale is not None:
            return None
        inputs = InputStore(self._tools.paths.outputs)
        encode, prepare = (lambda image: self._encode(first, image)), self._extensions.preprocess
        return Beginning(first.params, inputs, encode, self._tools.device.device, prepare)

    def _load(self, params: GenerationParams) -> tuple[LoadedCheckpoint, Vae, str]:
        tools, model = self._tools, self._tools.settings.model
        file = tools.catalog.find_checkpoint(params.checkpoint or "")
        choice = tools.catalog.resolve_vae(
            file, params.vae, model.vae_overrides_preferences, allow_pickle=model.allow_pickle
        )
        refiner = tools.catalog.find_checkpoint(params.refiner) if params.refiner else None
        checkpoint = tools.store.checkpoint(file, self._emit, beside=str(refiner.path) if refiner else "")
        vae = tools.store.vae(checkpoint, choice, self._emit)
        if tools.settings.preview.enabled and checkpoint.rgb is None:
            checkpoint.rgb = latent_rgb(vae, checkpoint.sidecar)
            checkpoint.preview_decoder = self._tiny_decoder(checkpoint, vae)
        return checkpoint, vae, choice.note

    def _tiny_decoder(self, checkpoint: LoadedCheckpoint, vae: Vae) -> Any:
        """The small decoder for previews, None where there is no file or the latents are others than it knows."""
        tools = self._tools
        path = find_tiny_decoder(tools.paths.models, sdxl=checkpoint.is_sdxl)
        if path is None or vae.dims.channels != SD_CHANNELS:
            return None
        return load_tiny_decoder(
            path,
            tools.device.device,
            allow_pickle=tools.settings.model.allow_pickle,
            cache_dir=tools.paths.cache_dir,
        )

    def _picture_prompts(
        self, params: GenerationParams, checkpoint: LoadedCheckpoint, second: GenerationParams | None
    ) -> PicturePrompts:
        """`second`: for the hires pass, whose params these are; `params` are the whole job's all the same."""
        tools = self._tools
        encoder = PromptEncoder(
            checkpoint.text_encoders,
            checkpoint.key,
            tools.chunks,
            tools.device.device,
            tools.residency,
            zero_empty_negative=checkpoint.zeroes_empty_negative,
        )

        def told(chosen: GenerationParams) -> GenerationParams:
            return chosen if second is None else chosen.second_pass()

        first = None if second is None else params
        reader = PromptReader(checkpoint, encoder, tools.library, self._notes, self._emit, first)

        def encode(chosen: GenerationParams) -> EncodedPrompts:
            encoded = reader.encode(chosen)
            return replace(encoded, conditioning=self._extensions.conditioning(encoded.conditioning))

        return PicturePrompts(params, tools.paths.wildcards, encode, self._notes.append, told)

    def _tell_notes(self) -> None:
        for note in self._notes:
            self._warn(note)
        self._notes.clear()

    def _make(self, index: int, progress: Progress) -> Batch | None:
        """The clean latents of batch `index`, of its last pass; None when it was stopped before there were any."""
        first, second, count = self._first, self._second, self._params.batch_size
        with self._timed("encode"):
            conditionings = first.prompts.of_batch(index * count, count)
            later = None if second is None else second.prompts.of_batch(index * count, count)
        self._tell_notes()
        progress.start_batch()
        if self._skips_first:
            with self._timed("encode"):
                batch: Batch | None = Batch(self._given(first).expand(count, -1, -1, -1))
        else:
            with self._timed("sample"):
                batch = self._sample(index, first, conditionings, progress)
        if batch is None or batch.stopped_at or second is None or later is None:
            return batch
        with self._timed("upscale"):
            try:
                large = Start(torch.cat([self._enlarged(first, second, one[None]) for one in batch.latents]))
            except Stopped:
                return replace(batch, stopped_at=first.sampling.steps)
        with self._timed("sample"):
            made = self._sample(index, second, later, progress, 0 if self._skips_first else first.sampling.steps, large)
        return made or Batch(large.latents, first.sampling.steps)

    def _size(self, second: Pass | None) -> tuple[int, int]:
        """(width, height) of the job's pictures; one that is pasted back into a larger picture has that one's size."""
        if self._tiles is not None:
            return self._tiles.grid.size
        if self._begin is not None and self._begin.canvas.base is not None:
            return self._begin.canvas.base.size
        params = self._params if second is None else second.params
        return params.width or 0, params.height or 0

    def _enlarged_picture(self, first: Pass) -> Tiles | None:
        """What SD upscale draws anew, None for every other job."""
        init, upscale, params = first.params.init, first.params.sd_upscale, first.params
        if upscale is None or init is None or init.image is None:
            return None
        image = flattened(InputStore(self._tools.paths.outputs).open(init.image), init.background)
        size = (whole_cells(image.width * upscale.scale), whole_cells(image.height * upscale.scale))
        large = self._tools.upscalers.enlarge(image, upscale.upscaler, size, emit=self._emit, check=self._check)
        tile = (min(params.width or 0, size[0]), min(params.height or 0, size[1]))
        return Tiles(large, Grid(size, tile, min(upscale.overlap, tile[0] // 2, tile[1] // 2)))

    def _make_in_tiles(self, index: int, tiles: Tiles, progress: Progress) -> None:
        """Every picture of an SD upscale, tile after tile; tile k has the picture's seed + k."""
        for number in range(index * self._params.batch_size, (index + 1) * self._params.batch_size):
            with self._timed("encode"):
                conditionings = self._first.prompts.of_batch(number, 1)
            self._tell_notes()
            progress.start_batch()
            drawn: list[PillowImage.Image] = []
            for k, box in enumerate(tiles.grid.boxes()):
                tile = tiles.image.crop(box)
                batch = self._draw_tile(number, k, tile, conditionings, progress)
                if batch is None or batch.stopped_at:
                    break
                with self._timed("decode"):
                    picture = self._decode(self._first.vae, batch.latents)
                corrects = self._params.init is not None and self._params.init.color_correction
                drawn.append(corrected(picture, tile) if corrects else picture)
            self._control.batch_done()
            if len(drawn) == len(tiles.grid):
                with self._timed("save"):
                    self._save(number, self._as_extensions_want(tiles.grid.joined(drawn), number), 0)
            if self._control.interrupted:
                return

    def _draw_tile(
        self,
        number: int,
        k: int,
        tile: PillowImage.Image,
        conditionings: Sequence[Conditioning],
        progress: Progress,
    ) -> Batch | None:
        seed, variation = self._params.seeds_of(number)
        params = self._first.params.changed(
            seed=seed + k,
            variation_seed=variation + k,
            batch_size=1,
            batch_count=1,
            width=tile.width,
            height=tile.height,
        )
        one = replace(
            self._first, params=params, sampling=SamplingPlan(params, self._first.checkpoint, part_of(params))
        )
        with self._timed("encode"):
            start = Start(self._encode(one, tile))
        with self._timed("sample"):
            return self._sample(0, one, conditionings, progress, k * one.sampling.steps, start, number)

    def _given(self, first: Pass) -> Tensor:
        """The finished picture that stands in for the first pass, as latents."""
        params, hires = first.params, first.params.hires
        if hires is None or hires.first_pass is None:
            raise ValueError("the request names no finished picture")
        size = (params.width or 0, params.height or 0)
        image = InputStore(self._tools.paths.outputs).open(hires.first_pass).convert("RGB")
        return self._encode(first, image if image.size == size else lanczos(image, size))

    def _enlarged(self, first: Pass, second: Pass, latents: Tensor) -> Tensor:
        hires = first.params.hires
        if hires is None:
            raise ValueError("the request has no hires pass")
        return enlarged(
            latents,
            hires,
            lambda one: self._decode(first.vae, one),
            lambda image: self._encode(second, image),
            lambda image, size: self._tools.upscalers.enlarge(
                image, hires.upscaler, size, emit=self._emit, check=self._check
            ),
        ).to(latents.device)

    def _check(self) -> None:
        """Raises `Stopped` when the picture in the making is not wanted any more."""
        if self._control.stopping:
            raise Stopped

    @property
    def _axes(self) -> Axes:
        return self._params.tiling_x, self._params.tiling_y

    def _encode(self, one: Pass, image: PillowImage.Image) -> Tensor:
        latents = encode(one.vae, pixels_of(image), self._tools.device, self._warn, self._axes)
        return latents.to(self._tools.device.device)

    def _decode(self, vae: Vae, latents: Tensor) -> PillowImage.Image:
        """One picture (1, C, h, w)."""
        dtype = vae.dtype
        pixels = decode(vae, latents, self._tools.device, self._warn, lambda: None, self._axes)
        if vae.dtype is not dtype:
            self._tools.store.remember_precision(vae)
        return PillowImage.fromarray(pixels)

    def _sample(
        self,
        index: int,
        one: Pass,
        conditionings: Sequence[Conditioning],
        progress: Progress,
        before: int = 0,
        start: Start | None = None,
        shown: int | None = None,
    ) -> Batch | None:
        """The clean latents of batch `index`; None when it was stopped before there were any.

        `before`: steps of the passes before this one. `start`: what it starts from, if not the job's picture.
        `shown`: the picture's number in the job, for progress, where `params` know of one alone.
        """
        tools, params, sampling, device = self._tools, one.params, one.sampling, self._tools.device.device
        checkpoint = one.checkpoint
        first = index * params.batch_size
        noise = sampling.noise(first, one.vae, device)
        cells = noise.shape[-2:]
        given = start  # not the job's picture
        if start is None and self._begin is not None:
            start = self._begin.start(lambda: sampling.plain_noise(first, one.vae, device))
        watch = Watch(checkpoint.file.name, tools.device.precision)
        clock = PreviewClock(tools.settings.preview.every_seconds)
        done = 0

        def after_step(info: StepInfo) -> None:
            nonlocal done
            done = info.index + 1
            step = progress.step(index if shown is None else shown, before + done)
            self._emit(step)
            if checkpoint.rgb is not None and tools.settings.preview.enabled:
                rgb = checkpoint.rgb
                side, tiny = tools.settings.preview.max_side, checkpoint.preview_decoder
                jpeg = clock.maybe(lambda: render(info.denoised, rgb, side, tiny))
                if jpeg is not None:
                    self._emit(Preview(jpeg, step.step))
            self._show_memory(MEMORY_EVERY_SECONDS)
            if done < sampling.steps:
                self._check()

        with contextlib.ExitStack() as networks:

            def evaluator_of(drawing: LoadedCheckpoint, table: Tensor) -> Callable[[Conditioning], UnetEvaluator]:
                """What evaluates a checkpoint's UNet, for each of the conditionings."""
                networks.enter_context(seamless(drawing.unet, self._axes))
                sizes = size_conditioning(params, drawing, width=cells[1] * SCALE, height=cells[0] * SCALE)
                channels = self._channels(one, cells, given) if drawing.extra_channels else None
                width = drawing.guidance_dim
                return lambda conditioning: UnetEvaluator(
                    Resident(drawing.unet, tools.residency),
                    conditioning,
                    table,
                    drawing.prediction,
                    dtype=tools.device.dtype,
                    quantize=params.quantize_timesteps,
                    check=self._check,
                    sizes=sizes,
                    channels=channels,
                    guidance=guidance_embedding(params.cfg_scale, width) if width else None,
                )

            evaluators: Callable[[Conditioning], Evaluate] = evaluator_of(checkpoint, sampling.table)
            if one.refiner is not None:
                refined = one.refiner.conditionings(conditionings, first if shown is None else shown)
                switch = Switch.of(params, sampling)
                evaluators = refining(
                    evaluators, evaluator_of(one.refiner.checkpoint, one.refiner.checkpoint.table), refined, switch
                )

            def denoiser_of(conditioning: Conditioning) -> GuidedDenoiser:
                evaluate = evaluators(conditioning)
                return GuidedDenoiser(
                    evaluate,
                    cfg_scale=1.0 if checkpoint.guidance_dim else params.cfg_scale,
                    total_calls=sampling.total_calls,
                    hooks=(*sampling.hooks(), *self._extensions.guidance()),
                )

            denoiser = GroupedDenoiser(conditionings, denoiser_of, watch)
            try:
                return Batch(sampling.run(denoiser, noise, after_step, start), 0, start)
            except Stopped:
                latents = watch.denoised
                if latents is None:
                    return None
                kept = latents if start is None or start.mask is None else start.mask.finish(latents)
                return Batch(kept, before + max(1, done), start)

    def _channels(self, one: Pass, cells: tuple[int, int], start: Start | None) -> Tensor:
        """What an inpainting checkpoint sees besides the latents."""
        if start is None and self._begin is not None:
            return self._begin.channels(one.vae)
        return blank_channels(one.vae, *cells)

    def _finish(self, index: int, batch: Batch, last: Pass, progress: Progress) -> None:
        """Decode and save a batch, picture by picture."""
        first = index * self._params.batch_size
        for i in range(batch.latents.shape[0]):
            with self._timed("decode") as timer:
                picture = self._decode(last.vae, batch.latents[i : i + 1])
                if self._begin is not None and batch.start is not None:
                    picture = self._begin.finish(batch.start, batch.latents, picture, i)
            picture = self._as_extensions_want(picture, first + i)
            progress.decoded(timer())
            with self._timed("save"):
                self._save(first + i, picture, batch.stopped_at)
            self._show_memory(MEMORY_EVERY_SECONDS)

    def _as_extensions_want(self, picture: PillowImage.Image, index: int) -> PillowImage.Image:
        return PillowImage.fromarray(self._extensions.decoded(np.array(picture), index))

    def _save(self, index: int, picture: PillowImage.Image, stopped_at: int) -> None:
        params, checkpoint, vae = self._first.prompts.params_of(index), self._first.checkpoint, self._first.vae
        networks = self._networks(index)
        extra = (("Stopped at step", str(stopped_at)),) if stopped_at else ()
        text = infotext.format(
            params,
            index=index,
            model_name=checkpoint.file.stem,
            model_hash=checkpoint.short_hash,
            vae_name=vae.name if vae.external else None,
            vae_hash=vae.short_hash if vae.external else None,
            extra=(*hash_entries(networks), *extra, *self._refiner_entries()),
        )
        made = MadePicture(picture, text, params.seeds_of(index)[0], self._tools.environment(vae), self._used(networks))
        self._saved += 1
        self._emit(keep_picture(self._tools, params, index, made, self._extensions.saved))

    @property
    def _last_refiner(self) -> Refiner | None:
        return (self._second or self._first).refiner

    def _refiner_entries(self) -> list[tuple[str, object]]:
        """As AUTOMATIC1111 names it in the parameters text."""
        if self._last_refiner is None:
            return []
        drawn = self._last_refiner.checkpoint
        title = f"{drawn.file.stem} [{drawn.short_hash}]" if drawn.short_hash else drawn.file.stem
        return [("Refiner", title), ("Refiner switch at", f"{self._params.refiner_switch_at:g}")]

    def _networks(self, index: int) -> tuple[UsedNetwork, ...]:
        """The networks that the picture's prompts name, in either pass."""
        passes = [one for one in (self._first, self._second) if one is not None]
        return tuple(dict.fromkeys(network for one in passes for network in one.prompts.networks_of(index)))

    def _used(self, networks: tuple[UsedNetwork, ...]) -> tuple[UsedModel, ...]:
        """Every file whose weights go into the job's pictures."""
        checkpoint, vae, params = self._first.checkpoint, self._first.vae, self._params
        models = [UsedModel("checkpoint", checkpoint.file.name, checkpoint.sha256)]
        if vae.external:
            models.append(UsedModel("vae", vae.name, vae.sha256))
        if self._last_refiner is not None:
            drawn = self._last_refiner.checkpoint
            models.append(UsedModel("refiner", drawn.file.name, drawn.sha256))
        for group in (params.hires, params.sd_upscale):
            if group is not None:
                models += self._tools.upscalers.used(group.upscaler)
        return (*models, *used_models(networks))

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
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - started
