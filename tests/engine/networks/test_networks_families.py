"""LoRAs and embeddings of SD2 and SDXL, from files that trainers write, against diffusers' pipelines with them on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_runs import run
from family_models import RECIPES, SIDE
from family_runs import Models, same_picture
from network_files import notice, write
from network_models import fingerprint
from torch import Tensor

from webui.engine.files.keys import unet_names
from webui.engine.networks.library import networks_of

pytest.importorskip("peft")  # diffusers attaches LoRAs with it

UNET_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "ff.net.2", "conv1", "conv_shortcut")
TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
TEXT_NAMES = {
    "sd2": {"kohya": ("lora_te_",)},
    "sdxl": {"kohya": ("lora_te1_", "lora_te2_"), "peft": ("text_encoder.", "text_encoder_2.")},
}
SAID = {"sd2": {"ss_base_model_version": "sd_v2"}, "sdxl": {}}  # no shape of a small SD2 model tells its family
NEGATIVE = {"negative_prompt": "blurry"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    models = Models(tmp_path_factory.mktemp("networks"), ("sd2", "sdxl", "sdxl-refiner"))
    yield models
    models.engine.close()


def lora(models: Models, name: str, scheme: str, seed: int = 1) -> dict[str, Tensor]:
    """A LoRA of rank 3 on every kind of layer, under the names that `scheme` has for them."""
    checkpoint, generator = models.checkpoint(name), torch.Generator().manual_seed(seed)
    dims, tensors = RECIPES[name].unet, {}

    def pair(layer: str, weight: Tensor) -> None:
        ones = [1] * (weight.ndim - 2)
        down = torch.randn(3, *weight.shape[1:], generator=generator) * 0.3
        up = torch.randn(weight.shape[0], 3, *ones, generator=generator) * 0.3
        if scheme == "peft":
            tensors.update({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up})
        else:
            alpha = torch.tensor(1.5)
            tensors.update({f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up, f"{layer}.alpha": alpha})

    for path, layer in checkpoint.unet.named_modules():
        if path.endswith(UNET_LAYERS):
            if scheme == "kohya, CompVis":
                path = unet_names(f"{path}.weight", dims)[0].removeprefix("model.diffusion_model.")[: -len(".weight")]
            pair(f"unet.{path}" if scheme == "peft" else f"lora_unet_{path.replace('.', '_')}", layer.weight)
    prefixes = TEXT_NAMES[name]["peft" if scheme == "peft" else "kohya"]
    for prefix, encoder in zip(prefixes, checkpoint.text_encoders, strict=True):
        for path, layer in encoder.module.named_modules():
            if path.endswith(TEXT_LAYERS):
                full = f"text_model.{path.removeprefix('text_model.')}"
                pair(prefix + (full if scheme == "peft" else full.replace(".", "_")), layer.weight)
    return tensors


def put(models: Models, folder: str, name: str, tensors: dict[str, Tensor], said: dict[str, str] | None = None) -> Path:
    """models/FOLDER/NAME.safetensors, and the engine knows of it."""
    path = write(models.root / "models" / folder / f"{name}.safetensors", tensors, said or None)
    notice(models.engine)
    return path


def weights_of(models: Models, name: str) -> dict[str, Any]:
    """Every parameter's place in memory and its bytes."""
    return {n: fingerprint(module) for n, module in networks_of(models.checkpoint(name)).items()}


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("sdxl", "kohya, CompVis"),
        ("sdxl", "kohya, diffusers"),
        ("sdxl", "peft"),
        ("sd2", "kohya, diffusers"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_lora_on_unet_and_text_encoders_draws_what_diffusers_draws_and_off_again_all_is_as_it_was(
    models: Models, name: str, scheme: str
) -> None:
    path = put(models, "Lora", "style", lora(models, name, scheme), SAID[name])
    before, plain = weights_of(models, name), run(models.engine, checkpoint=name, width=SIDE, height=SIDE).digests
    pipeline = models.pipeline(name)
    pipeline.load_lora_weights(path)
    try:
        same_picture(models, name, {"prompt": "a red apple <lora:style:1>", **NEGATIVE}, {
            "width": SIDE, "height": SIDE, **NEGATIVE,
        })  # fmt: skip
    finally:
        pipeline.unload_lora_weights()
    changed = weights_of(models, name)
    assert all(changed[network] != before[network] for network in before)
    assert run(models.engine, checkpoint=name, width=SIDE, height=SIDE).digests == plain
    assert weights_of(models, name) == before


def test_the_weights_of_text_encoders_and_unet_are_apart_and_both_encoders_take_the_first(models: Models) -> None:
    put(models, "Lora", "style", lora(models, "sdxl", "peft"))
    before = weights_of(models, "sdxl")
    run(models.engine, checkpoint="sdxl", prompt="a <lora:style:0.5:0>")
    text = weights_of(models, "sdxl")
    assert [text[n] == before[n] for n in ("unet", "te1", "te2")] == [True, False, False]
    run(models.engine, checkpoint="sdxl", prompt="a <lora:style:0:0.5>")
    unet = weights_of(models, "sdxl")
    assert [unet[n] == before[n] for n in ("unet", "te1", "te2")] == [False, True, True]


@pytest.mark.parametrize(("made_for", "used_with"), [("sdxl", "sd2"), ("sd2", "sdxl")])
def test_a_lora_of_the_other_family_changes_nothing_and_its_family_is_named(
    models: Models, made_for: str, used_with: str
) -> None:
    plain = run(models.engine, checkpoint=used_with, prompt="a cat", width=SIDE, height=SIDE).digests
    put(models, "Lora", "foreign", lora(models, made_for, "kohya, diffusers"), SAID[made_for])
    made = run(models.engine, checkpoint=used_with, prompt="a cat <lora:foreign:1>", width=SIDE, height=SIDE)
    assert made.digests == plain
    family, model = RECIPES[made_for].family, RECIPES[used_with].family
    assert [w.text for w in made.warnings] == [
        f'The LoRA "foreign" had no effect: it is made for {family}, and this model is {model}.'
    ]


def test_what_a_refiner_does_not_take_is_said_of_its_part_alone(models: Models) -> None:
    put(models, "Lora", "style", lora(models, "sdxl", "peft"))
    fields = {"refiner": "sdxl-refiner", "refiner_switch_at": 0.5, "width": SIDE, "height": SIDE, "steps": 2}
    made = run(models.engine, checkpoint="sdxl", prompt="a cat <lora:style:1> <lora:missing:1>", **fields)
    said, of_refiner = (w.text for w in made.warnings)
    assert said.startswith('There is no LoRA "missing" here')
    assert of_refiner.startswith('In the refiner\'s part: The LoRA "style" had no effect: it is made for SDXL')


EMBEDDINGS = {"sd2": {"emb_params": 48}, "sdxl": {"clip_l": 32, "clip_g": 48}}


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.filterwarnings("ignore")
def test_an_embedding_stands_in_the_prompt_of_each_encoder_as_in_diffusers(models: Models, name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    tables = {key: torch.randn(2, width, generator=generator) for key, width in EMBEDDINGS[name].items()}
    path = put(models, "embeddings", "badhands", tables)
    pipeline = models.pipeline(name)
    for i, table in enumerate(tables.values()):
        number = "" if i == 0 else f"_{i + 1}"
        encoder, tokenizer = (getattr(pipeline, f"{part}{number}") for part in ("text_encoder", "tokenizer"))
        pipeline.load_textual_inversion(table, token="<bad>", text_encoder=encoder, tokenizer=tokenizer)
    same_picture(models, name, {"prompt": "a red apple, badhands", **NEGATIVE}, {
        "prompt": "a red apple, <bad>", "width": SIDE, "height": SIDE, **NEGATIVE,
    })  # fmt: skip
    path.unlink()
    notice(models.engine)


def test_an_embedding_of_the_other_family_is_words_and_the_reason_is_said(models: Models) -> None:
    path = put(models, "embeddings", "badhands", {"clip_l": torch.ones(2, 32), "clip_g": torch.ones(2, 48)})
    made = run(models.engine, checkpoint="sd2", prompt="a cat, badhands", width=SIDE, height=SIDE)
    assert "made for a model with 32 and 48 numbers a token, this model has 48" in made.warnings[0].text
    path.unlink()
    notice(models.engine)
