"""One batch through the sampler: evaluators, guidance, steps that are told and shown, and an early end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.engine.compute.graphs import Run, plain
from webui.engine.compute.reuse import ReusingUnet
from webui.engine.compute.seamless import Axes, seamless
from webui.engine.conditioning.sizes import size_conditioning
from webui.engine.conditioning.text import Conditioning
from webui.engine.denoise import GroupedDenoiser, Stopped, UnetEvaluator, Watch, guidance_embedding
from webui.engine.extensions import JobExtensions
from webui.engine.latents.begin import Beginning
from webui.engine.latents.inpainting import blank_channels
from webui.engine.latents.preview import PreviewClock, render
from webui.engine.latents.vae import SCALE
from webui.engine.memory.fetching import fetch_from
from webui.engine.pace import pace_of
from webui.engine.passes import Batch, Pass
from webui.engine.progress import Progress
from webui.engine.refiner import Switch, refining
from webui.engine.reporting import Reporting
from webui.engine.sampling_plan import Start
from webui.engine.saving.finishing import Finishing
from webui.engine.shared import Tools
from webui.events import Preview
from webui.sampling import Evaluate, GuidedDenoiser, StepInfo


@dataclass(frozen=True)
class Draw:
    """What is drawn. `index`: the batch's number; `before`: steps of the passes before this one.

    `start`: what it starts from, if not the job's picture. `shown`: the picture's number in the job, for progress,
    where the pass' params know of one alone.
    """

    one: Pass
    conditionings: Sequence[Conditioning]
    index: int = 0
    before: int = 0
    start: Start | None = None
    shown: int | None = None

    @property
    def first(self) -> int:
        """The number of the batch's first picture, by the pass' params."""
        return self.index * self.one.params.batch_size


@dataclass
class Drawing:
    """What all batches of a job are drawn with; `begin` is the job's picture to start from.

    `finishing`: the pictures before, which may still be in the making.
    """

    tools: Tools
    extensions: JobExtensions
    reporting: Reporting
    progress: Progress
    axes: Axes
    begin: Beginning | None
    finishing: Finishing

    def run(self, draw: Draw) -> Batch | None:
        """The clean latents of a batch; None when it was stopped before there were any."""
        one, device = draw.one, self.tools.device
        noise = one.sampling.noise(draw.first, one.vae, device.device)
        start = draw.start
        if start is None and self.begin is not None:
            start = self.begin.start(lambda: one.sampling.plain_noise(draw.first, one.vae, device.device))
        watch = Watch(one.checkpoint.file.name, device.precision, fetch_from(device.device))
        steps = _Steps(self, draw)
        with contextlib.ExitStack() as networks:
            evaluators = self._evaluators(draw, (noise.shape[-2], noise.shape[-1]), networks)

            def denoiser_of(conditioning: Conditioning) -> GuidedDenoiser:
                return GuidedDenoiser(
                    evaluators(conditioning),
                    cfg_scale=1.0 if one.checkpoint.guidance_dim else one.params.cfg_scale,
                    total_calls=one.sampling.total_calls,
                    hooks=(*one.sampling.hooks(), *self.extensions.guidance()),
                )

            denoiser = GroupedDenoiser(draw.conditionings, denoiser_of, watch)
            try:
                return Batch(one.sampling.run(denoiser, noise, steps.after, start), 0, start)
            except Stopped:
                latents = watch.denoised
                if latents is None:
                    return None
                kept = latents if start is None or start.mask is None else start.mask.finish(latents)
                return Batch(kept, draw.before + max(1, steps.done), start)

    def _evaluators(
        self, draw: Draw, cells: tuple[int, int], networks: contextlib.ExitStack
    ) -> Callable[[Conditioning], Evaluate]:
        """What answers the sampler for a conditioning: the pass' UNet, and from the switch on its refiner's."""
        one, tools = draw.one, self.tools

        def evaluator_of(drawing: LoadedCheckpoint, table: Tensor) -> Callable[[Conditioning], UnetEvaluator]:
            networks.enter_context(seamless(drawing.unet, self.axes))
            sizes = size_conditioning(one.params, drawing, width=cells[1] * SCALE, height=cells[0] * SCALE)
            channels = self._channels(draw, cells) if drawing.extra_channels else None
            width = drawing.guidance_dim
            whole = self._runs(drawing)

            def of(conditioning: Conditioning) -> UnetEvaluator:
                unet = ReusingUnet(drawing.unet, tools.residency, one.params.feature_reuse, drawing.flop, whole)
                return UnetEvaluator(
                    unet,
                    conditioning,
                    table,
                    drawing.prediction,
                    dtype=tools.device.dtype,
                    quantize=one.params.quantize_timesteps,
                    check=self.reporting.check,
                    sizes=sizes,
                    channels=channels,
                    guidance=guidance_embedding(one.params.cfg_scale, width) if width else None,
                    begin=unet.begin,
                    apart=tools.apart,
                )

            return of

        base = evaluator_of(one.checkpoint, one.sampling.table)
        if one.refiner is None:
            return base
        refined = one.refiner.conditionings(draw.conditionings, draw.first if draw.shown is None else draw.shown)
        refiner = evaluator_of(one.refiner.checkpoint, one.refiner.checkpoint.table)
        return refining(base, refiner, refined, Switch.of(one.params, one.sampling))

    def _runs(self, drawing: LoadedCheckpoint) -> Run:
        """How its UNet is run: recorded and repeated, unless memory is short and networks come and go."""
        tools = self.tools
        if tools.residency.home != tools.device.device:
            tools.graphs.clear()
            return plain
        return tools.graphs.of(lambda: drawing.adapters and drawing.adapters.unet_key())

    def _channels(self, draw: Draw, cells: tuple[int, int]) -> Tensor:
        """What an inpainting checkpoint sees besides the latents."""
        if draw.start is None and self.begin is not None:
            return self.begin.channels(draw.one.vae)
        return blank_channels(draw.one.vae, *cells)


class _Steps:
    """Tells and shows each step of a batch, and hears the wish to stop."""

    def __init__(self, drawing: Drawing, draw: Draw) -> None:
        self._drawing = drawing
        self._draw = draw
        self._clock = PreviewClock(drawing.tools.settings.preview.every_seconds)
        self._pace = pace_of(drawing.tools.device.device)
        self.done = 0

    def after(self, info: StepInfo) -> None:
        """Raises `Stopped` unless it was the last step."""
        draw, reporting = self._draw, self._drawing.reporting
        self.done = info.index + 1
        self._pace.step()
        self._drawing.finishing.deliver()
        number = draw.index if draw.shown is None else draw.shown
        step = self._drawing.progress.step(number, draw.before + self.done)
        reporting.emit(step)
        checkpoint, preview = draw.one.checkpoint, self._drawing.tools.settings.preview
        if checkpoint.rgb is not None and preview.enabled and not self._drawing.finishing.busy:
            rgb, tiny = checkpoint.rgb, checkpoint.preview_decoder
            jpeg = self._clock.maybe(lambda: render(info.denoised, rgb, preview.max_side, tiny))
            if jpeg is not None:
                reporting.emit(Preview(jpeg, step.step))
        reporting.show_memory()
        if self.done < draw.one.sampling.steps:
            reporting.check()
