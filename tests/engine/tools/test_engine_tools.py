"""Merging, pruning and converting model files, on the real embedded checkpoint and on small made ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from embedded import EMBEDDED_CHECKPOINT
from engine_runs import make_engine, run
from safetensors.torch import load_file, save_file
from torch import Tensor

from webui.cli import main
from webui.engine.files.weights import Weights, open_weights
from webui.engine.tools.merging import Recipe, Source, merge, mixing, slerp_shares
from webui.engine.tools.rewriting import convert, prune
from webui.errors import BadModelFile, InvalidParams
from webui.paths import REPO_ROOT

CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"
OTHER = "model.diffusion_model.middle_block.1.proj_in.weight"


def model(path: Path, seed: int, channels: int = 4, **more: Tensor) -> Source:
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        CONV_IN: torch.randn(8, channels, 3, 3, generator=generator),
        OTHER: torch.randn(16, 16, generator=generator).half(),
        "model.diffusion_model.out.2.bias": torch.randn(4, generator=generator),
        "first_stage_model.decoder.conv_in.weight": torch.randn(8, 4, 3, 3, generator=generator),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        **more,
    }
    save_file(tensors, path, {"native_resolution": "64"})
    return Source(Weights(path), path.name, f"{seed:064d}")


@pytest.fixture
def two(tmp_path: Path) -> tuple[Source, Source]:
    return model(tmp_path / "a.safetensors", 1), model(tmp_path / "b.safetensors", 2)


def test_a_weighted_sum_is_that_of_every_floating_tensor(tmp_path: Path, two: tuple[Source, Source]) -> None:
    a, b = two
    target = tmp_path / "new" / "sum.safetensors"
    done = merge(target, Recipe("weighted sum", 0.25, "keep"), a, b)
    found, first, second = (load_file(path) for path in (target, a.weights.path, b.weights.path))
    for name in first:
        wanted = 0.75 * first[name].float() + 0.25 * second[name].float() if first[name].is_floating_point() else None
        assert found[name].dtype == first[name].dtype
        torch.testing.assert_close(found[name], first[name] if wanted is None else wanted.to(first[name].dtype))
    assert (done.mixed, done.only_in_a, done.written.tensors) == (4, 0, 5)


def test_add_difference_adds_what_b_has_over_c(tmp_path: Path, two: tuple[Source, Source]) -> None:
    a, b = two
    c = model(tmp_path / "c.safetensors", 3)
    merge(tmp_path / "d.safetensors", Recipe("add difference", 0.5, "fp32"), a, b, c)
    found = load_file(tmp_path / "d.safetensors")
    first, second, third = (load_file(source.weights.path) for source in (a, b, c))
    torch.testing.assert_close(found[CONV_IN], first[CONV_IN] + 0.5 * (second[CONV_IN] - third[CONV_IN]))


def test_slerp_goes_along_the_arc_and_keeps_the_length() -> None:
    a, b = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    (half,) = mixing(Recipe("slerp", 0.5), a, b)
    torch.testing.assert_close(half, torch.tensor([0.5**0.5, 0.5**0.5, 0.0]))
    (third,) = mixing(Recipe("slerp", 1 / 3), a, b)
    torch.testing.assert_close(third, torch.tensor([3**0.5 / 2, 0.5, 0.0]))
    assert slerp_shares(a, a * 2, 0.3) == (0.7, 0.3)  # parallel: a straight line
    assert slerp_shares(a, a * 0, 0.3) == (0.7, 0.3)


def test_slices_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    from webui.engine.tools import merging

    a, b = (torch.randn(1000, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    for method in ("weighted sum", "slerp"):
        whole = torch.cat(list(mixing(Recipe(method, 0.4), a, b)))  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setattr(merging, "SLICE", 64)
            pieces = torch.cat(list(mixing(Recipe(method, 0.4), a, b)))  # type: ignore[arg-type]
        torch.testing.assert_close(pieces, whole)


def test_the_recipe_is_in_the_metadata_beside_the_first_models_own(tmp_path: Path, two: tuple[Source, Source]) -> None:
    a, b = two
    merge(tmp_path / "m.safetensors", Recipe("weighted sum", 0.3), a, b)
    said = Weights(tmp_path / "m.safetensors").metadata
    recipe = json.loads(said["sd_merge_recipe"])
    assert (recipe["interp_method"], recipe["multiplier"], recipe["save_as_half"]) == ("Weighted sum", 0.3, True)
    assert (recipe["primary_model_hash"], recipe["secondary_model_name"]) == (a.sha256, "b.safetensors")
    assert set(json.loads(said["sd_merge_models"])) == {a.sha256, b.sha256}
    assert said["native_resolution"] == "64"
    assert all(t.dtype in (torch.float16, torch.int64) for t in load_file(tmp_path / "m.safetensors").values())


def test_an_inpainting_model_takes_of_a_plain_one_what_belongs_to_the_latents(tmp_path: Path) -> None:
    a, b = model(tmp_path / "paint.safetensors", 1, channels=9), model(tmp_path / "plain.safetensors", 2)
    done = merge(tmp_path / "m.safetensors", Recipe("weighted sum", 0.5, "fp32"), a, b)
    found, first, second = (load_file(p) for p in (tmp_path / "m.safetensors", a.weights.path, b.weights.path))
    torch.testing.assert_close(found[CONV_IN][:, :4], (first[CONV_IN][:, :4] + second[CONV_IN]) / 2)
    torch.testing.assert_close(found[CONV_IN][:, 4:], first[CONV_IN][:, 4:])
    assert "inpainting" in done.notes[0]


def test_a_vae_is_baked_in_whole(tmp_path: Path, two: tuple[Source, Source]) -> None:
    vae = {
        "encoder.down.0.block.0.conv1.weight": torch.ones(2, 2),
        "decoder.conv_in.weight": torch.full((8, 4, 3, 3), 7.0),
        "post_quant_conv.bias": torch.ones(4),
        "loss.discriminator": torch.ones(4),
    }
    save_file(vae, tmp_path / "vae.safetensors")
    source = Source(Weights(tmp_path / "vae.safetensors"), "vae.safetensors")
    merge(tmp_path / "m.safetensors", Recipe(), *two, vae=source)
    found = load_file(tmp_path / "m.safetensors")
    baked = {name for name in found if name.startswith("first_stage_model.")}
    assert baked == {f"first_stage_model.{name}" for name in vae if not name.startswith("loss")}
    assert bool((found["first_stage_model.decoder.conv_in.weight"] == 7).all())


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Recipe("weighted sum", 1.5), "alpha is 1.5"),
        (Recipe("add difference", 0.5), "needs a third model"),
        (Recipe("weighted sum", 0.5, "fp8"), 'no precision "fp8"'),
        (Recipe("average", 0.5), 'merge called "average"'),  # type: ignore[arg-type]
    ],
)
def test_an_impossible_recipe_is_refused_before_anything_is_written(
    tmp_path: Path, two: tuple[Source, Source], recipe: Recipe, words: str
) -> None:
    with pytest.raises(InvalidParams, match=words):
        merge(tmp_path / "m.safetensors", recipe, *two)
    assert not (tmp_path / "m.safetensors").exists()


def test_models_that_do_not_go_together_are_refused_and_nothing_is_overwritten(
    tmp_path: Path, two: tuple[Source, Source]
) -> None:
    a, b = two
    wide = model(tmp_path / "wide.safetensors", 4, **{OTHER: torch.ones(32, 32)})
    with pytest.raises(BadModelFile, match=r"is 16x16 in a\.safetensors and 32x32"):
        merge(tmp_path / "m.safetensors", Recipe(), a, wide)
    save_file({"x": torch.ones(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(BadModelFile, match="shares only 0 of the 4 tensors"):
        merge(tmp_path / "m.safetensors", Recipe(), a, Source(Weights(tmp_path / "lora.safetensors"), "lora"))
    with pytest.raises(InvalidParams, match="is there already"):
        merge(b.weights.path, Recipe(), a, b)
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_disk_that_fills_up_leaves_nothing(
    tmp_path: Path, two: tuple[Source, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    from webui.engine.tools import merging

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merging, "mixing", full)
    with pytest.raises(OSError, match="No space left"):
        merge(tmp_path / "m.safetensors", Recipe(), *two)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_pruning_leaves_out_averages_and_training_and_can_keep_the_averages_instead(tmp_path: Path) -> None:
    ema = "model_ema.diffusion_modelout2bias"
    spare = {ema: torch.full((4,), 9.0), "betas": torch.ones(3), "optimizer_states.0": torch.ones(3)}
    source = model(tmp_path / "trained.safetensors", 1, v_pred=torch.zeros(0), **spare)
    done = prune(source.weights, tmp_path / "pruned.safetensors")
    found = load_file(tmp_path / "pruned.safetensors")
    assert done.left_out == 4  # and the position numbers
    assert "v_pred" in found
    assert not set(spare) & set(found)
    assert found[CONV_IN].dtype == torch.float16
    prune(source.weights, tmp_path / "ema.safetensors", use_ema=True, precision="keep")
    assert load_file(tmp_path / "ema.safetensors")["model.diffusion_model.out.2.bias"].tolist() == [9.0] * 4
    plain = model(tmp_path / "plain.safetensors", 1)
    with pytest.raises(InvalidParams, match="no averaged weights"):
        prune(plain.weights, tmp_path / "none.safetensors", use_ema=True)


def test_a_pickle_becomes_the_same_tensors(tmp_path: Path) -> None:
    tensors = {CONV_IN: torch.randn(8, 4, 3, 3), OTHER: torch.ones(4, 4, dtype=torch.bfloat16)}
    torch.save({"state_dict": tensors}, tmp_path / "old.ckpt")
    opened = open_weights(tmp_path / "old.ckpt", allow_pickle=True, cache_dir=tmp_path / "cache")
    convert(opened, tmp_path / "new.safetensors")
    found = load_file(tmp_path / "new.safetensors")
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


MEASURED = """
import sys
from pathlib import Path
import torch
from webui.engine.memory.usage import PeakMeter, resident_set
from webui.engine.tools.merging import Recipe, Source, merge
from webui.engine.files.weights import Weights
folder = Path(sys.argv[1])
for name in ("small", "large"):
    a, b = (Source(Weights(folder / f"{name}-{half}.safetensors"), half) for half in "ab")
    before, meter = resident_set(), PeakMeter(torch.device("cpu"))
    merge(folder / f"{name}.safetensors", Recipe("slerp", 0.5), a, b)
