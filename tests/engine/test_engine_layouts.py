"""The published single files of SD2, SDXL and its refiner, tensor by tensor: names, shapes, and that all are read."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.make_sdxl import LAYOUTS, specs
from webui.catalog.detect import detect
from webui.catalog.families import Family
from webui.catalog.header import Header, TensorInfo
from webui.engine.checkpoints.loader import meta_text_encoder, meta_unet
from webui.engine.files.dims import text_encoders, unet_dims
from webui.engine.files.keys import text_names, text_part, unet_names

FAMILIES = {"sd2": Family.SD2, "sdxl": Family.SDXL, "sdxl-refiner": Family.SDXL_REFINER}
UNET = "model.diffusion_model."


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    return {key: shape for key, (_, shape) in specs(name).items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_family_and_its_dimensions_follow_from_names_and_shapes_alone(name: str) -> None:
    found, tensors, position = shapes(name), {}, 0
    for key, shape in found.items():
        size = 2 * int(torch.tensor(shape).prod()) if shape else 2
        tensors[key] = TensorInfo("F16", shape, position, position + size)
        position += size
    detected = detect(Header(tensors, {}, 8, 8 + position))
    assert (detected.family, detected.reason) == (FAMILIES[name], "")
    texts = text_encoders(found, None, FAMILIES[name])
    assert texts == LAYOUTS[name].texts
    pooled = sum(dims.projection for dims in texts)
    assert unet_dims(found, None, pooled=pooled, sizes=5 if "refiner" in name else 6) == LAYOUTS[name].unet


COUNTS = [("sd2", 686, 294), ("sdxl", 1680, 586), ("sdxl-refiner", 1220, 390)]


@pytest.mark.parametrize(("name", "unet", "text"), COUNTS)
def test_every_tensor_of_the_published_file_is_read_but_what_no_network_uses(name: str, unet: int, text: int) -> None:
    """Each name once; the counts are those of the published files (without position numbers)."""
    found, layout = shapes(name), LAYOUTS[name]
    ours = {unet_names(p, layout.unet)[0] for p in meta_unet(layout.unet).state_dict()}
    words = {text_names(p, dims)[0] for dims in layout.texts for p in meta_text_encoder(dims).state_dict()}
    vae = {key for key in found if key.startswith("first_stage_model.")}
    assert (len(ours), len(vae)) == (unet, 248)
    assert sum(not key.startswith((UNET, "first_stage_model.")) for key in found) == text
    rest = set(found) - ours - words - vae
    dropped = {key for key in rest if ".resblocks.23." in key} if name == "sd2" else set()
    assert {key.rpartition(".")[2] for key in rest - dropped} <= {"logit_scale", "text_projection"}
    assert len(dropped) == (12 if name == "sd2" else 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_names_of_the_unet_are_those_of_diffusers_conversion(name: str) -> None:
    """Tensors that hold their own number go through diffusers' conversion and must come out under our names."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    dims = LAYOUTS[name].unet
    numbered = {key: torch.full((1, 1, 1, 1), float(i)) for i, key in enumerate(shapes(name)) if key.startswith(UNET)}
    module = meta_unet(dims)
    config: Any = module.config
    theirs = convert_ldm_unet_checkpoint(dict(numbered), config)
    ours = {parameter: numbered[unet_names(parameter, dims)[0]] for parameter in module.state_dict()}
    assert {k: int(v.flatten()[0]) for k, v in theirs.items()} == {k: int(v.flatten()[0]) for k, v in ours.items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_of_the_text_encoders_tensors_are_those_of_diffusers_conversion(name: str) -> None:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    dims = LAYOUTS[name].texts[-1]
    small = 3  # width of the made-up tensors, whose every number is different
    module = meta_text_encoder(dims)
    numbered: dict[str, torch.Tensor] = {}
    for key in shapes(name):
        if key.startswith(dims.prefix) and not key.endswith("logit_scale"):
            rows = 3 * small if ".in_proj_" in key else small
            start = 1000.0 * len(numbered)
            flat = torch.arange(start, start + rows * small)
            numbered[key] = flat.reshape(rows, small) if key.endswith(("weight", "text_projection")) else flat[:rows]
    module.config.hidden_size = small
    if dims.projection:
        numbered[f"{dims.prefix}text_projection"] = torch.arange(9.0).reshape(3, 3)
    else:
        numbered.pop(f"{dims.prefix}text_projection")
    theirs = convert_open_clip_checkpoint(module, numbered, prefix=dims.prefix)
    for parameter in module.state_dict():
        ours = text_part(parameter, dims).of(numbered[text_names(parameter, dims)[0]])
        bare = parameter.removeprefix("text_model.")
        converted = theirs.get(parameter, theirs.get(f"text_model.{bare}", theirs.get(bare)))
        assert torch.equal(ours, converted), parameter
