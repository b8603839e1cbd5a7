"""From params to a pass: the networks that draw it, and the prompts as their text encoders read them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.engine.conditioning.prompt_reader import PromptReader
from webui.engine.conditioning.prompts import EncodedPrompts, PicturePrompts
from webui.engine.conditioning.text import PromptEncoder
from webui.engine.extensions import JobExtensions
from webui.engine.latents.preview import SD_CHANNELS, latent_rgb
from webui.engine.latents.tiny_decoder import find_tiny_decoder, load_tiny_decoder
from webui.engine.latents.vae import Vae
from webui.engine.passes import Pass
from webui.engine.refiner import Refiner, check_latents
from webui.engine.reporting import Reporting
from webui.engine.sampling_plan import Part, SamplingPlan
from webui.engine.shared import Tools
from webui.params import GenerationParams


class PassLoader:
    """Makes the passes of one job. Raises the errors of files that are missing, damaged or of another kind."""

    def __init__(self, tools: Tools, extensions: JobExtensions, reporting: Reporting) -> None:
        self._tools = tools
        self._extensions = extensions
        self._reporting = reporting

    def load(self, params: GenerationParams, part: Part | None = None, after: Pass | None = None) -> Pass:
        """Everything for one pass; `after`: it is the hires pass of that first one."""
        if after is not None and (params.checkpoint, params.vae) == (after.params.checkpoint, after.params.vae):
            checkpoint, vae, note = after.checkpoint, after.vae, after.note
        else:
            checkpoint, vae, note = self._networks(params)
        sampling = SamplingPlan(params, checkpoint, part)
        whole, second = (params, None) if after is None else (after.params, params)
        prompts = self._prompts(whole, checkpoint, second, sampling.total_calls)
        refiner = self._refiner(params, checkpoint, after, sampling.total_calls)
        return Pass(params, sampling, checkpoint, vae, prompts, note, refiner)

    def hires(self, first: Pass) -> Pass | None:
        """The second pass after `first`, None where there is none."""
        hires = first.params.hires
        if hires is None:
            return None
        return self.load(first.params.second_pass(), Part(hires.denoising_strength, exact=True), first)

    def _networks(self, params: GenerationParams) -> tuple[LoadedCheckpoint, Vae, str]:
        tools, model, emit = self._tools, self._tools.settings.model, self._reporting.emit
        file = tools.catalog.find_checkpoint(params.checkpoint or "")
        choice = tools.catalog.resolve_vae(
            file, params.vae, model.vae_overrides_preferences, allow_pickle=model.allow_pickle
        )
        refiner = tools.catalog.find_checkpoint(params.refiner) if params.refiner else None
        checkpoint = tools.store.checkpoint(file, emit, beside=str(refiner.path) if refiner else "")
        vae = tools.store.vae(checkpoint, choice, emit)
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

    def _refiner(
        self, params: GenerationParams, checkpoint: LoadedCheckpoint, after: Pass | None, calls: int
    ) -> Refiner | None:
        """Who draws the end of the last pass, None where nobody else does."""
        if params.refiner is None or params.hires is not None or params.refiner == checkpoint.file.name:
            return None
        file = self._tools.catalog.find_checkpoint(params.refiner)
        loaded = self._tools.store.checkpoint(file, self._reporting.emit, beside=str(checkpoint.file.path))
        check_latents(checkpoint, loaded)
        whole, second = (params, None) if after is None else (after.params, params)
        return Refiner(loaded, self._prompts(whole, loaded, second, calls, refines=True))

    def _prompts(
        self,
        params: GenerationParams,
        checkpoint: LoadedCheckpoint,
        second: GenerationParams | None,
        calls: int,
        *,
        refines: bool = False,
    ) -> PicturePrompts:
        """`second`: for the hires pass, whose params these are; `params` are the whole job's all the same. `calls`: how
        often the pass asks its networks. `refines`: they are read for a refiner.
        """
        tools, reporting = self._tools, self._reporting
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
        reader = PromptReader(
            checkpoint, encoder, tools.library, reporting.notes, reporting.emit, calls, first, refines=refines
        )

        def encode(chosen: GenerationParams) -> EncodedPrompts:
            encoded = reader.encode(chosen)
            return replace(encoded, conditioning=self._extensions.conditioning(encoded.conditioning))

        return PicturePrompts(params, tools.paths.wildcards, encode, reporting.notes.append, told)
