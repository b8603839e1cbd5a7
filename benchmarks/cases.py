"""What is measured, and what a network is given for it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from webui.catalog import Catalog, ModelFile
from webui.cli.bench import CaseKind
from webui.engine.checkpoints.loader import plan_vae
from webui.engine.checkpoints.reading import Plans, open_checkpoint, plan_checkpoint
from webui.paths import Paths

TOKENS = 77


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured. `side` in pixels, of a square picture; `steps` of a whole run."""

    kind: CaseKind
    side: int
    batch: int = 1
    steps: int = 0

    @property
    def name(self) -> str:
        size = f"{self.side}x{self.side}"
        several = f", {self.batch} pictures" if self.batch > 1 else ""
        return {
            CaseKind.unet: f"UNet step {size}, batch {self.batch}",
            CaseKind.text: "text encode, 2 prompts",
            CaseKind.decode: f"VAE decode {size}",
            CaseKind.encode: f"VAE encode {size}",
            CaseKind.picture: f"whole run {size}, {self.steps} steps{several}",
        }[self.kind]


def model_file(paths: Paths, name: str) -> ModelFile:
    """Raises `ModelNotFound`."""
    with closing(Catalog(paths)) as catalog:
        return catalog.find_checkpoint(name)


def planned(paths: Paths, name: str) -> tuple[Plans, Any]:
    """The plans of a checkpoint and of the VAE in it."""
    file = model_file(paths, name)
    opened = open_checkpoint(file, allow_pickle=False, cache_dir=paths.cache_dir)
    plans = plan_checkpoint(opened, file)
    if plans.baked is None:
        raise ValueError(f"{file.name} holds no VAE")
    return plans, plan_vae(opened.vae, plans.baked)


def given(unet: Any, case: Case) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor | None, Tensor | None]:
    """What a guided step is given, in fp32: latents (batch, C, h, w), two prompts (77, D); for SDXL more."""
    generator = torch.Generator().manual_seed(0)
    config = unet.config
    cells = case.side // 8
    x = torch.randn(case.batch, config.in_channels, cells, cells, generator=generator)
    prompts = torch.randn(2, TOKENS, config.cross_attention_dim, generator=generator)
    if not config.addition_embed_type:
        return x, (prompts[0], prompts[1]), None, None
    sizes = 6
    pooled = config.projection_class_embeddings_input_dim - sizes * config.addition_time_embed_dim
    return x, (prompts[0], prompts[1]), torch.zeros(pooled), torch.full((sizes,), float(case.side))
