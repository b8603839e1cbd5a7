"""Which checkpoint is in memory, and what happens when its file changes or is not what it should be."""

from __future__ import annotations

import gc
import os
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from embedded import EMBEDDED_CHECKPOINT, install_embedded
from engine_runs import make_engine, pixels_of, rewrite, run
from family_runs import Models
from safetensors.torch import load_file, save_file

from webui.engine import Engine

SMALL = {"width": 64, "height": 64}


def darker(tensors: dict[str, Any]) -> Any:
    """Another model: the same one with a VAE that makes darker pictures."""
    for name, tensor in tensors.items():
        yield name, tensor - 0.5 if name == "first_stage_model.decoder.conv_out.bias" else tensor


def test_one_checkpoint_is_kept_by_default_and_the_old_one_is_really_gone(data_dir: Path) -> None:
    install_embedded(data_dir, "other")
    engine = make_engine(data_dir)
    run(engine, checkpoint=EMBEDDED_CHECKPOINT.stem, **SMALL)
    old = weakref.ref(next(iter(engine._tools.store._checkpoints.values())).unet)
    run(engine, checkpoint="other", **SMALL)
    assert engine.loaded == ("other.safetensors",)
    gc.collect()
    assert old() is None
    engine.close()


def test_two_checkpoints_are_kept_where_the_settings_say_so(data_dir: Path) -> None:
    for name in ("second", "third"):
        install_embedded(data_dir, name)
    engine = make_engine(data_dir, model__checkpoints_in_memory=2)
    first = run(engine, checkpoint=EMBEDDED_CHECKPOINT.stem, **SMALL)
    run(engine, checkpoint="second", **SMALL)
    back = run(engine, checkpoint=EMBEDDED_CHECKPOINT.stem, **SMALL)
    assert [event.reused for event in back.loaded if event.what == "checkpoint"] == [True]
    assert back.lines[0].startswith(f"Using the loaded model {EMBEDDED_CHECKPOINT.name} [")
    assert back.digests == first.digests
    run(engine, checkpoint="third", **SMALL)
    assert engine.loaded == (EMBEDDED_CHECKPOINT.name, "third.safetensors")  # the least recently used went
    engine.close()


def test_a_limit_of_memory_unloads_the_least_recently_used_whatever_their_number(data_dir: Path) -> None:
    for name in ("second", "third"):
        install_embedded(data_dir, name)
    engine = make_engine(data_dir, model__checkpoints_in_memory=8, device__precision="fp32")
    list(engine.load(EMBEDDED_CHECKPOINT.stem))
    one = next(iter(engine._tools.store._checkpoints.values())).bytes
    engine._tools.store.limit = int(2.5 * one)
    for name in ("second", EMBEDDED_CHECKPOINT.stem, "third"):
        list(engine.load(name))
    assert engine.loaded == (EMBEDDED_CHECKPOINT.name, "third.safetensors")
    engine._tools.store.limit = 1  # one is always there
    list(engine.load("second"))
    assert engine.loaded == ("second.safetensors",)
    engine.close()


def test_a_bad_file_leaves_the_loaded_model_in_place(data_dir: Path) -> None:
    folder = data_dir / "models" / "Stable-diffusion"
    engine = make_engine(data_dir)
    run(engine, **SMALL)
    unet = next(iter(engine._tools.store._checkpoints.values())).unet

    def wrong(tensors: dict[str, Any]) -> Any:
        for name, tensor in tensors.items():
            yield name, tensor[:, :1] if name.endswith("output_blocks.2.0.in_layers.2.weight") else tensor

    rewrite(EMBEDDED_CHECKPOINT, folder / "shapes.safetensors", wrong)
    engine._tools.catalog.refresh()
    failed = run(engine, checkpoint="shapes", **SMALL)
    assert failed.error["error"] in ("BadModelFile", "UnsupportedModel")
    assert next(iter(engine._tools.store._checkpoints.values())).unet is unet
    assert run(engine, checkpoint=EMBEDDED_CHECKPOINT.stem, **SMALL).lines == []
    engine.close()


