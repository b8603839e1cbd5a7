"""What started from a picture or enlarged one is made again bit for bit: from the history, and from its own text."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from embedded import EMBEDDED_CHECKPOINT, link_or_copy
from PIL import Image
from safetensors.torch import load_file, save_file
from workshop import Workshop, params

from webui import events, infotext
from webui.inputs import InputStore
from webui.params import make_params

OPERATIONS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "img2img": lambda given, mask: {"init": {"image": given, "denoising_strength": 0.6}, "batch_size": 2},
    "inpaint": lambda given, mask: {
        "init": {"image": given, "denoising_strength": 0.8},
        "inpaint": {"mask": mask, "only_masked": True, "fill": "latent noise"},
    },
    "soft": lambda given, mask: {"init": {"image": given}, "inpaint": {"mask": mask, "soft": {}}},
    "outpaint": lambda given, mask: {"init": {"image": given, "frame": {"left": 16}}, "inpaint": {"fill": "fill"}},
    "hires": lambda given, mask: {"hires": {"scale": 1.5, "steps": 2, "denoising_strength": 0.5}, "batch_size": 2},
    "hires of a picture": lambda given, mask: {"hires": {"first_pass": given, "upscaler": "Lanczos", "steps": 2}},
    "sd upscale": lambda given, mask: {"init": {"image": given}, "sd_upscale": {"overlap": 16}},
    "tiling": lambda given, mask: {"tiling_x": True},
    "a tiled VAE": lambda given, mask: {
        "init": {"image": given, "denoising_strength": 0.0},
        "vae_tiling": "On",
        "width": 544,
    },
    "extras": lambda given, mask: {"extras": {"image": given, "upscaler": "Lanczos"}},
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_replayed_identical_also_by_its_text(operation: str, workshop: Workshop) -> None:
    history, store = workshop.history, InputStore(workshop.paths.outputs)
    given, mask = store.add(png(Image.effect_noise((64, 64), 60))), store.add(png(Image.radial_gradient("L")))
    asked = params(**OPERATIONS[operation](given.reference, mask.reference))
    job, told = workshop.make(asked)
    card = history.of_job("", job)[-1]
    assert history.difference("", card.id, workshop.replay(card.id)).verdict == "identical"
    image = [event for event in told if isinstance(event, events.Image)][-1]
    _, again = workshop.make(make_params({**infotext.parse(image.infotext).params, "image_format": "png"}))
    assert [e.pixels_sha256 for e in again if isinstance(e, events.Image)] == [image.pixels_sha256]
    assert set(asked.inputs) <= history.inputs()


def test_the_second_pass_networks_are_found_by_their_hashes_under_other_names(workshop: Workshop) -> None:
    """Its checkpoint and its upscaler were renamed and moved; the history and the picture's text find both."""
    models, history = workshop.paths.models, workshop.history
    second, upscaler = workshop.paths.checkpoints[0] / "second.safetensors", models / "ESRGAN" / "sharp.safetensors"
    upscaler.parent.mkdir(parents=True, exist_ok=True)
    save_file(load_file(EMBEDDED_CHECKPOINT), second, {"of": "the second pass"})  # the same weights, another hash
    link_or_copy(EMBEDDED_CHECKPOINT.with_suffix(".yaml"), second.with_suffix(".yaml"))
    link_or_copy(next(EMBEDDED_CHECKPOINT.parents[1].joinpath("ESRGAN").glob("*.safetensors")), upscaler)
    workshop.catalog.refresh()
    hires = {"upscaler": "sharp", "checkpoint": "second", "scale": 1.5, "steps": 2, "denoising_strength": 0.5}
    job, told = workshop.make(params(hires=hires, checkpoint=EMBEDDED_CHECKPOINT.name))
    [card] = history.of_job("", job)
    used = {model.kind: model for model in history.get("", card.id).record.networks}
    assert used["hires checkpoint"].name == second.name
    digest = used["hires checkpoint"].sha256
    [image] = [event for event in told if isinstance(event, events.Image)]
    assert f"Hires checkpoint: second [{digest[:10]}]" in image.infotext

    (second.parent / "elsewhere").mkdir()
    for suffix in (".safetensors", ".yaml"):
        second.with_suffix(suffix).rename(second.parent / "elsewhere" / f"renamed{suffix}")
    upscaler.rename(upscaler.with_stem("soft"))
    workshop.catalog.refresh()
    plan = history.plan_replay("", card.id, workshop.catalog, {})
    assert plan.params.hires is not None
    assert plan.params.hires.checkpoint == "elsewhere/renamed.safetensors"
    assert plan.params.hires.upscaler == "soft.safetensors"
    assert history.difference("", card.id, workshop.replay(card.id)).verdict == "identical"
    by_text = make_params(infotext.parse(image.infotext.replace("sharp", "soft")).params)
    assert by_text.hires is not None
    assert workshop.catalog.find_checkpoint(by_text.hires.checkpoint or "").name == "elsewhere/renamed.safetensors"

    upscaler.with_stem("soft").unlink()
    workshop.catalog.refresh()
    [missing] = history.plan_replay("", card.id, workshop.catalog, {}).missing
    assert (missing.kind, missing.name) == ("upscaler", "sharp.safetensors")


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def test_an_enlarged_picture_is_found_by_the_prompt_that_drew_it(workshop: Workshop) -> None:
    history, store = workshop.history, InputStore(workshop.paths.outputs)
    _, told = workshop.make(params(prompt="a purple walrus"))
    [drawn] = [event for event in told if isinstance(event, events.Image)]
    given = store.add(Path(drawn.path).read_bytes()).reference
    job, _ = workshop.make(make_params({"extras": {"image": given, "upscaler": "Lanczos"}}))
    [card] = history.of_job("", job)
    record = history.get("", card.id).record
    assert (record.prompt, record.seed, record.steps) == ("a purple walrus", 11, 3)
    assert (record.width, record.height) == (128, 128)
    bare = store.add(png(Image.new("RGB", (8, 8)))).reference
    job, _ = workshop.make(make_params({"extras": {"image": bare}}))
    [card] = history.of_job("", job)
    assert (history.get("", card.id).record.prompt, history.get("", card.id).record.sampler) == ("", "")
