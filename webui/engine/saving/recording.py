"""What is written with a picture that a job made: its parameters text, and every file whose weights went into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from webui import infotext
from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.engine.networks.used import UsedNetwork, hash_entries, used_models
from webui.engine.passes import Pass
from webui.engine.saving.keeping import MadePicture
from webui.engine.shared import Tools
from webui.params import GenerationParams
from webui.provenance import UsedModel


@dataclass(frozen=True, slots=True)
class Asked:
    """What one picture is made of. To be noted (`of`) while its batch is the one that was encoded last."""

    index: int
    params: GenerationParams
    networks: tuple[UsedNetwork, ...]

    @classmethod
    def of(cls, passes: Sequence[Pass], index: int) -> Asked:
        networks = dict.fromkeys(network for one in passes for network in one.prompts.networks_of(index))
        return cls(index, passes[0].prompts.params_of(index), tuple(networks))


def made_picture(
    tools: Tools,
    passes: Sequence[Pass],
    asked: Asked,
    picture: Image.Image,
    decoded_in: torch.dtype,
    stopped_at: int = 0,
) -> MadePicture:
    """A picture of a job with these passes; `stopped_at`: the step at which it was ended early."""
    first, index, params, networks = passes[0], asked.index, asked.params, asked.networks
    checkpoint, vae = first.checkpoint, first.vae
    stopped = (("Stopped at step", str(stopped_at)),) if stopped_at else ()
    text = infotext.format(
        params,
        index=index,
        model_name=checkpoint.file.stem,
        model_hash=checkpoint.short_hash,
        vae_name=vae.name if vae.external else None,
        vae_hash=vae.short_hash if vae.external else None,
        extra=(*hash_entries(networks), *stopped, *_other_checkpoints(passes)),
    )
    environment = tools.environment(decoded_in, max(one.flop for one in passes))
    return MadePicture(picture, text, params.seeds_of(index)[0], environment, _used_models(tools, passes, networks))


def _other_checkpoints(passes: Sequence[Pass]) -> list[tuple[str, object]]:
    """The hires pass' own and the refiner's, as AUTOMATIC1111 names them in the parameters text."""
    last, entries = passes[-1], list[tuple[str, object]]()
    if passes[0].params.hires is not None and passes[0].params.hires.checkpoint is not None:
        entries.append(("Hires checkpoint", _title(last.checkpoint)))
    if last.refiner is not None:
        entries.append(("Refiner", _title(last.refiner.checkpoint)))
        entries.append(("Refiner switch at", f"{last.params.refiner_switch_at:g}"))
    return entries


def _title(checkpoint: LoadedCheckpoint) -> str:
    """By name and hash, so that the file is found again under any name."""
    return f"{checkpoint.file.stem} [{checkpoint.short_hash}]" if checkpoint.short_hash else checkpoint.file.stem


def _used_models(tools: Tools, passes: Sequence[Pass], networks: tuple[UsedNetwork, ...]) -> tuple[UsedModel, ...]:
    """Every file whose weights go into the job's pictures."""
    first, last = passes[0], passes[-1]
    models = [UsedModel("checkpoint", first.checkpoint.file.name, first.checkpoint.sha256)]
    if first.vae.external:
        models.append(UsedModel("vae", first.vae.name, first.vae.sha256))
    if last.checkpoint is not first.checkpoint:
        models.append(UsedModel("hires checkpoint", last.checkpoint.file.name, last.checkpoint.sha256))
    if last.refiner is not None:
        models.append(UsedModel("refiner", last.refiner.checkpoint.file.name, last.refiner.checkpoint.sha256))
    for group in (first.params.hires, first.params.sd_upscale):
        if group is not None:
            models += tools.upscalers.used(group.upscaler)
    models += tools.faces.used(first.params.faces)
    return (*models, *used_models(networks))