def test_H028_right_names_with_wrong_shapes_are_told_with_both_shapes(data_dir: Path) -> None:
    key = "model.diffusion_model.output_blocks.2.0.in_layers.2.weight"

    def wrong(tensors: dict[str, Any]) -> Any:
        for name, tensor in tensors.items():
            yield name, tensor[:, :100] if name == key else tensor

    rewrite(EMBEDDED_CHECKPOINT, data_dir / "models" / "Stable-diffusion" / "shapes.safetensors", wrong)
    engine = make_engine(data_dir)
    error = run(engine, checkpoint="shapes", **SMALL).error
    assert error["error"] == "BadModelFile"
    assert key in error["message"]
    assert "128x100x3x3 instead of 128x320x3x3" in error["message"]
    engine.close()


def as_lora(tensors: dict[str, Any]) -> Any:
    for side, shape in (("down", (4, 320)), ("up", (320, 4))):
        yield f"lora_unet_down_blocks_0_attentions_0_proj_in.lora_{side}.weight", torch.zeros(shape)
    yield "lora_unet_down_blocks_0_attentions_0_proj_in.alpha", torch.tensor(4.0)


def as_vae(tensors: dict[str, Any]) -> Any:
    for name, tensor in tensors.items():
        if name.startswith("first_stage_model."):
            yield name.removeprefix("first_stage_model."), tensor


def as_playground(tensors: dict[str, Any]) -> Any:
    yield "conditioner.embedders.1.model.ln_final.weight", torch.ones(1280)
    yield "edm_mean", torch.ones(4)
    for name, tensor in tensors.items():
        if name.startswith(("model.diffusion_model.", "first_stage_model.")):
            yield name, tensor


@pytest.mark.parametrize(("change", "word"), [(as_lora, "LoRA"), (as_vae, "VAE"), (as_playground, "Playground")])
def test_H027_another_kind_of_file_in_the_checkpoint_folder_is_named(data_dir: Path, change: Any, word: str) -> None:
    rewrite(EMBEDDED_CHECKPOINT, data_dir / "models" / "Stable-diffusion" / "other.safetensors", change)
    engine = make_engine(data_dir)
    error = run(engine, checkpoint="other", **SMALL).error
    assert error["error"] in ("UnsupportedModel", "BadModelFile")
    assert word.lower() in error["message"].lower()
    assert run(engine, checkpoint=EMBEDDED_CHECKPOINT.stem, **SMALL).finished.pictures == 1
    engine.close()


def test_F25_a_checkpoint_that_was_deleted_is_named(data_dir: Path) -> None:
    other = install_embedded(data_dir, "other")
    engine = make_engine(data_dir)
    run(engine, checkpoint="other", **SMALL)
    other.unlink()
    error = run(engine, checkpoint="other", **SMALL).error
    assert error["error"] == "ModelNotFound"
    assert "other" in error["message"]
    assert run(engine, checkpoint=EMBEDDED_CHECKPOINT.stem, **SMALL).finished.pictures == 1
    engine.close()


def test_F26_a_checkpoint_that_was_replaced_is_loaded_anew_under_its_true_hash(data_dir: Path) -> None:
    engine = make_engine(data_dir)
    first = run(engine, **SMALL)
    path = data_dir / "models" / "Stable-diffusion" / EMBEDDED_CHECKPOINT.name
    rewrite(EMBEDDED_CHECKPOINT, data_dir / "new.safetensors", darker).replace(path)
    second = run(engine, **SMALL)
    assert second.loaded[0].short_hash != first.loaded[0].short_hash
    assert f"Model hash: {second.loaded[0].short_hash}" in second.images[0].infotext
    assert pixels_of(second.images[0]).mean() < pixels_of(first.images[0]).mean() - 10
    engine.close()


def test_F28_a_checkpoint_that_was_written_to_in_place_fails_once_by_name_and_is_then_loaded_anew(
    data_dir: Path,
) -> None:
    path = data_dir / "models" / "Stable-diffusion" / EMBEDDED_CHECKPOINT.name
    copy = data_dir / "copy.safetensors"
    shutil.copyfile(path, copy)
    copy.replace(path)  # no hard link to the repository's own file
    engine = make_engine(data_dir)
    first = run(engine, **SMALL)
    changed = rewrite(EMBEDDED_CHECKPOINT, data_dir / "new.safetensors", darker).read_bytes()
    with path.open("r+b") as file:
        file.write(changed)
        file.truncate()
    error = run(engine, **SMALL).error
    assert error["error"] == "BadModelFile"
    assert "changed on disk" in error["message"]
    assert EMBEDDED_CHECKPOINT.name in error["message"]
    second = run(engine, **SMALL)
    assert pixels_of(second.images[0]).mean() < pixels_of(first.images[0]).mean() - 10
    engine.close()


