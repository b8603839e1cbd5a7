"""Every name by which users call a checkpoint finds it."""

from __future__ import annotations

from pathlib import Path

import pytest
from embedded import EMBEDDED_CHECKPOINT
from model_files import folders, kohya_lora, sd1, write_model

from webui.catalog import Catalog, ModelFile
from webui.catalog.aliases import natural_key
from webui.errors import ModelNotFound
from webui.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = folders(tmp_path)
    for name in ("Anime/pastel-v2.1", "photo", "photo-inpainting", "photo-long-name"):
        write_model(paths.checkpoints[0] / f"{name}.safetensors", sd1(), {"name": name})
    return paths


@pytest.fixture
def catalog(paths: Paths) -> Catalog:
    return Catalog(paths)


def pastel(catalog: Catalog) -> ModelFile:
    return next(m for m in catalog.checkpoints if m.stem == "pastel-v2.1")


def test_every_alias_finds_the_model(catalog: Catalog):
    digest = catalog.sha256(pastel(catalog))
    model = pastel(catalog)
    assert model.old_hash is not None
    for alias in (
        f"Anime/pastel-v2.1.safetensors [{digest[:10]}]",
        "Anime/pastel-v2.1.safetensors",
        "Anime/pastel-v2.1",
        "Anime_pastel-v2.1",
        "pastel-v2.1",
        "pastel-v2.1.safetensors",
        f"pastel-v2.1 [{digest[:10]}]",
        digest,
        digest[:10],
        digest[:12],
        digest.upper(),
        "PASTEL-V2.1",
        "  pastel-v2.1 ",
        "stel-v",
        "pastel [0123456789]",
        "pastel-v2.1.safetensors [0123456789]",
    ):
        assert catalog.find_checkpoint(alias) == model, alias


def test_the_title_carries_the_hash_as_soon_as_it_is_known(catalog: Catalog):
    assert pastel(catalog).title == "Anime/pastel-v2.1.safetensors"
    digest = catalog.sha256(pastel(catalog))
    assert pastel(catalog).title == f"Anime/pastel-v2.1.safetensors [{digest[:10]}]"
    assert pastel(catalog).model_name == "Anime_pastel-v2.1"


def test_the_old_hash_finds_the_model(tmp_path: Path):
    paths = folders(tmp_path)
    path = write_model(paths.checkpoints[0] / "a.safetensors", {**sd1(), "filler": (2**20,)})
    with path.open("r+b") as file:
        file.seek(0x100000)
        file.write(b"distinct")
    model = Catalog(paths).checkpoints[0]
    assert model.old_hash is not None
    assert len(model.old_hash) == 8
    assert Catalog(paths).find_checkpoint(model.old_hash).name == "a.safetensors"


def with_old_hash(paths: Paths, name: str, content: bytes) -> str:
    """A checkpoint whose old hash, over what stands behind the first MiB, `content` decides. Returns that hash."""
    path = write_model(paths.checkpoints[0] / f"{name}.safetensors", {**sd1(), "filler": (2**20,)}, {"name": name})
    with path.open("r+b") as file:
        file.seek(0x100000)
        file.write(content)
    old_hash = next(m.old_hash for m in Catalog(paths).checkpoints if m.path == path)
    assert old_hash is not None
    return old_hash


def test_the_old_hash_beside_a_name_finds_a_renamed_model(tmp_path: Path):
    paths = folders(tmp_path)
    with_old_hash(paths, "sd-v1-4-anime-merge", b"merge")
    digest = with_old_hash(paths, "new-name", b"original")
    catalog = Catalog(paths)
    for alias in (f"sd-v1-4 [{digest}]", f"sd-v1-4.ckpt [{digest.upper()}]", f"sub/sd-v1-4.ckpt [{digest}] "):
        assert catalog.find_checkpoint(alias).stem == "new-name", alias
    assert catalog.find_checkpoint("sd-v1-4 [00000000]").stem == "sd-v1-4-anime-merge"


