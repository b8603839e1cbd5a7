"""A job of the kind "extras": a finished picture enlarged and repaired. No checkpoint is touched, nothing is drawn."""

from __future__ import annotations

import time
from collections.abc import Callable

from PIL import Image

from webui import infotext, pictures
from webui.engine.control import Control
from webui.engine.denoise import Stopped
from webui.engine.extensions import JobExtensions
from webui.engine.faces import NO_FACE
from webui.engine.job import Job
from webui.engine.memory.usage import PeakMeter, read_memory
from webui.engine.saving.keeping import MadePicture, keep_picture
from webui.engine.shared import Tools
from webui.events import Event, Finished, Started, Step, Warning
from webui.inputs import InputStore
from webui.names import NO_UPSCALER
from webui.operations import Extras, FaceRestoration
from webui.params import GenerationParams
from webui.pictures.canvas import flattened
from webui.pictures.resizing import Size, cropped, lanczos


class ExtrasJob:
    """One picture. `run` does it all; the events are those of any job, with one step for each upscaler."""

    def __init__(self, tools: Tools, params: GenerationParams, control: Control, emit: Callable[[Event], None]) -> None:
        self._tools = tools
        self._params = params
        self._control = control
        self._emit = emit
        self._meter = PeakMeter(tools.device.device)
        self._steps = 0
        self._told = False  # that it has started

    def again(self, tools: Tools) -> ExtrasJob:
        """The same job once more, with these tools."""
        job = ExtrasJob(tools, self._params, self._control, self._emit)
        job._told = self._told
        return job

    def run(self) -> None:
        """Ends with a `Finished` event. Raises the errors of its parts."""
        started = time.perf_counter()
        tools = self._tools
        params = tools.catalog.resolve(self._params, tools.settings)
        extras = params.extras
        if extras is None or extras.image is None:
            raise ValueError("the request names no picture for extras")
        data = InputStore(tools.paths.outputs).read(extras.image)
        image = pictures.open_image(data, max_pixels=pictures.MAX_RESULT_PIXELS)
        inner, size = extras.sizes(*image.size)
        names = upscalers_of(extras)
        self._steps = len(names) + (params.faces is not None)
        if not self._told:
            self._emit(Started(1, *size, self._steps))
            self._told = True
        seconds = {"load": time.perf_counter() - started}
        began = time.perf_counter()
        try:
            large = self._enlarged(image, extras, inner, size, names)
            seconds["upscale"] = time.perf_counter() - began
            began = time.perf_counter()
            large = self._with_faces_restored(large, params.faces)
        except Stopped:
            self._control.batch_done()  # a skip is of this picture alone, not of those that follow in its folder
            large = None
        seconds["faces"] = time.perf_counter() - began
        began = time.perf_counter()
        if large is not None:
            self._save(params, extras, data, large)
        seconds["save"] = time.perf_counter() - began
        self._emit(read_memory(tools.device.device, self._meter.peak))
        seconds["total"] = time.perf_counter() - started
        interrupted = large is None and self._control.interrupted
        self._emit(Finished(int(large is not None), seconds, self._meter.peak, interrupted))

    def _enlarged(self, image: Image.Image, extras: Extras, inner: Size, size: Size, names: list[str]) -> Image.Image:
        """The picture, enlarged to `inner` and cut to `size`, transparency included. Raises `Stopped`."""
        flat = _colours(image)
        began = time.perf_counter()
        made = []
        for done, name in enumerate(names, start=1):
            large = self._tools.upscalers.enlarge(flat, name, inner, as_large=True, emit=self._emit, check=self._check)
            made.append(large)
            self._tell_step(done, began)
        large = made[0] if len(made) == 1 else Image.blend(made[0], made[1], extras.upscaler_2_visibility)
        if "A" in image.getbands() or "transparency" in image.info:
            large.putalpha(lanczos(image.convert("RGBA").getchannel("A"), inner))
        return large if inner == size else cropped(large, size)

    def _with_faces_restored(self, image: Image.Image, faces: FaceRestoration | None) -> Image.Image:
        """The picture with its faces restored, its transparency as it was. Raises `Stopped`."""
        if faces is None:
            return image
        began = time.perf_counter()
        restored, found = self._tools.faces.restore(image.convert("RGB"), faces, emit=self._emit, check=self._check)
        if not found:
            self._emit(NO_FACE)
        self._tell_step(1, began, before=self._steps - 1)
        if "A" in image.getbands():
            restored.putalpha(image.getchannel("A"))
        return restored

    def _tell_step(self, done: int, began: float, before: int = 0) -> None:
        """`done` steps since `began`, after the `before` of another stage."""
        taken = time.perf_counter() - began
        left = self._steps - before - done
        self._emit(Step(before + done, self._steps, 1, 1, done / taken if taken else 0.0, left * taken / done))

    def _save(self, params: GenerationParams, extras: Extras, source: bytes, large: Image.Image) -> None:
        text, chunks = pictures.read_text(source)
        seed = infotext.parse_chunks(text, chunks).params.get("seed", params.seed)
        models = [used for name in dict.fromkeys(upscalers_of(extras)) for used in self._tools.upscalers.used(name)]
        models += self._tools.faces.used(params.faces)
        made = MadePicture(
            image=large,
            infotext=infotext.extended(text, extras, params.faces),
            seed=max(0, seed),
            environment=self._tools.environment(),
            models=tuple(models),
            chunks={**chunks, "postprocessing": infotext.extended("", extras, params.faces)},
        )
        hooks = JobExtensions(self._tools.extensions, params, lambda told: self._emit(Warning("extension", told)))
        self._emit(keep_picture(self._tools, params, 0, made, hooks.saved))

    def _check(self) -> None:
        if self._control.stopping:
            raise Stopped


def job_for(params: GenerationParams) -> type[Job] | type[ExtrasJob]:
    """The kind of job that does a request."""
    return Job if params.extras is None else ExtrasJob


def upscalers_of(extras: Extras) -> list[str]:
    """The upscalers that have an effect, in the order they are run."""
    both = extras.upscaler_2 != NO_UPSCALER and extras.upscaler_2_visibility > 0
    return [extras.upscaler, extras.upscaler_2] if both else [extras.upscaler]


def _colours(image: Image.Image) -> Image.Image:
    """RGB. Where the picture is transparent its own colours are kept: they show at soft edges."""
    if "A" in image.getbands() or "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return flattened(image, "#ffffff")
