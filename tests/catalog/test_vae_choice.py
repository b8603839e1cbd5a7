"""The VAE is chosen as users of AUTOMATIC1111 know it, but for the whole stem instead of a prefix."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_files import VAE, folders, ldm_vae, sd1, write_diffusers, write_json, write_model

from webui.catalog import Catalog, VaeChoice
from webui.errors import ModelNotFound, UnsupportedModel
from webui.paths import Paths

NEAR, SETTING, NOTES, BAKED = "found near the checkpoint", "specified in settings", "from user metadata", ""
NAMED = "named after the checkpoint"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Checkpoints `model` and `model2`, a VAE beside `model2`, and two VAEs in models/VAE."""
    paths = folders(tmp_path)
    write_model(paths.checkpoints[0] / "model.safetensors", sd1())
    write_model(paths.checkpoints[0] / "model2.safetensors", sd1())
    write_model(paths.checkpoints[0] / "model2.vae.safetensors", ldm_vae())
    write_model(paths.vaes[0] / "sharp.safetensors", ldm_vae())
    write_model(paths.vaes[0] / "soft.safetensors", ldm_vae())
    return paths


def choose(paths: Paths, checkpoint: str, selection: str = "Automatic", overrides: bool = True) -> VaeChoice:
    catalog = Catalog(paths)
    return catalog.resolve_vae(catalog.find_checkpoint(checkpoint), selection, overrides)


def told(choice: VaeChoice) -> tuple[str | None, str]:
    return (choice.file.name if choice.file else None), choice.source


def test_vaes_beside_checkpoints_are_vaes_and_no_checkpoints(paths: Paths):
    catalog = Catalog(paths)
    assert [m.name for m in catalog.checkpoints] == ["model.safetensors", "model2.safetensors"]
    assert [m.name for m in catalog.vaes] == ["model2.vae.safetensors", "sharp.safetensors", "soft.safetensors"]
    assert all(m.kind == "vae" and m.runnable for m in catalog.vaes)


def test_automatic_takes_the_file_beside_the_checkpoint_with_its_whole_stem(paths: Paths):
    assert told(choose(paths, "model2")) == ("model2.vae.safetensors", NEAR)
    assert told(choose(paths, "model")) == (None, BAKED)  # model2.vae... only begins with its stem


@pytest.mark.parametrize("name", ["model.vae.safetensors", "sub/model.vae.safetensors", "model.safetensors"])
def test_automatic_takes_a_vae_of_the_vae_folders_that_is_named_after_the_checkpoint(paths: Paths, name: str):
    write_model(paths.vaes[0] / name, ldm_vae())
    assert told(choose(paths, "model")) == (name, NAMED)
    assert told(choose(paths, "model", "None")) == (None, BAKED)
    assert told(choose(paths, "model", "soft.safetensors")) == ("soft.safetensors", SETTING)
    assert told(choose(paths, "model", "soft.safetensors", False)) == (name, NAMED)


def test_a_vae_beside_another_checkpoint_is_found_by_the_stem_too(paths: Paths):
    write_model(paths.checkpoints[0] / "sub" / "model.vae.safetensors", ldm_vae())
    assert told(choose(paths, "model")) == ("sub/model.vae.safetensors", NAMED)


def test_beside_the_checkpoint_comes_before_elsewhere_and_the_notes_before_both(paths: Paths):
    write_model(paths.vaes[0] / "model2.vae.safetensors", ldm_vae())
    write_model(paths.vaes[0] / "model2.safetensors", ldm_vae())
    choice = choose(paths, "model2")
    assert told(choice) == ("model2.vae.safetensors", NEAR)
    assert choice.file is not None
    assert choice.file.path.parent == paths.checkpoints[0]
    (paths.checkpoints[0] / "model2.vae.safetensors").unlink()
    assert told(choose(paths, "model2")) == ("model2.vae.safetensors", NAMED)
    (paths.vaes[0] / "model2.vae.safetensors").unlink()
    assert told(choose(paths, "model2")) == ("model2.safetensors", NAMED)
    write_json(paths.checkpoints[0] / "model2.json", {"vae": "soft.safetensors"})
    assert told(choose(paths, "model2")) == ("soft.safetensors", NOTES)


