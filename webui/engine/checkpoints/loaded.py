"""A checkpoint in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from webui.catalog import ModelFile, Sidecar
from webui.catalog.families import Family
from webui.engine.conditioning.text import TextEncoder
from webui.engine.files.dims import SDXL_FAMILIES, UnetDims, VaeDims
from webui.engine.files.weights import Fingerprint, Weights, file_fingerprint
from webui.engine.latents.vae import Vae
from webui.engine.memory.weights import network_bytes
from webui.engine.networks.attachment import AttachmentSwitch
from webui.engine.networks.lora import CheckpointAdapters
from webui.errors import BadModelFile
from webui.sampling import Prediction


@dataclass
class LoadedCheckpoint:
    """A checkpoint in memory. `rgb` and `preview_decoder` are filled in when the first preview is wanted."""

    file: ModelFile
    sha256: str
    family: Family  # as its tensors say; the catalog does not look into pickles
    unet: Any
    text_encoders: tuple[TextEncoder, ...]
    table: Tensor  # trained sigmas, ascending
    prediction: Prediction
    scale_factor: float
    sidecar: Sidecar | None
    vae_dims: VaeDims | None  # None: no VAE is baked in
    open_vae: Callable[[], Weights]
    sources: tuple[tuple[Path, Fingerprint], ...]  # the files that were read
    mapped: bool  # some weights are still views on a file
    flop: float  # of a UNet call, for each latent cell
    dims: UnetDims
    unused: tuple[str, ...]  # names of tensors that no network took
    baked: Vae | None = None
    rgb: Tensor | None = None
    preview_decoder: Any = None
    adapters: CheckpointAdapters | None = None  # what is attached to its networks, once anything was

    @property
    def short_hash(self) -> str | None:
        """The first 10 digits of the sha256: what users call "model hash"."""
        return self.sha256[:10] or None

    @property
    def text_encoder(self) -> Any:
        """The first text encoder's network: the only one, but in SDXL."""
        return self.text_encoders[0].module

    @property
    def is_sdxl(self) -> bool:
        """Whether it wants pooled prompts and sizes."""
        return self.family in SDXL_FAMILIES

    @property
    def zeroes_empty_negative(self) -> bool:
        """Whether an empty negative prompt is zeros. The published refiner is told what its encoder makes of ""."""
        return self.is_sdxl and self.family is not Family.SDXL_REFINER

    @property
    def latent_channels(self) -> int:
        return int(self.unet.config.out_channels)

    @property
    def extra_channels(self) -> int:
        """Channels of the UNet's input behind the latents: 5 (mask, masked picture) in inpainting models, else 0."""
        return int(self.unet.config.in_channels) - self.latent_channels

    @property
    def guidance_dim(self) -> int:
        """Width of the embedding in which an LCM is told the CFG scale; 0: guidance takes a negative prompt."""
        return int(self.unet.config.time_cond_proj_dim or 0)

    @property
    def bytes(self) -> int:
        """What its networks take in memory."""
        networks = [self.unet, *(encoder.module for encoder in self.text_encoders)]
        return sum(map(network_bytes, networks + ([self.baked.module] if self.baked else [])))

    @property
    def switches(self) -> tuple[AttachmentSwitch, ...]:
        """What holds the weights that adapters changed."""
        return () if self.adapters is None else self.adapters.switches

    @property
    def key(self) -> tuple[str, Fingerprint, Sidecar | None]:
        """Equal for equal content: path, fingerprint and what is said beside the tensors."""
        return str(self.file.path), self.file.fingerprint, self.sidecar

    def check_unchanged(self) -> None:
        """Raise `BadModelFile` when a file that was read was written to in place since."""
        for path, fingerprint in self.sources:
            now = file_fingerprint(path)
            if now is not None and now != fingerprint and now[2] == fingerprint[2]:
                raise BadModelFile(
                    f"The file {path.name} changed on disk after it was loaded.",
                    "Wait until whatever writes to it is done and try again: it will be loaded anew.",
                )
