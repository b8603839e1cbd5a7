"""Models that were distilled to few steps, and what is suggested for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_files import UNET, folders, kohya_lora, sd1, sdxl, write_model

from webui.catalog import Catalog
from webui.catalog.suggestions import suggestion_for
from webui.params import make_params


@pytest.mark.parametrize(
    ("name", "kind", "steps", "cfg_scale"),
    [
        ("dreamshaper_8LCM", "LCM", 6, 1.5),
        ("LCM_Dreamshaper_v7", "LCM", 6, 1.5),
        ("sd_xl_turbo_1.0_fp16", "Turbo", 4, 1.0),
        ("DreamShaperXL-TurboV2", "Turbo", 4, 1.0),
        ("sdxl_lightning_8step", "Lightning", 8, 1.0),
        ("juggernaut-Lightning-4Steps", "Lightning", 4, 1.0),
        ("Hyper-SDXL-1step", "Hyper-SD", 1, 1.0),
        ("Hyper-SD15-8steps-CFG", "Hyper-SD with guidance", 8, 5.0),
        ("dmd2_sdxl_4step", "DMD2", 4, 1.0),
    ],
)
def test_a_distilled_checkpoint_is_known_by_its_name(
    tmp_path: Path, name: str, kind: str, steps: int, cfg_scale: float
) -> None:
    paths = folders(tmp_path)
    write_model(paths.checkpoints[0] / f"{name}.safetensors", sdxl())
    (found,) = (suggestion_for(model) for model in Catalog(paths).checkpoints)
    assert found is not None
    assert (found.kind, found.steps, found.cfg_scale) == (kind, steps, cfg_scale)
    params = {"sampler": found.sampler, "schedule": found.schedule, "steps": found.steps}
    assert make_params({**params, "cfg_scale": found.cfg_scale}).sampler == found.sampler


@pytest.mark.parametrize("name", ["photon_v1", "calcmix", "hyperion", "turbocharged", "model-100steps", "enlightning"])
def test_a_name_that_only_resembles_one_suggests_nothing(tmp_path: Path, name: str) -> None:
    paths = folders(tmp_path)
    write_model(paths.checkpoints[0] / f"{name}.safetensors", sd1())
    assert suggestion_for(Catalog(paths).checkpoints[0]) is None


def test_an_lcm_that_is_told_its_guidance_is_known_by_its_tensors(tmp_path: Path) -> None:
    paths = folders(tmp_path)
    write_model(paths.checkpoints[0] / "m.safetensors", {**sd1(), f"{UNET}time_embed.cond_proj.weight": (320, 256)})
    found = suggestion_for(Catalog(paths).checkpoints[0])
    assert found is not None
    assert (found.kind, found.sampler, found.cfg_scale) == ("LCM", "LCM", 8.0)


def test_a_lora_is_known_by_its_metadata(tmp_path: Path) -> None:
    paths = folders(tmp_path)
    write_model(paths.loras[0] / "speed.safetensors", kohya_lora(), {"modelspec.title": "SDXL Lightning 2-step LoRA"})
    found = suggestion_for(Catalog(paths).loras[0])
    assert found is not None
    assert (found.kind, found.sampler, found.schedule, found.steps) == ("Lightning", "Euler", "SGM Uniform", 2)