def test_elsewhere_the_whole_stem_counts_as_well(paths: Paths):
    for name in ("model3.vae.safetensors", "model-mse.safetensors", "model3.safetensors"):
        write_model(paths.vaes[0] / name, ldm_vae())
    assert told(choose(paths, "model")) == (None, BAKED)


def test_a_checkpoint_is_not_its_own_vae_where_one_folder_holds_both(tmp_path: Path, paths: Paths):
    catalog = Catalog(Paths.under(tmp_path, vaes=paths.checkpoints))
    choice = catalog.resolve_vae(catalog.find_checkpoint("model"), "Automatic", allow_pickle=True)
    assert (told(choice), choice.note) == ((None, BAKED), "")


@pytest.mark.parametrize("spelling", ["Automatic", "automatic", "auto", "", " AUTO "])
def test_every_spelling_of_automatic_is_automatic(paths: Paths, spelling: str):
    assert told(choose(paths, "model2", spelling)) == ("model2.vae.safetensors", NEAR)


@pytest.mark.parametrize("spelling", ["None", "none", " NONE"])
def test_none_is_the_baked_one_whatever_lies_beside(paths: Paths, spelling: str):
    assert told(choose(paths, "model2", spelling)) == (None, BAKED)


def test_a_file_name_is_that_file(paths: Paths):
    assert told(choose(paths, "model2", "sharp.safetensors")) == ("sharp.safetensors", SETTING)
    assert told(choose(paths, "model", "model2.vae.safetensors")) == ("model2.vae.safetensors", SETTING)


def test_the_notes_of_a_checkpoint_name_its_preferred_vae(paths: Paths):
    write_json(paths.checkpoints[0] / "model2.json", {"vae": "soft.safetensors"})
    assert told(choose(paths, "model2")) == ("soft.safetensors", NOTES)
    assert told(choose(paths, "model2", "sharp.safetensors")) == ("sharp.safetensors", SETTING)
    assert told(choose(paths, "model2", "None")) == (None, BAKED)


def test_when_the_selection_does_not_override_preferences_come_first(paths: Paths):
    assert told(choose(paths, "model2", "sharp.safetensors", False)) == ("model2.vae.safetensors", NEAR)
    assert told(choose(paths, "model2", "None", False)) == ("model2.vae.safetensors", NEAR)
    assert told(choose(paths, "model", "sharp.safetensors", False)) == ("sharp.safetensors", SETTING)
    write_json(paths.checkpoints[0] / "model2.json", {"vae": "soft.safetensors"})
    assert told(choose(paths, "model2", "sharp.safetensors", False)) == ("soft.safetensors", NOTES)


def test_none_in_the_notes_is_the_baked_one_and_automatic_goes_on(paths: Paths):
    write_json(paths.checkpoints[0] / "model2.json", {"vae": "None"})
    assert told(choose(paths, "model2")) == (None, BAKED)
    write_json(paths.checkpoints[0] / "model2.json", {"vae": "Automatic"})
    assert told(choose(paths, "model2")) == ("model2.vae.safetensors", NEAR)


def test_a_preferred_vae_that_is_missing_gives_way_with_a_note(paths: Paths):
    write_json(paths.checkpoints[0] / "model2.json", {"vae": "gone.safetensors"})
    choice = choose(paths, "model2")
    assert told(choice) == ("model2.vae.safetensors", NEAR)
    assert "gone.safetensors" in choice.note


def test_a_selected_vae_that_is_missing_gives_way_to_the_baked_one_with_a_note(paths: Paths):
    choice = choose(paths, "model", "sharpp.safetensors")
    assert told(choice) == (None, BAKED)
    assert "sharpp.safetensors" in choice.note


@pytest.mark.parametrize("source", [NEAR, NAMED])
def test_a_pickle_of_the_checkpoints_name_is_used_only_when_pickles_are_allowed(paths: Paths, source: str):
    folder = (paths.checkpoints if source == NEAR else paths.vaes)[0]
    (folder / "model.vae.pt").write_bytes(b"PK")
    choice = choose(paths, "model")
    assert told(choice) == (None, BAKED)
    assert "pickle" in choice.note
    catalog = Catalog(paths)
    allowed = catalog.resolve_vae(catalog.find_checkpoint("model"), "Automatic", allow_pickle=True)
    assert told(allowed) == ("model.vae.pt", source)
    write_model(folder / "model.vae.safetensors", ldm_vae())
    assert told(choose(paths, "model")) == ("model.vae.safetensors", source)


