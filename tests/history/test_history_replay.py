"""Making a picture again: exact params, models found by hash wherever they lie, and how far the result came."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from history_studio import CHECKPOINT, Studio, draw, ids

from webui import pictures
from webui.catalog import Catalog
from webui.errors import InvalidParams, ModelNotFound, NotFound
from webui.history import History
from webui.history.replay import ReplayPlan, plan_replay
from webui.paths import Paths
from webui.provenance import Environment, UsedModel


def tensors(path: Path, names: dict[str, tuple[int, ...]], seed: int) -> Path:
    """A small real .safetensors file whose bytes depend on the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {}
    offset = 0
    for name, shape in names.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + random.Random(seed).randbytes(offset))
    return path


VAE_KEYS = {
    "decoder.conv_in.weight": (16, 4, 3, 3),
    "decoder.up.0.block.0.conv1.weight": (16, 16, 3, 3),
    "encoder.conv_in.weight": (16, 3, 3, 3),
}
CHECKPOINT_KEYS = {
    "model.diffusion_model.input_blocks.0.0.weight": (16, 4, 3, 3),
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (16, 8),
    "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight": (16, 16),
    "model.diffusion_model.out.2.weight": (4, 16, 3, 3),
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (16, 8),
    "cond_stage_model.transformer.text_model.final_layer_norm.weight": (8,),
    **{f"first_stage_model.{name}": shape for name, shape in VAE_KEYS.items()},
}
LORA_KEYS = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 768),
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight": (320, 4),
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.alpha": (),
}


@pytest.fixture
def models(paths: Paths) -> Iterator[Catalog]:
    """Two checkpoints, a VAE and a LoRA, all real files with known hashes."""
    root = paths.data_dir / "models"
    tensors(root / "Stable-diffusion" / "photo" / "base.safetensors", CHECKPOINT_KEYS, 1)
    tensors(root / "Stable-diffusion" / "other.safetensors", CHECKPOINT_KEYS, 2)
    tensors(root / "VAE" / "mse.safetensors", VAE_KEYS, 3)
    tensors(root / "Lora" / "grain.safetensors", LORA_KEYS, 4)
    catalog = Catalog(paths)
    for model in (*catalog.checkpoints, *catalog.vaes, *catalog.loras):
        catalog.sha256(model)
    catalog.refresh()
    assert all(model.runnable for model in (*catalog.checkpoints, *catalog.vaes, *catalog.loras))
    yield catalog
    catalog.close()


def used(catalog: Catalog, *kinds: str) -> tuple[UsedModel, ...]:
    """What the engine would tell of these files."""
    files = {"checkpoint": catalog.find_checkpoint("base"), "vae": catalog.vaes[0], "lora": catalog.loras[0]}
    return tuple(UsedModel(kind, files[kind].name, catalog.sha256(files[kind])) for kind in kinds)  # type: ignore[arg-type]


def planned(studio: Studio, history: History, models: Catalog, **changes: Any) -> ReplayPlan:
    return history.plan_replay("", ids(history)[0], models, changes)


# --- exact params ----------------------------------------------------------------------------------------------------


def test_a_replay_has_exactly_the_params_of_the_one_picture(studio: Studio, history: History, models: Catalog) -> None:
    studio.models = used(models, "checkpoint")
    params = studio.params(checkpoint="photo/base.safetensors", vae="None", batch_size=2, batch_count=3, seed=100)
    studio.save(params, index=4)
    plan = planned(studio, history, models)
    assert plan.params == params.single(4)
    assert plan.params.seed == 104
    assert (plan.relation, plan.changes, plan.missing, plan.notes) == ("replay", {}, (), ())
    assert plan.require_complete() is plan.params


