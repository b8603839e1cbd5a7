"""At the door a request gets everything that was left open, or an error that says what to do."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from embedded import EMBEDDED_CHECKPOINT
from model_files import VAE, folders, kohya_lora, ldm_vae, sd1, sdxl, write_model
from PIL import Image

from webui.catalog import Catalog
from webui.errors import InvalidParams, ModelNotFound, NotFound, UnsupportedModel
from webui.inputs import InputStore
from webui.params import GenerationParams, make_params
from webui.paths import Paths
from webui.settings import Settings, changed


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = folders(tmp_path)
    write_model(paths.checkpoints[0] / "sub" / "small.safetensors", sd1(), {"native_resolution": "128"})
    write_model(paths.checkpoints[0] / "usual.safetensors", sd1())
    write_model(paths.checkpoints[0] / "xl.safetensors", sdxl(channels=8))
    write_model(paths.checkpoints[0] / "lora.safetensors", kohya_lora())
    write_model(paths.vaes[0] / "a" / "sharp.safetensors", ldm_vae())
    write_model(paths.vaes[0] / "flux.safetensors", ldm_vae(16))
    return paths


def resolve(paths: Paths, settings: dict[str, Any] | None = None, **fields: Any) -> GenerationParams:
    return Catalog(paths).resolve(make_params(fields), changed(Settings(), settings or {}))


def test_an_empty_request_becomes_complete(paths: Paths):
    params = resolve(paths)
    assert (params.checkpoint, params.width, params.height, params.vae) == (
        "sub/small.safetensors",
        128,
        128,
        "Automatic",
    )
    assert params.seed >= 0
    assert params.variation_seed >= 0
    assert Catalog(paths).resolve(params, Settings()) == params


def test_the_embedded_model_is_resolved_at_its_own_size(data_dir: Path):
    params = Catalog(Paths.under(data_dir)).resolve(make_params({"seed": 7}), Settings())
    assert (params.checkpoint, params.width, params.height, params.seed) == (EMBEDDED_CHECKPOINT.name, 128, 128, 7)


def test_any_alias_becomes_the_name(paths: Paths):
    assert resolve(paths, checkpoint="usual").checkpoint == "usual.safetensors"
    assert resolve(paths, checkpoint="sub_small").checkpoint == "sub/small.safetensors"


def test_a_size_that_was_given_stays(paths: Paths):
    params = resolve(paths, checkpoint="usual", width=640)
    assert (params.width, params.height) == (640, 512)


def test_a_file_cannot_make_the_usual_size_absurd(tmp_path: Path):
    paths = folders(tmp_path)
    write_model(paths.checkpoints[0] / "a.safetensors", sd1(), {"native_resolution": "16384"})
    write_model(paths.checkpoints[0] / "b.safetensors", sd1())
    (paths.checkpoints[0] / "b.yaml").write_text("model: {params: {image_size: 2048}}")
    for name in ("a", "b"):
        params = resolve(paths, checkpoint=name)
        assert (params.width, params.height) == (4096, 4096)


def test_settings_choose_where_the_request_is_silent(paths: Paths):
    settings = {"model.checkpoint": "usual", "model.vae": "sharp.safetensors"}
    assert resolve(paths, settings).checkpoint == "usual.safetensors"
    assert resolve(paths, settings).vae == "sharp.safetensors"
    assert resolve(paths, settings, vae="None").vae == "None"
    assert resolve(paths, settings, checkpoint="small").checkpoint == "sub/small.safetensors"


def test_a_checkpoint_of_the_settings_that_is_gone_gives_way_to_the_first_that_runs(paths: Paths):
    assert resolve(paths, {"model.checkpoint": "gone"}).checkpoint == "sub/small.safetensors"
    assert resolve(paths, {"model.checkpoint": "xl"}).checkpoint == "sub/small.safetensors"


def test_a_vae_of_the_settings_that_is_gone_is_left_to_be_told_when_it_is_loaded(paths: Paths):
    params = resolve(paths, {"model.vae": "gone.safetensors"})
    catalog = Catalog(paths)
    choice = catalog.resolve_vae(catalog.find_checkpoint("usual"), params.vae)
    assert choice.file is None
    assert "gone.safetensors" in choice.note


@pytest.mark.parametrize("vae", ["sharp.safetensors", "a/sharp.safetensors", "sharp", "SHARP.safetensors"])
def test_a_vae_is_named_by_its_file_name(paths: Paths, vae: str):
    assert resolve(paths, vae=vae).vae == "sharp.safetensors"


def test_the_vae_that_another_hides_is_named_by_its_path(paths: Paths):
    write_model(paths.vaes[0] / "b" / "sharp.safetensors", ldm_vae())
    assert resolve(paths, vae="sharp.safetensors").vae == "sharp.safetensors"
    assert resolve(paths, vae="a/sharp.safetensors").vae == "a/sharp.safetensors"


def test_unknown_names_are_errors_with_near_matches(paths: Paths):
    with pytest.raises(ModelNotFound, match='Did you mean "usual'):
        resolve(paths, checkpoint="ussual")
    with pytest.raises(ModelNotFound, match=r'Did you mean "sharp\.safetensors"'):
        resolve(paths, vae="sharb.safetensors")


@pytest.mark.parametrize(("name", "words"), [("xl", "SDXL"), ("lora", "not a checkpoint")])
def test_a_checkpoint_that_cannot_run_is_refused_with_its_reason(paths: Paths, name: str, words: str):
    with pytest.raises(UnsupportedModel, match=words):
        resolve(paths, checkpoint=name)


def test_a_vae_that_cannot_be_used_is_refused_with_its_reason(paths: Paths):
    with pytest.raises(UnsupportedModel, match="16 latent channels"):
        resolve(paths, vae="flux.safetensors")


def test_with_nothing_that_runs_the_error_says_so(tmp_path: Path):
    paths = folders(tmp_path)
    with pytest.raises(ModelNotFound, match=r"no checkpoint.*models/Stable-diffusion"):
        resolve(paths)
    write_model(paths.checkpoints[0] / "xl.safetensors", sdxl(channels=8))
    with pytest.raises(ModelNotFound, match="None of the checkpoints can be run"):
        resolve(paths)


def test_a_checkpoint_without_vae_is_refused_before_it_is_queued(tmp_path: Path):
    paths = folders(tmp_path)
    write_model(paths.checkpoints[0] / "p.safetensors", {n: s for n, s in sd1().items() if not n.startswith(VAE)})
    write_model(paths.vaes[0] / "v.safetensors", ldm_vae())
    with pytest.raises(UnsupportedModel, match="no VAE of its own"):
        resolve(paths)
    assert resolve(paths, vae="v.safetensors").checkpoint == "p.safetensors"


def test_pickles_are_refused_until_they_are_allowed(tmp_path: Path):
    paths = folders(tmp_path)
    (paths.checkpoints[0] / "old.ckpt").write_bytes(b"PK")
    with pytest.raises(UnsupportedModel, match="allow_pickle"):
        resolve(paths, checkpoint="old")
    assert resolve(paths, {"model.allow_pickle": True}, checkpoint="old").checkpoint == "old.ckpt"


def test_F25_a_checkpoint_deleted_before_the_job_is_an_error_at_the_door(paths: Paths):
    catalog = Catalog(paths)
    assert catalog.checkpoints
    (paths.checkpoints[0] / "usual.safetensors").unlink()
    with pytest.raises(ModelNotFound, match="not there any more"):
        catalog.resolve(make_params({"checkpoint": "usual"}), Settings())


def test_a_picture_to_start_from_gives_the_size_that_was_left_open(paths: Paths) -> None:
    buffer = BytesIO()
    Image.new("RGB", (203, 100)).save(buffer, "PNG")
    reference = InputStore(paths.outputs).add(buffer.getvalue()).reference
    plain = resolve(paths, init={"image": reference})
    assert (plain.width, plain.height) == (200, 96)
    framed = resolve(paths, init={"image": reference, "frame": {"left": 20, "bottom": 60}}, inpaint={})
    assert (framed.width, framed.height) == (216, 160)
    chosen = resolve(paths, init={"image": reference}, width=64, height=72)
    assert (chosen.width, chosen.height) == (64, 72)


def test_an_enlargement_beyond_the_bound_is_refused_at_the_door(paths: Paths) -> None:
    def kept(width: int, height: int) -> str:
        buffer = BytesIO()
        Image.new("L", (width, height)).save(buffer, "PNG")
        return InputStore(paths.outputs).add(buffer.getvalue()).reference

    around = dict.fromkeys(("left", "top", "right", "bottom"), 4096)
    large, small, thin = kept(1800, 1800), kept(100, 100), kept(10, 1000)
    refused: tuple[dict[str, Any], ...] = (
        {"extras": {"image": large, "scale": 8.0}},
        {"extras": {"image": thin, "width": 16_384, "height": 100}},  # it is enlarged to 16,384 x 1,638,400 and cut
        {"extras": {"image": small, "width": 16_384, "height": 16_384}},
        {"init": {"image": large}, "sd_upscale": {"scale": 8.0}},
        {"extras": {"scale": 8.0}, "sources": ({"image": large},)},
        {"init": {"image": kept(10, 16_300), "frame": around}, "inpaint": {}, "width": 64, "height": 64},
    )
    for request in refused:
        with pytest.raises(InvalidParams, match="more than the 200 megapixels"):
            resolve(paths, **request)
    assert resolve(paths, extras={"image": large, "scale": 7.8}).extras
    assert resolve(paths, extras={"image": thin, "width": 16_384, "height": 100, "crop": False}).extras
    folder = ({"image": large}, {"image": small})
    assert resolve(paths, extras={"scale": 8.0}, sources=folder).sources, "the small one can be enlarged"


def test_a_request_without_its_picture_is_refused_at_the_door(paths: Paths) -> None:
    with pytest.raises(InvalidParams, match="no picture to start from"):
        resolve(paths, init={"denoising_strength": 0.5})
    with pytest.raises(NotFound):
        resolve(paths, init={"image": "a" * 64})