def test_a_selected_file_that_is_no_usable_vae_is_an_error_with_the_reason(paths: Paths):
    write_model(paths.vaes[0] / "flux.safetensors", ldm_vae(16))
    write_model(paths.vaes[0] / "checkpoint.safetensors", sd1())
    for name, words in (("flux.safetensors", "16 latent channels"), ("checkpoint.safetensors", "not a VAE")):
        with pytest.raises(UnsupportedModel, match=words):
            choose(paths, "model", name)


def test_a_checkpoint_without_a_vae_needs_a_file(paths: Paths):
    pruned = {n: s for n, s in sd1().items() if not n.startswith(VAE)}
    write_model(paths.checkpoints[0] / "pruned.safetensors", pruned)
    with pytest.raises(UnsupportedModel, match="no VAE of its own"):
        choose(paths, "pruned")
    assert told(choose(paths, "pruned", "sharp.safetensors")) == ("sharp.safetensors", SETTING)


def test_a_vae_is_found_by_name_path_stem_and_hash(paths: Paths):
    write_model(paths.vaes[0] / "sub" / "deep.safetensors", ldm_vae(), {"which": "deep"})
    catalog = Catalog(paths)
    digest = catalog.sha256(catalog.find_vae("deep.safetensors"))
    for name in ("deep.safetensors", "sub/deep.safetensors", "deep", "DEEP.safetensors", digest, digest[:10]):
        assert catalog.find_vae(name).metadata == {"which": "deep"}
    with pytest.raises(ModelNotFound, match=r'Did you mean "deep\.safetensors"'):
        catalog.find_vae("depe.safetensors")


def test_of_vaes_with_one_name_the_users_folder_wins_then_the_later_one_and_paths_name_each(
    tmp_path: Path, paths: Paths
):
    given = tmp_path / "given"
    write_model(paths.checkpoints[0] / "x" / "same.vae.safetensors", ldm_vae(), {"where": "beside"})
    write_model(paths.vaes[0] / "a" / "same.vae.safetensors", ldm_vae(), {"where": "a"})
    write_model(paths.vaes[0] / "b" / "same.vae.safetensors", ldm_vae(), {"where": "b"})
    catalog = Catalog(paths)
    assert catalog.find_vae("same.vae.safetensors").metadata == {"where": "b"}
    assert catalog.find_vae("a/same.vae.safetensors").metadata == {"where": "a"}
    assert catalog.find_vae("x/same.vae.safetensors").metadata == {"where": "beside"}
    write_model(given / "same.vae.safetensors", ldm_vae(), {"where": "given"})
    catalog = Catalog(Paths.under(tmp_path, vaes=(given,)))
    assert catalog.find_vae("same.vae.safetensors").metadata == {"where": "given"}


def test_a_vae_replaced_on_the_disk_is_the_new_one_at_the_next_choice(paths: Paths):
    catalog = Catalog(paths)
    checkpoint = catalog.find_checkpoint("model2")
    before = catalog.sha256(catalog.resolve_vae(checkpoint, "Automatic").file or checkpoint)
    write_model(paths.checkpoints[0] / "model2.vae.safetensors", ldm_vae(), {"new": "yes"})
    file = catalog.resolve_vae(checkpoint, "Automatic").file
    assert file is not None
    assert file.metadata == {"new": "yes"}
    assert catalog.sha256(file) != before


def test_a_folder_checkpoint_finds_the_vae_beside_the_folder(paths: Paths):
    write_diffusers(paths.checkpoints[0] / "folder")
    write_model(paths.checkpoints[0] / "folder.vae.safetensors", ldm_vae())
    assert told(choose(paths, "folder")) == ("folder.vae.safetensors", NEAR)