def test_a_replay_with_one_change_is_a_variation(studio: Studio, history: History, models: Catalog) -> None:
    studio.models = used(models, "checkpoint")
    studio.save(studio.params(checkpoint="photo/base.safetensors", vae="None"))
    plan = planned(studio, history, models, seed=-1, cfg_scale=5)
    assert (plan.relation, plan.changes) == ("variation", {"seed": -1, "cfg_scale": 5})
    assert (plan.params.seed, plan.params.cfg_scale, plan.params.prompt) == (-1, 5.0, "a castle")
    assert planned(studio, history, models, sigmas=[3, 1, 0]).params.sigmas == (3.0, 1.0, 0.0)
    with pytest.raises(InvalidParams, match='no parameter "promt"'):
        planned(studio, history, models, promt="x")
    with pytest.raises(InvalidParams, match="steps"):
        planned(studio, history, models, steps=0)


def test_a_picture_that_does_not_say_how_it_was_made_cannot_be_replayed(
    studio: Studio, history: History, models: Catalog
) -> None:
    draw(1).save(studio.paths.outputs / "plain.png")
    history.reconcile()
    with pytest.raises(InvalidParams, match="does not say how it was made"):
        planned(studio, history, models)
    with pytest.raises(NotFound):
        history.plan_replay("", 99, models)


def test_a_picture_whose_params_a_later_version_wrote_is_told_so(
    studio: Studio, history: History, models: Catalog
) -> None:
    studio.save()
    with history._database.write() as db:
        db.execute("UPDATE details SET params='{\"teleport\": true}'")
    with pytest.raises(InvalidParams, match="cannot be used by this version: teleport"):
        planned(studio, history, models)


def test_an_interrupted_picture_says_that_its_replay_will_differ(
    studio: Studio, history: History, models: Catalog
) -> None:
    studio.models = used(models, "checkpoint")
    studio.save(studio.params(checkpoint="photo/base.safetensors", vae="None"))
    with history._database.write() as db:
        db.execute("UPDATE details SET infotext = infotext || ', Stopped at step: 7'")
    [note] = planned(studio, history, models).notes
    assert "interrupted at step 7" in note


# --- models ----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_found_by_its_hash_wherever_it_now_lies(
    studio: Studio, history: History, models: Catalog
) -> None:
    studio.models = used(models, "checkpoint")
    studio.save(studio.params(checkpoint="photo/base.safetensors", vae="None"))
    folder = studio.paths.checkpoints[0]
    (folder / "photo" / "base.safetensors").rename(folder / "renamed.safetensors")
    tensors(folder / "photo" / "base.safetensors", CHECKPOINT_KEYS, 9)  # another model took its name
    models.refresh()
    plan = planned(studio, history, models)
    assert plan.params.checkpoint == "renamed.safetensors"
    assert plan.missing == ()
    assert any("found as renamed.safetensors" in note for note in plan.notes)


def test_a_checkpoint_that_is_gone_is_named(studio: Studio, history: History, models: Catalog) -> None:
    studio.models = used(models, "checkpoint")
    studio.save(studio.params(checkpoint="photo/base.safetensors", vae="None"))
    (studio.paths.checkpoints[0] / "photo" / "base.safetensors").unlink()
    models.refresh()
    plan = planned(studio, history, models)
    [missing] = plan.missing
    assert (missing.kind, missing.name, missing.sha256) == (
        "checkpoint",
        "photo/base.safetensors",
        studio.models[0].sha256,
    )
    with pytest.raises(ModelNotFound, match=r"checkpoint photo/base\.safetensors \["):
        plan.require_complete()
    changed = planned(studio, history, models, checkpoint="other.safetensors")
    assert changed.missing == ()  # it is not needed when another one is asked for
    assert changed.params.checkpoint == "other.safetensors"


def test_a_file_with_the_name_but_other_content_is_not_taken(studio: Studio, history: History, models: Catalog) -> None:
    studio.models = (UsedModel("checkpoint", "other.safetensors", "ab" * 32),)
    studio.save(studio.params(checkpoint="other.safetensors", vae="None"))
    [missing] = planned(studio, history, models).missing
    assert missing.reason == "A file of that name is here, but with other content."