def test_F28_a_change_while_pictures_are_made_from_the_mapped_file_ends_the_job(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from webui.engine import denoise

    def whole(tensors: dict[str, Any]) -> Any:
        for name, tensor in tensors.items():
            yield name, tensor.float() if tensor.is_floating_point() else tensor

    path = rewrite(EMBEDDED_CHECKPOINT, data_dir / "models" / "Stable-diffusion" / "whole.safetensors", whole)
    shutil.copyfile(EMBEDDED_CHECKPOINT.with_suffix(".yaml"), path.with_suffix(".yaml"))
    engine = make_engine(data_dir)
    assert run(engine, checkpoint="whole", **SMALL).finished.pictures == 1
    assert engine._tools.store._checkpoints[str(path)].mapped
    real = denoise.UnetEvaluator.__call__

    def meddling(self: Any, *arguments: Any) -> Any:
        os.utime(path, ns=(1, 1))
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(denoise.UnetEvaluator, "__call__", meddling)
        failed = run(engine, checkpoint="whole", **SMALL)
    assert "changed on disk" in failed.error["message"]
    assert failed.images == []
    engine.close()


def test_loading_ahead_spares_the_job_the_wait(data_dir: Path) -> None:
    engine = make_engine(data_dir)
    kinds = [event.what for event in engine.load() if hasattr(event, "seconds")]
    assert kinds == ["checkpoint", "vae"]
    assert run(engine, **SMALL).lines == []
    failed = list(engine.load("no such model"))[-1]
    assert failed.error["error"] == "ModelNotFound"  # type: ignore[union-attr]
    engine.close()


def test_the_report_is_plain_data(engine: Engine) -> None:
    import dataclasses
    import json

    report = json.loads(json.dumps(dataclasses.asdict(engine.report())))
    assert report["device"] == "cpu"
    assert report["precision"] in ("fp32", "bf16")
    assert report["reason"].endswith(".")
    assert {backend["name"] for backend in report["backends"]} == {"xformers", "sdpa", "sliced"}
    memory = engine.memory()
    assert 0 < memory.used <= memory.peak <= memory.total


def test_a_configuration_put_beside_a_loaded_checkpoint_or_corrected_counts_at_the_next_job(tmp_path: Path) -> None:
    models = Models(tmp_path, ["sd2"])
    yaml = models.files["sd2"].with_suffix(".yaml")
    loaded = models.checkpoint("sd2")
    assert (loaded.prediction, models.checkpoint("sd2") is loaded) == ("eps", True)
    yaml.write_text('model: {params: {parameterization: "v"}}')
    assert models.checkpoint("sd2").prediction == "v"
    yaml.write_text('model: {params: {parameterization: "v", linear_end: 0.02}}')
    changed = models.checkpoint("sd2")
    assert changed.sidecar is not None
    assert changed.sidecar.linear_end == 0.02
    assert changed.key != loaded.key  # nothing that was made of its prompts is taken
    models.engine.close()


def test_a_vae_file_in_memory_has_the_scale_factor_of_each_family_that_decodes_with_it(tmp_path: Path) -> None:
    models = Models(tmp_path, ["sd2", "sdxl"])
    prefix = "first_stage_model."
    tensors = {n.removeprefix(prefix): t for n, t in load_file(models.files["sdxl"]).items() if n.startswith(prefix)}
    file = tmp_path / "models" / "VAE" / "both.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_file(tensors, file)
    store = models.engine._tools.store

    def load(checkpoint: str) -> Any:
        list(models.engine.load(checkpoint, file.name))
        return store.external_vaes[-1]

    first = load("sd2")
    assert (first.scale_factor, load("sd2") is first) == (0.18215, True)
    assert load("sdxl").scale_factor == 0.13025
    assert load("sd2").scale_factor == 0.18215
    models.engine.close()
