"""What all jobs of an engine share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata

import torch

import webui
from webui.catalog import Catalog
from webui.engine.checkpoints.models import ModelStore
from webui.engine.compute.device import DeviceChoice
from webui.engine.compute.graphs import Graphs
from webui.engine.compute.threads import threads_for
from webui.engine.conditioning.text import ChunkCache
from webui.engine.faces import Faces
from webui.engine.memory.residency import Residency
from webui.engine.networks.library import NetworkLibrary
from webui.engine.upscaling import Upscalers
from webui.extensions import Host
from webui.paths import Paths
from webui.provenance import Environment, SaveHook, no_record
from webui.settings import Settings


@dataclass
class Tools:
    """The engine's parts."""

    settings: Settings
    paths: Paths
    catalog: Catalog
    device: DeviceChoice
    residency: Residency
    store: ModelStore
    library: NetworkLibrary
    graphs: Graphs
    upscalers: Upscalers
    faces: Faces
    attention: str  # name of the backend
    save_hook: SaveHook = no_record
    extensions: Host = field(default_factory=lambda: Host(side="engine"))
    chunks: ChunkCache = field(default_factory=ChunkCache)
    apart: bool = False  # pictures and prompts go through the UNet one by one, for want of memory

    def environment(self, decoded_in: torch.dtype | None = None, flop: float = math.inf) -> Environment:
        """What besides params and models can change a picture's last bits; None: of one that was only enlarged.

        `flop`: the work of a UNet call, from which the number of its threads follows.
        """
        device, available = self.device, torch.get_num_threads()
        used = available if math.isinf(flop) else threads_for(flop, available)
        on_cpu = device.kind == "cpu"
        return Environment(
            product=webui.__version__,
            torch=torch.__version__,
            diffusers=_version("diffusers"),
            device="cpu" if on_cpu else f"{device.device} {device.name}",
            dtype="float32" if decoded_in is None else _format(device),
            vae_dtype="" if decoded_in is None else str(decoded_in).removeprefix("torch."),
            attention=f"xformers {_version('xformers')}" if self.attention == "xformers" else self.attention,
            threads=(str(used) if used == available else f"{used} of {available}") if on_cpu else "",
        )


def _format(device: DeviceChoice) -> str:
    """Of the UNet: in what it computes, and in what its weights are kept, where that is another."""
    computes = str(device.dtype).removeprefix("torch.")
    return computes if device.storage is None else f"{computes}, weights {str(device.storage).removeprefix('torch.')}"


@lru_cache(maxsize=8)
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
