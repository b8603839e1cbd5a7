"""Models in the diffusers layout: listed as checkpoints; a folder that carries or names code is not opened."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from model_files import folders, write_diffusers, write_json, write_model

from webui.catalog import Catalog, ModelFile
from webui.catalog.families import Family
from webui.errors import ModelNotFound


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_diffusers(tmp_path / "models" / "Stable-diffusion" / "sub" / "small")


def listed(folder: Path) -> ModelFile:
    """The folder as a fresh catalog lists it."""
    catalog = Catalog(folders(folder.parents[3]))
    [model] = catalog.checkpoints
    return model


def change(path: Path, **entries: Any) -> None:
    write_json(path, {**json.loads(path.read_text()), **entries})


def test_a_diffusers_folder_is_one_checkpoint_with_its_parts_and_dimensions(folder: Path):
    model = listed(folder)
    assert (model.name, model.stem, model.family, model.reason) == ("sub/small", "small", Family.SD1, "")
    assert model.is_folder
    assert model.runnable
    assert model.parts["unet"] == "unet/diffusion_pytorch_model.safetensors"
    assert (model.prediction, model.prediction_known, model.native_size, model.context_dim) == ("v", True, 128, 8)
    assert model.sidecar is not None
    assert model.sidecar.vae is not None
    assert model.sidecar.vae.norm_num_groups == 8
    assert model.size == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def test_weights_in_half_precision_are_taken_when_there_are_no_others(folder: Path):
    (folder / "vae" / "diffusion_pytorch_model.safetensors").rename(
        folder / "vae" / "diffusion_pytorch_model.fp16.safetensors"
    )
    assert listed(folder).parts["vae"] == "vae/diffusion_pytorch_model.fp16.safetensors"


def test_a_text_encoder_as_transformers_5_writes_it_is_understood(folder: Path):
    write_model(folder / "text_encoder" / "model.safetensors", {"embeddings.token_embedding.weight": (16, 8)})
    assert listed(folder).runnable


@pytest.mark.parametrize(
    ("pipeline", "family"),
    [
        ("StableDiffusion3Pipeline", "SD3"),
        ("FluxPipeline", "Flux"),
        ("StableDiffusionXLInstructPix2PixPipeline", "SDXL ip2p"),
    ],
)
def test_a_pipeline_of_another_family_is_named_and_not_run(folder: Path, pipeline: str, family: str):
    change(folder / "model_index.json", _class_name=pipeline)
    model = listed(folder)
    assert (model.family.value, model.runnable) == (family, False)
    assert family in model.reason


def test_sd2_is_told_from_sd1_by_the_width_of_its_vectors(tmp_path: Path):
    model = listed(write_diffusers(tmp_path / "models" / "Stable-diffusion" / "a" / "sd2", width=1024))
    assert (model.family, model.runnable) == (Family.SD2, True)


def test_an_inpainting_unet_in_a_plain_pipeline_is_told_by_its_channels(tmp_path: Path):
    model = listed(write_diffusers(tmp_path / "models" / "Stable-diffusion" / "a" / "paint", channels=9))
    assert (model.family, model.runnable) == (Family.SD1_INPAINTING, True)


def test_a_pipeline_of_sdxl_without_its_second_text_encoder_is_refused(folder: Path):
    change(folder / "model_index.json", _class_name="StableDiffusionXLPipeline")
    model = listed(folder)
    assert not model.runnable
    assert "text_encoder_2 is missing" in model.reason


@pytest.mark.parametrize("name", ["pipeline.py", "unet/modeling.py", "vae/native.so", "tokenizer/setup.PY", "run.sh"])
def test_H051_a_folder_with_program_code_is_not_opened(folder: Path, name: str):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("raise SystemExit('run!')")
    model = listed(folder)
    assert not model.runnable
    assert "program code" in model.reason


@pytest.mark.parametrize(
    ("file", "entries"),
    [
        ("model_index.json", {"_class_name": ["pipeline", "Evil"]}),
        ("model_index.json", {"_class_name": None}),
        ("model_index.json", {"custom_pipeline": "evil"}),
        ("model_index.json", {"unet": ["unet", "EvilUNet"]}),
        ("model_index.json", {"unet": ["os", "system"]}),
        ("model_index.json", {"extra": ["my_module", "Thing"]}),
        ("unet/config.json", {"auto_map": {"AutoModel": "modeling.Evil"}}),
        ("text_encoder/config.json", {"_attn_implementation_internal": "hub/evil"}),
        ("text_encoder/config.json", {"text_config": {"vision": [{"auto_map": {}}]}}),
        ("vae/config.json", {"trust_remote_code": True}),
        ("scheduler/scheduler_config.json", {"auto_map": {}}),
    ],
)
def test_H051_a_folder_that_names_code_to_import_is_not_opened(folder: Path, file: str, entries: dict[str, Any]):
    change(folder / file, **entries)
    model = listed(folder)
    assert not model.runnable
    assert "code" in model.reason


@pytest.mark.parametrize(
    ("file", "entries"),
    [
        ("text_encoder/config.json", {"hidden_size": 10**9}),
        ("text_encoder/config.json", {"num_hidden_layers": -1}),
        ("unet/config.json", {"block_out_channels": [10**9]}),
        ("unet/config.json", {"block_out_channels": "x" * 1000}),
        ("unet/config.json", {"cross_attention_dim": 2**40}),
        ("unet/config.json", {"cross_attention_dim": 16}),
        ("unet/config.json", {"attention_head_dim": [0, 0]}),
        ("vae/config.json", {"norm_num_groups": 0}),
        ("vae/config.json", {"scaling_factor": float("nan")}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "linear"}),
    ],
)
def test_H052_a_config_out_of_bounds_is_listed_with_its_fault(folder: Path, file: str, entries: dict[str, Any]):
    change(folder / file, **entries)
    model = listed(folder)
    assert not model.runnable
    assert model.reason


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{" * 5000, b'{"a":' * 5000, b" " * 300_000])
@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json"])
def test_H052_a_config_that_is_no_json_object_is_listed_with_its_fault(folder: Path, file: str, content: bytes):
    (folder / file).write_bytes(content)
    assert listed(folder).reason


def test_weights_that_are_missing_pickled_or_split_are_named(folder: Path):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    assert "missing" in listed(folder).reason
    (folder / "unet" / "diffusion_pytorch_model.bin").touch()
    assert "pickle" in listed(folder).reason
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").touch()
    assert "split" in listed(folder).reason


def test_weights_that_are_something_else_are_named(folder: Path):
    write_model(folder / "unet" / "diffusion_pytorch_model.safetensors", {"lora.weight": (1,)})
    assert "does not hold a UNet2DConditionModel" in listed(folder).reason
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"<html>")
    assert "incomplete" in listed(folder).reason


def test_a_folder_that_was_completed_runs_after_a_refresh(folder: Path):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:100])
    catalog = Catalog(folders(folder.parents[3]))
    assert not catalog.checkpoints[0].runnable
    weights.write_bytes(kept)
    catalog.refresh()
    assert catalog.checkpoints[0].runnable


def test_a_folder_has_one_hash_that_follows_its_weights(folder: Path):
    catalog = Catalog(folders(folder.parents[3]))
    before = catalog.sha256(catalog.checkpoints[0])
    assert catalog.checkpoints[0].title == f"sub/small [{before[:10]}]"
    write_model(folder / "vae" / "diffusion_pytorch_model.safetensors", {"decoder.conv_in.weight": (64, 4, 3, 3)})
    catalog.refresh()
    assert catalog.checkpoints[0].sha256 is None
    assert catalog.sha256(catalog.checkpoints[0]) != before


def test_a_folder_that_was_deleted_is_reported_as_gone(folder: Path):
    catalog = Catalog(folders(folder.parents[3]))
    assert catalog.find_checkpoint("small").is_folder
    (folder / "model_index.json").unlink()
    with pytest.raises(ModelNotFound):
        catalog.find_checkpoint("small")


@pytest.mark.parametrize(("said", "runs"), [(True, True), (None, True), ("hub/evil", False)])
def test_a_note_of_transformers_that_it_chose_by_itself_names_no_code(folder: Path, said: Any, runs: bool):
    change(folder / "text_encoder" / "config.json", _attn_implementation_autoset=said)
    assert listed(folder).runnable == runs


def test_weights_replaced_by_older_ones_of_the_same_size_have_another_hash(folder: Path):
    catalog = Catalog(folders(folder.parents[3]))
    before = catalog.checkpoints[0]
    digest, weights = catalog.sha256(before), folder / before.parts["unet"]
    status, content = weights.stat(), bytearray(weights.read_bytes())
    content[-1] ^= 1
    new = folder.parents[3] / "new"
    new.write_bytes(content)
    os.utime(new, ns=(status.st_mtime_ns - 10**9, status.st_mtime_ns - 10**9))
    new.replace(weights)
    after = catalog.find_checkpoint(before.name)
    assert after.fingerprint != before.fingerprint
    assert catalog.sha256(after) != digest