def test_of_files_with_one_old_hash_the_named_one_is_meant(tmp_path: Path):
    """It covers a small part of the file, which a merge or a copy can share."""
    paths = folders(tmp_path)
    digest = with_old_hash(paths, "a/copy", b"same")
    assert with_old_hash(paths, "sub/model", b"same") == digest
    catalog = Catalog(paths)
    for alias in (f"model [{digest}]", f"sub/model.safetensors [{digest}]", f"MODEL [{digest.upper()}]"):
        assert catalog.find_checkpoint(alias).stem == "model", alias
    assert catalog.find_checkpoint(f"gone [{digest}]").stem == "copy"


def test_a_full_name_is_meant_before_a_part_of_another(catalog: Catalog):
    assert catalog.find_checkpoint("photo").stem == "photo"
    assert catalog.find_checkpoint("photo-").stem == "photo-long-name"
    assert catalog.find_checkpoint("hoto").stem == "photo"  # the shortest title that contains it


def test_of_files_with_one_stem_the_one_that_runs_is_meant(paths: Paths):
    write_model(paths.checkpoints[0] / "a" / "twin.safetensors", kohya_lora())
    (paths.checkpoints[0] / "b" / "twin.ckpt").parent.mkdir()
    (paths.checkpoints[0] / "b" / "twin.ckpt").write_bytes(b"x")
    write_model(paths.checkpoints[0] / "z" / "twin.safetensors", sd1())
    assert Catalog(paths).find_checkpoint("twin").name == "z/twin.safetensors"
    assert Catalog(paths).find_checkpoint("b/twin.ckpt").name == "b/twin.ckpt"


@pytest.mark.parametrize(
    "alias", ["fotto", "photos-inpaint", "", "  ", "../../etc/passwd", "deadbeef00", "a" * 1000, "[x]"]
)
def test_a_name_that_nothing_has_is_an_error_that_shows_no_path(catalog: Catalog, alias: str, tmp_path: Path):
    with pytest.raises(ModelNotFound) as caught:
        catalog.find_checkpoint(alias)
    assert str(tmp_path) not in str(caught.value)


def test_near_matches_are_offered(catalog: Catalog):
    with pytest.raises(ModelNotFound, match='Did you mean "photo'):
        catalog.find_checkpoint("fhoto")


def test_a_hash_that_is_not_known_yet_is_told_so(catalog: Catalog):
    with pytest.raises(ModelNotFound, match="Not all hashes are known yet"):
        catalog.find_checkpoint("deadbeef00")
    for model in catalog.checkpoints:
        catalog.sha256(model)
    with pytest.raises(ModelNotFound, match=r"Refresh|Did you mean"):
        catalog.find_checkpoint("deadbeef00")


def test_with_no_checkpoint_at_all_the_error_says_where_to_put_one(tmp_path: Path):
    with pytest.raises(ModelNotFound, match="models/Stable-diffusion"):
        Catalog(Paths.under(tmp_path)).find_checkpoint("anything")


def test_the_default_is_the_preferred_one_else_the_first_that_runs(paths: Paths):
    write_model(paths.checkpoints[0] / "0-first.safetensors", kohya_lora())
    catalog = Catalog(paths)
    for preferred, stem in (
        ("photo", "photo"),
        ("", "pastel-v2.1"),
        ("gone", "pastel-v2.1"),
        ("0-first", "pastel-v2.1"),
    ):
        default = catalog.default_checkpoint(preferred)
        assert default is not None
        assert default.stem == stem
    assert Catalog(Paths.under(paths.data_dir / "empty")).default_checkpoint("x") is None


def test_a_checkpoint_of_ones_own_is_the_default_and_not_the_one_that_ships(tmp_path: Path):
    paths = folders(tmp_path)
    catalog = Catalog(paths)
    for name in (EMBEDDED_CHECKPOINT.stem, "photo"):
        write_model(paths.checkpoints[0] / f"{name}.safetensors", sd1(), {"name": name})
        catalog.refresh()
        default = catalog.default_checkpoint()
        assert default is not None
        assert default.stem == name


def test_numbers_in_names_are_sorted_as_numbers():
    assert sorted(["m10", "m9", "M1", "m", "10", "9"], key=natural_key) == ["9", "10", "m", "M1", "m9", "m10"]