def test_a_vae_that_came_or_went_since_the_scan_counts_at_the_next_choice(paths: Paths):
    write_model(paths.checkpoints[0] / "sub" / "third.safetensors", sd1())
    catalog = Catalog(paths)
    checkpoint = catalog.find_checkpoint("model")
    assert told(catalog.resolve_vae(checkpoint, "Automatic")) == (None, BAKED)
    beside = write_model(paths.checkpoints[0] / "model.vae.safetensors", ldm_vae())
    assert told(catalog.resolve_vae(checkpoint, "Automatic")) == ("model.vae.safetensors", NEAR)
    beside.unlink()
    assert told(catalog.resolve_vae(checkpoint, "Automatic")) == (None, BAKED)
    beside_another = write_model(paths.checkpoints[0] / "sub" / "model.vae.safetensors", ldm_vae())
    assert told(catalog.resolve_vae(checkpoint, "Automatic")) == ("sub/model.vae.safetensors", NAMED)
    beside_another.unlink()
    assert told(catalog.resolve_vae(checkpoint, "Automatic")) == (None, BAKED)
    write_model(paths.vaes[0] / "new.safetensors", ldm_vae())
    assert told(catalog.resolve_vae(checkpoint, "new.safetensors")) == ("new.safetensors", SETTING)


def test_F25_a_selected_vae_that_was_deleted_gives_way_to_the_baked_one_with_a_note(paths: Paths):
    catalog = Catalog(paths)
    checkpoint = catalog.find_checkpoint("model")
    (paths.vaes[0] / "sharp.safetensors").unlink()
    choice = catalog.resolve_vae(checkpoint, "sharp.safetensors")
    assert told(choice) == (None, BAKED)
    assert "sharp.safetensors" in choice.note


@pytest.mark.parametrize("name", ["model.safetensors", "sub/model.vae.safetensors"])
def test_a_vae_put_into_a_vae_folder_later_counts_at_the_next_choice_and_its_removal_too(paths: Paths, name: str):
    catalog = Catalog(paths)
    checkpoint = catalog.find_checkpoint("model")
    assert told(catalog.resolve_vae(checkpoint, "Automatic")) == (None, BAKED)
    file = write_model(paths.vaes[0] / name, ldm_vae())
    assert told(catalog.resolve_vae(checkpoint, "Automatic")) == (name, NAMED)
    assert told(catalog.resolve_vae(checkpoint, "soft.safetensors", False)) == (name, NAMED)
    file.unlink()
    assert told(catalog.resolve_vae(checkpoint, "Automatic")) == (None, BAKED)


@pytest.mark.parametrize("name", ["mine.safetensors", "mine"])
def test_a_preferred_vae_that_came_later_is_taken_and_one_that_was_deleted_gives_way(paths: Paths, name: str):
    write_json(paths.checkpoints[0] / "model2.json", {"vae": name})
    catalog = Catalog(paths)
    checkpoint = catalog.find_checkpoint("model2")
    assert told(catalog.resolve_vae(checkpoint, "Automatic")) == ("model2.vae.safetensors", NEAR)
    file = write_model(paths.vaes[0] / "mine.safetensors", ldm_vae())
    assert told(catalog.resolve_vae(checkpoint, "Automatic")) == ("mine.safetensors", NOTES)
    file.unlink()
    choice = catalog.resolve_vae(checkpoint, "Automatic")
    assert told(choice) == ("model2.vae.safetensors", NEAR)
    assert f'There is no VAE "{name}"' in choice.note


def test_F25_an_automatic_vae_deleted_in_the_moment_of_the_choice_gives_way(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
):
    file = write_model(paths.vaes[0] / "model.safetensors", ldm_vae())
    catalog = Catalog(paths)
    checkpoint = catalog.find_checkpoint("model")
    monkeypatch.setattr(catalog, "_look_for_vaes", lambda _: file.unlink())
    assert told(catalog.resolve_vae(checkpoint, "Automatic")) == (None, BAKED)


def test_a_vae_whose_download_ended_is_taken_and_nothing_is_searched_again_without_news(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
):
    file = write_model(paths.vaes[0] / "model.safetensors", ldm_vae())
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    catalog = Catalog(paths)
    checkpoint = catalog.find_checkpoint("model")
    searched: list[int] = []
    refresh = catalog.refresh
    monkeypatch.setattr(catalog, "refresh", lambda: (searched.append(1), refresh()))
    assert told(catalog.resolve_vae(checkpoint, "Automatic")) == (None, BAKED)
    assert not searched
    file.write_bytes(whole)
    assert told(catalog.resolve_vae(checkpoint, "Automatic")) == ("model.safetensors", NAMED)
    assert len(searched) == 1