@pytest.mark.parametrize("setting", ["Automatic", "mse.safetensors", "None"])
def test_the_vae_is_the_one_the_picture_was_decoded_with(
    setting: str, studio: Studio, history: History, models: Catalog
) -> None:
    external = setting == "mse.safetensors"
    studio.models = used(models, "checkpoint", *(["vae"] if external else []))
    studio.save(studio.params(checkpoint="photo/base.safetensors", vae=setting))
    assert planned(studio, history, models).params.vae == setting
    beside = studio.paths.checkpoints[0] / "photo" / "base.vae.safetensors"
    if external:
        vae = studio.paths.vaes[0] / "mse.safetensors"
        vae.rename(vae.with_name("moved.safetensors"))
    else:  # a file beside the checkpoint would now be taken by "Automatic"
        tensors(beside, VAE_KEYS, 8)
    models.refresh()
    plan = planned(studio, history, models)
    assert plan.missing == ()
    assert plan.params.vae == ("moved.safetensors" if external else "None")


def test_a_vae_that_is_gone_is_named(studio: Studio, history: History, models: Catalog) -> None:
    studio.models = used(models, "checkpoint", "vae")
    studio.save(studio.params(checkpoint="photo/base.safetensors", vae="mse.safetensors"))
    (studio.paths.vaes[0] / "mse.safetensors").unlink()
    models.refresh()
    plan = planned(studio, history, models)
    assert [missing.kind for missing in plan.missing] == ["vae"]
    assert plan.params.vae == "Automatic"


def test_a_lora_is_found_under_its_new_name_and_the_tag_follows(
    studio: Studio, history: History, models: Catalog
) -> None:
    studio.models = used(models, "checkpoint", "lora")
    studio.save(
        studio.params(checkpoint="photo/base.safetensors", vae="None", prompt="a castle <lora:grain:0.8> <lora:x:1>")
    )
    assert planned(studio, history, models).params.prompt == "a castle <lora:grain:0.8> <lora:x:1>"
    lora = studio.paths.loras[0] / "grain.safetensors"
    lora.rename(lora.with_name("film grain.safetensors"))
    models.refresh()
    plan = planned(studio, history, models)
    assert plan.params.prompt == "a castle <lora:film grain:0.8> <lora:x:1>"
    (lora.with_name("film grain.safetensors")).unlink()
    models.refresh()
    assert [missing.kind for missing in planned(studio, history, models).missing] == ["lora"]


def test_a_lora_of_the_hires_prompt_is_found_under_its_new_name(
    studio: Studio, history: History, models: Catalog
) -> None:
    studio.models = used(models, "checkpoint", "lora")
    hires = {"prompt": "more <lora:grain:0.8>", "negative_prompt": "", "upscaler": "Latent"}
    studio.save(studio.params(checkpoint="photo/base.safetensors", vae="None", hires=hires))
    lora = studio.paths.loras[0] / "grain.safetensors"
    lora.rename(lora.with_name("film#grain.safetensors"))
    models.refresh()
    hires_then = planned(studio, history, models).params.hires
    assert hires_then is not None
    assert hires_then.prompt == r"more <lora:film\#grain:0.8>"


def test_a_lora_of_an_imported_picture_is_found_by_the_hash_of_its_tensors(
    studio: Studio, history: History, models: Catalog
) -> None:
    digest = models.addnet_hash(models.loras[0])[:12]
    record = history_record(studio, history, networks=(UsedModel("lora", "FilmGrain_v2", digest),))
    plan = plan_replay(record, models)
    assert plan.missing == ()
    assert any("found as grain.safetensors" in note for note in plan.notes)


def history_record(studio: Studio, history: History, **fields: Any) -> Any:
    from dataclasses import replace

    studio.models = ()
    studio.save(studio.params(checkpoint=None))
    return replace(history.get("", ids(history)[0]).record, **fields)


def test_a_hash_that_nobody_computed_yet_is_computed(studio: Studio, history: History, models: Catalog) -> None:
    studio.models = used(models, "checkpoint")
    studio.save(studio.params(checkpoint="photo/base.safetensors", vae="None"))
    shutil.rmtree(studio.paths.cache_dir)
    studio.paths.cache_dir.mkdir()
    folder = studio.paths.checkpoints[0]
    (folder / "photo" / "base.safetensors").rename(folder / "new name.safetensors")
    fresh = Catalog(studio.paths)
    assert planned(studio, history, fresh).params.checkpoint == "new name.safetensors"
    fresh.close()


