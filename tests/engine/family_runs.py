"""The families' small models in an engine of ours and in diffusers' pipelines, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_runs import make_engine, pixels_of, run
from family_models import RECIPES, SIDE, reference, write_checkpoint

from webui.engine import Engine
from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.engine.conditioning.text import Conditioning, PromptEncoder
from webui.prompt import chunk_text, clip_tokenizer, parse_prompt

SHAPE = (1, 4, SIDE // 8, SIDE // 8)


class Models:
    """Small models in one data folder, of all families unless told otherwise, and an engine in fp32 that reads them."""

    def __init__(self, root: Path, names: Iterable[str] = RECIPES) -> None:
        self.root = root
        self.files = {
            name: write_checkpoint(root / "models" / "Stable-diffusion" / f"{name}.safetensors", RECIPES[name])
            for name in names
        }
        self.engine: Engine = make_engine(root, device__precision="fp32")
        self._pipelines: dict[str, Any] = {}

    def pipeline(self, name: str) -> Any:
        if name not in self._pipelines:
            self._pipelines[name] = reference(self.files[name], RECIPES[name])
        return self._pipelines[name]

    def checkpoint(self, name: str) -> LoadedCheckpoint:
        list(self.engine.load(name))
        return self.engine._tools.store._checkpoints[str(self.files[name])]


def condition(models: Models, name: str, prompt: str, negative: str = "", clip_skip: int = 1) -> Conditioning:
    checkpoint, tools = models.checkpoint(name), models.engine._tools
    encoder = PromptEncoder(
        checkpoint.text_encoders,
        name,
        tools.chunks,
        tools.device.device,
        tools.residency,
        zero_empty_negative=checkpoint.zeroes_empty_negative,
    )
    tokenizer = clip_tokenizer()
    with torch.inference_mode():
        return encoder.condition(
            parse_prompt(prompt, negative, steps=4, tokenizer=tokenizer),
            lambda text: chunk_text(text, tokenizer),
            clip_skip=clip_skip,
            emphasis="Original",
            pad_conds=False,
        )


def same_picture(models: Models, name: str, words: dict[str, Any], theirs: dict[str, Any]) -> None:
    """A picture of ours with `words` equals that of diffusers with `theirs`, in every pixel, up to rounding."""
    pipeline = models.pipeline(name)
    pipeline.scheduler.set_timesteps(4)
    sigmas = tuple(float(s) for s in pipeline.scheduler.sigmas)
    settings = {
        "sampler": "Euler",
        "steps": 4,
        "sigmas": sigmas,
        "cfg_scale": 5.0,
        "seed": 3,
        "quantize_timesteps": True,
    }
    made = run(models.engine, **{"checkpoint": name, "prompt": "a red apple", **settings, **words})
    assert [w.text for w in made.warnings] == []
    ours = pixels_of(made.images[0]).astype(int)
    usual = {"prompt": "a red apple", "num_inference_steps": 4, "guidance_scale": 5.0, "output_type": "np"}
    latents = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    picture = pipeline(**{**usual, "latents": latents, **theirs}).images[0]
    assert np.ptp(ours) > 30  # not one grey area
    assert abs(ours - picture * 255).max() <= 1.01
