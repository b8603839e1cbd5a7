"""One job from params to saved pictures: load, encode, and for each batch sample, decode, save."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor

from webui.engine.control import Control
from webui.engine.denoise import Stopped
from webui.engine.drawing import Draw, Drawing
from webui.engine.enlarge import enlarged
from webui.engine.extensions import JobExtensions
from webui.engine.faces import NO_FACE
from webui.engine.fitting import fitting
from webui.engine.latents.begin import Beginning
from webui.engine.latents.codec import Codec, Decoding
from webui.engine.loading import PassLoader
from webui.engine.passes import Batch, Pass, Tiles, part_of
from webui.engine.progress import Progress
from webui.engine.reporting import Reporting
from webui.engine.sampling_plan import Start
from webui.engine.saving.finishing import Finishing
from webui.engine.saving.keeping import Keeping
from webui.engine.saving.recording import Asked, made_picture
from webui.engine.shared import Tools
from webui.engine.tiles import drawn_in_tiles, enlarged_picture
from webui.events import Event, Image, Started, Warning
from webui.inputs import InputStore
from webui.params import GenerationParams
from webui.pictures.resizing import lanczos

_log = logging.getLogger(__name__)


class Job:
    """One request. `run` does it all; the events it emits are described in `webui.events`."""

    def __init__(
        self,
        tools: Tools,
        params: GenerationParams,
        control: Control,
        emit: Callable[[Event], None],
        before: Job | None = None,
    ) -> None:
        """`before`: the same job as far as it came; what it made is not made again."""
        self._tools = tools
        self._control = control
        self._reporting: Reporting = (
            Reporting(tools.device.device, control, emit) if before is None else before._reporting
        )
        self._made: set[int] = set() if before is None else before._made  # numbers of pictures
        self._told: bool = before is not None and before._told  # that it has started
        self._left_out: Sequence[Image] = () if before is None else before._left_out
        self._cut_short = False  # a picture was ended early by an interrupt
        self._params = params
        axes = (params.tiling_x, params.tiling_y)
        self._codec = Codec(tools, axes, params.vae_tiling, self._reporting.warn)
        self._extensions = JobExtensions(tools.extensions, params, self._warn_of_extension)

    def again(self, tools: Tools) -> Job:
        """The same job, for what of it is not made yet, with these tools."""
        return Job(tools, self._params, self._control, self._reporting.emit, self)

    def leave_out(self, made: Sequence[Image]) -> None:
        """Not to make these pictures, which a run before this one has saved; they are told again."""
        self._left_out = made

    def run(self) -> None:
        """Ends with a `Finished` event. Raises the errors of its parts; pictures saved before stay."""
        tools, reporting = self._tools, self._reporting
        loader = PassLoader(tools, self._extensions, reporting)
        with reporting.timed("load"):
            params = self._params = tools.catalog.resolve(self._params, tools.settings)
            first = self._first = loader.load(params, part_of(params))
            second = self._second = loader.hires(first)
        choice = fitting(tools, self._passes)
        if choice is None or (choice.mode is tools.residency.mode and (tools.apart or not choice.apart)):
            self._run(first, second)
            return
        _log.info("%s", choice.text)
        reporting.notes.append(Warning("memory", choice.text))
        self._tools = replace(tools, apart=tools.apart or choice.apart)
        with tools.residency.at_least(choice.mode, tools.store.networks):
            self._run(first, second)

    def _run(self, first: Pass, second: Pass | None) -> None:
        """All but the loading."""
        tools, reporting, params = self._tools, self._reporting, self._params
        with reporting.timed("encode"):
            first.prompts.of_batch(0, params.batch_size)
            begin = self._begin = self._beginning(first)
        try:
            with reporting.timed("upscale" if params.sd_upscale else "encode"):
                tiles = enlarged_picture(tools, first, reporting, self._extensions.preprocess)
        except Stopped:
            self._control.batch_done()  # all pictures are made of this one: a skip of it is of the job, and of no other
            self._end()
            return
        steps = (0 if self._skips_first else first.sampling.steps) + (second.sampling.steps if second else 0)
        steps *= len(tiles.grid) if tiles is not None else 1
        if not self._told:
            reporting.emit(Started(params.pictures, *self._size(tiles), steps))
            self._told = True
            for image in self._left_out:
                self._kept(image)
        reporting.notes += [] if begin is None else begin.notes
        for note in dict.fromkeys(one.note for one in self._passes if one.note):
            reporting.warn(Warning("vae", note))
        rounds = params.pictures if tiles is not None else params.batch_count
        progress = Progress(steps, rounds, params.pictures // rounds)
        axes = (params.tiling_x, params.tiling_y)
        self._keeping = Keeping(tools, self._extensions.saved, self._kept)
        self._finishing = Finishing(self._keeping)
        self._drawing = Drawing(tools, self._extensions, reporting, progress, axes, begin, self._finishing)
        try:
            for index in range(params.batch_count):
                if self._control.interrupted:
                    break
                numbers = range(index * params.batch_size, (index + 1) * params.batch_size)
                if self._made.issuperset(numbers):
                    continue
                if tiles is not None:
                    self._make_in_tiles(index, tiles)
                else:
                    self._make_batch(index)
        except BaseException:
            self._finishing.finish(quietly=True)
            raise
        with reporting.timed("save"):
            self._finishing.finish()
        self._end()

    def _end(self) -> None:
        saved = len(self._made)
        interrupted = self._control.interrupted and (self._cut_short or saved < self._params.pictures)
        self._reporting.finish(saved, interrupted=interrupted)

    @property
    def _passes(self) -> tuple[Pass, ...]:
        return (self._first,) if self._second is None else (self._first, self._second)

    @property
    def _skips_first(self) -> bool:
        """Whether there is a finished picture in place of the first pass."""
        return self._params.hires is not None and self._params.hires.first_pass is not None

    def _beginning(self, first: Pass) -> Beginning | None:
        """The picture to start from, encoded; None where there is none."""
        if first.params.init is None or first.params.sd_upscale is not None:
            return None
        inputs = InputStore(self._tools.paths.outputs)
        prepare = self._extensions.preprocess
        return Beginning(
            first.params,
            inputs,
            lambda image: self._codec.encode(first.vae, image),
            self._tools.device.device,
            prepare,
        )

    def _size(self, tiles: Tiles | None) -> tuple[int, int]:
        """(width, height) of the job's pictures; one that is pasted back into a larger picture has that one's size."""
        if tiles is not None:
            return tiles.grid.size
        if self._begin is not None and self._begin.canvas.base is not None:
            return self._begin.canvas.base.size
        params = self._passes[-1].params
        return params.width or 0, params.height or 0

    def _make_batch(self, index: int) -> None:
        """A batch, from its prompts to its files."""
        batch = self._drawn(index)
        self._control.batch_done()
        if batch is None:
            return
        for drawn in (checkpoint for one in self._passes for checkpoint in one.checkpoints):
            if drawn.mapped:
                drawn.check_unchanged()
        self._cut_short |= batch.stopped_at > 0 and self._control.interrupted
        self._finish(index, batch)

    def _drawn(self, index: int) -> Batch | None:
        """The clean latents of batch `index`, of its last pass; None when it was stopped before there were any."""
        first, second, count, reporting = self._first, self._second, self._params.batch_size, self._reporting
        with reporting.timed("encode"):
            conditionings = first.prompts.of_batch(index * count, count)
            later = None if second is None else second.prompts.of_batch(index * count, count)
            self._read_for_refiner(index * count, count)
        reporting.tell_notes()
        self._drawing.progress.start_batch()
        if self._skips_first:
            with reporting.timed("encode"):
                batch: Batch | None = Batch(self._given(first).expand(count, -1, -1, -1))
        else:
            with reporting.timed("sample"):
                batch = self._drawing.run(Draw(first, conditionings, index))
        if batch is None or batch.stopped_at or second is None or later is None:
            return batch
        with reporting.timed("upscale"):
            try:
                large = Start(torch.cat([self._enlarged(first, second, one[None]) for one in batch.latents]))
            except Stopped:
                return replace(batch, stopped_at=first.sampling.steps)
        before = 0 if self._skips_first else first.sampling.steps
        with reporting.timed("sample"):
            made = self._drawing.run(Draw(second, later, index, before, large))
        return made or Batch(large.latents, first.sampling.steps)

    def _read_for_refiner(self, first: int, count: int) -> None:
        """Have the prompts of a batch read by the refiner, too, before what had no effect is told."""
        for one in self._passes:
            if one.refiner is not None:
                one.refiner.prompts.of_batch(first, count)

    def _make_in_tiles(self, index: int, tiles: Tiles) -> None:
        """Every picture of a batch of an SD upscale."""
        for number in range(index * self._params.batch_size, (index + 1) * self._params.batch_size):
            if number in self._made:
                continue
            with self._reporting.timed("encode"):
                conditionings = self._first.prompts.of_batch(number, 1)
                self._read_for_refiner(number, 1)
            self._reporting.tell_notes()
            self._drawing.progress.start_batch()
            picture = drawn_in_tiles(tiles, number, self._first, conditionings, self._drawing, self._codec)
            self._control.batch_done()
            if picture is not None:
                picture = self._with_faces_restored(picture)
                with self._reporting.timed("save"):
                    asked = Asked.of(self._passes, number)
                    self._save(asked, self._as_extensions_want(picture, number), self._passes[-1].vae.dtype)
            if self._control.interrupted:
                return

    def _given(self, first: Pass) -> Tensor:
        """The finished picture that stands in for the first pass, as latents."""
        params, hires = first.params, first.params.hires
        if hires is None or hires.first_pass is None:
            raise ValueError("the request names no finished picture")
        size = (params.width or 0, params.height or 0)
        image = InputStore(self._tools.paths.outputs).open(hires.first_pass).convert("RGB")
        return self._codec.encode(first.vae, image if image.size == size else lanczos(image, size))

    def _enlarged(self, first: Pass, second: Pass, latents: Tensor) -> Tensor:
        hires, reporting, codec = first.params.hires, self._reporting, self._codec
        if hires is None:
            raise ValueError("the request has no hires pass")
        return enlarged(
            latents,
            hires,
            lambda one: codec.decode(first.vae, one),
            lambda image: codec.encode(second.vae, image),
            lambda image, size: self._tools.upscalers.enlarge(
                image, hires.upscaler, size, emit=reporting.emit, check=reporting.check
            ),
        ).to(latents.device)

    def _finish(self, index: int, batch: Batch) -> None:
        """Have a batch decoded, and each of its pictures completed once it is."""
        first, vae = index * self._params.batch_size, self._passes[-1].vae
        missing = [i for i in range(batch.latents.shape[0]) if first + i not in self._made]
        with self._reporting.timed("decode"):  # all in the VAE's present precision, which a bad picture changes
            begun = [self._codec.begin(vae, batch.latents[i : i + 1]) for i in missing]
        for i, decoding in zip(missing, begun, strict=True):
            asked = Asked.of(self._passes, first + i)
            self._finishing.add(decoding, partial(self._complete, asked, batch, i))

    def _complete(self, asked: Asked, batch: Batch, number: int, decoding: Decoding) -> None:
        """Picture `number` of a batch, from its pixels on."""
        with self._reporting.timed("decode") as timer:
            picture = decoding.picture()
        picture = self._with_faces_restored(picture)
        if self._begin is not None and batch.start is not None:  # what is kept of the picture comes back last
            picture = self._begin.finish(batch.start, batch.latents, picture, number)
        picture = self._as_extensions_want(picture, asked.index)
        self._drawing.progress.decoded(timer())
        with self._reporting.timed("save"):
            self._save(asked, picture, decoding.dtype, batch.stopped_at)
        self._reporting.show_memory()

    def _with_faces_restored(self, picture: PillowImage.Image) -> PillowImage.Image:
        faces, reporting = self._params.faces, self._reporting
        if faces is None:
            return picture
        with reporting.timed("faces"):
            restored, found = self._tools.faces.restore(picture, faces, emit=reporting.emit)
        if not found:
            reporting.warn(NO_FACE)
        return restored

    def _as_extensions_want(self, picture: PillowImage.Image, index: int) -> PillowImage.Image:
        return PillowImage.fromarray(self._extensions.decoded(np.array(picture), index))

    def _save(self, asked: Asked, picture: PillowImage.Image, decoded_in: torch.dtype, stopped_at: int = 0) -> None:
        made = made_picture(self._tools, self._passes, asked, picture, decoded_in, stopped_at)
        self._keeping.keep(asked.params, asked.index, made)

    def _kept(self, image: Image) -> None:
        self._made.add(image.index)
        self._reporting.emit(image)

    def _warn_of_extension(self, text: str) -> None:
        self._reporting.warn(Warning("extension", text))