def test_without_a_hash_the_name_decides_and_that_is_said(studio: Studio, history: History, models: Catalog) -> None:
    record = history_record(studio, history, checkpoint=UsedModel("checkpoint", "base"))
    plan = plan_replay(record, models)
    assert plan.params.checkpoint == "photo/base.safetensors"
    assert any("hash of checkpoint base is not known" in note for note in plan.notes)
    nowhere = plan_replay(history_record(studio, history, checkpoint=UsedModel("checkpoint", "lost")), models)
    assert [missing.name for missing in nowhere.missing] == ["lost"]


# --- afterwards ------------------------------------------------------------------------------------------------------


def test_equal_pixels_are_identical_whatever_the_file_says(studio: Studio, history: History) -> None:
    studio.save(seed=1, prompt="one")
    studio.save(seed=1, prompt="two", image_format="jpeg")
    assert history.difference("", 1, 2).verdict == "identical"


def test_a_difference_is_told_with_its_size_and_its_likely_causes(
    studio: Studio, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "open_image", lambda _data: pytest.fail("decoded without a turn"))
    studio.save(seed=1)
    studio.environment = Environment(torch="2.14.0", device="cuda:0 H200", dtype="float16", attention="sdpa")
    studio.models = (UsedModel("checkpoint", CHECKPOINT.name, "00" * 32),)
    studio.save(seed=2)
    found = history.difference("", 1, 2)
    first, second = draw(1), draw(2)
    deltas = [abs(a - b) for a, b in zip(first.tobytes(), second.tobytes(), strict=True)]
    assert found.verdict == "different"
    assert found.max_difference == max(deltas)
    assert found.mean_difference == pytest.approx(sum(deltas) / len(deltas))
    table = {row.name: (row.group, *row.values) for row in history.compare("", [1, 2])}
    assert table == {
        "seed": ("parameter", "1", "2"),
        "checkpoint": (
            "model",
            f"{CHECKPOINT.name} [6ce0161689]",
            f"{CHECKPOINT.name} [0000000000]",
        ),
        "product": ("environment", "0.1.0", None),
        "torch": ("environment", "2.13.0", "2.14.0"),
        "device": ("environment", "cpu", "cuda:0 H200"),
        "dtype": ("environment", "float32", "float16"),
    }


def test_other_sizes_lossy_and_missing_files_are_told_apart(studio: Studio, history: History) -> None:
    studio.save(seed=1)
    studio.save(seed=1, width=128)
    assert history.difference("", 1, 2).verdict == "other size"
    studio.save(seed=3, image_format="jpeg")
    lossy = history.difference("", 1, 3)
    assert lossy.verdict == "different"
    assert "lossy" in lossy.notes[0]
    history.file("", 3).unlink()
    gone = history.difference("", 1, 3)
    assert (gone.verdict, gone.max_difference) == ("different", None)


def test_pictures_whose_hash_is_not_known_are_compared_by_their_files(
    studio: Studio, history: History, tmp_path: Path
) -> None:
    path = studio.save(seed=1)
    folder = tmp_path / "old"
    folder.mkdir()
    os.link(path, folder / "copy.png")
    history.import_folder(folder)
    imported = next(one for one in ids(history) if history.get("", one).record.folder)
    assert history.get("", imported).record.pixels_sha256 == ""
    assert history.difference("", 1, imported).verdict == "identical"
    (folder / "copy.png").unlink()
    assert history.difference("", 1, imported).verdict == "unknown"


def test_the_table_shows_everything_when_asked_and_takes_two_to_ten(studio: Studio, history: History) -> None:
    for seed in range(11):
        studio.save(seed=seed)
    rows = history.compare("", [1, 2, 3], everything=True)
    assert {row.name for row in rows} >= {"prompt", "steps", "sampler", "seed", "checkpoint", "vae", "torch"}
    assert [row.values for row in rows if row.name == "seed"] == [("0", "1", "2")]
    assert [row.name for row in rows if not row.equal] == ["seed"]
    for wrong in ([1], list(range(1, 12))):
        with pytest.raises(InvalidParams):
            history.compare("", wrong)