print((meter.peak - before) / a.weights.path.stat().st_size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is Linux's own")
def test_a_merge_needs_far_less_memory_than_its_files_and_than_their_largest_tensors(tmp_path: Path) -> None:
    for half in "ab":
        tensors = {f"model.block.{i}.weight": torch.full((4096, 2048), float(i)).half() for i in range(4)}
        save_file(tensors, tmp_path / f"large-{half}.safetensors")  # 67 MB, 17 MB a tensor
        small = {"model.block.0.weight": torch.ones(512, 1024).half()}
        save_file(small, tmp_path / f"small-{half}.safetensors")  # merged first, for what its code takes by itself
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)], cwd=REPO_ROOT, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 0.5  # of one of the three files; what the allocator keeps is part of it


def test_the_command_merges_checkpoints_that_then_make_pictures(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data_dir / "models" / "Stable-diffusion"
    words = [
        "models",
        "merge",
        EMBEDDED_CHECKPOINT.stem,
        EMBEDDED_CHECKPOINT.stem,
        "--method",
        "slerp",
        "--data-dir",
        str(data_dir),
    ]
    assert main([*words, "--output", "mixes/half"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "mixes" / "half.safetensors")
    assert (folder / "mixes" / "half.yaml").is_file()
    engine = make_engine(data_dir)
    small = {"width": 64, "height": 64, "steps": 1}
    assert (
        run(engine, checkpoint="half", **small).digests
        == run(engine, checkpoint=EMBEDDED_CHECKPOINT.stem, **small).digests
    )
    engine.close()
    for output, told in (("mixes/half", "is there already"), ("../out", "no name for a new file")):
        assert main([*words, "--output", output]) == 1
        assert told in capsys.readouterr().err
