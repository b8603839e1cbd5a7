"""What `Catalog` lists: every file, with a reason where it cannot be used; quick when nothing changed."""

from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path

import pytest
from embedded import EMBEDDED_CHECKPOINT
from model_files import (
    folders,
    header_json,
    kohya_lora,
    ldm_vae,
    replace_file,
    sd1,
    sd2,
    sdxl,
    write_json,
    write_model,
    write_raw,
)

from webui.catalog import Catalog, Family, inspection
from webui.catalog.cache import Cache
from webui.errors import ModelNotFound
from webui.paths import REPO_ROOT, Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return folders(tmp_path)


@pytest.fixture
def checkpoints(paths: Paths) -> Path:
    return paths.checkpoints[0]


@pytest.fixture
def inspected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened from now on, in order."""
    names: list[str] = []
    real = inspection.inspect

    def counting(found: inspection.Found) -> inspection.Facts:
        names.append(found.name)
        return real(found)

    monkeypatch.setattr("webui.catalog.snapshot.inspect", counting)
    return names


def names(models: tuple[object, ...]) -> list[str]:
    return [m.name for m in models]  # type: ignore[attr-defined]


# The lists ---------------------------------------------------------------------------------------------------------


def test_the_embedded_checkpoint_is_listed_and_runs(data_dir: Path):
    [model] = Catalog(Paths.under(data_dir)).checkpoints
    assert (model.name, model.family, model.runnable, model.reason) == (
        EMBEDDED_CHECKPOINT.name,
        Family.SD1,
        True,
        "",
    )
    assert (model.native_size, model.prediction, model.prediction_known) == (128, "v", True)
    assert model.sidecar is not None
    assert model.sidecar.vae is not None
    assert model.sidecar.vae.norm_num_groups == 32
    assert model.problems == ()


def test_each_kind_is_listed_from_its_folder(paths: Paths):
    write_model(paths.checkpoints[0] / "a.safetensors", sd1())
    write_model(paths.vaes[0] / "b.safetensors", ldm_vae())
    write_model(paths.loras[0] / "style" / "c.safetensors", kohya_lora())
    write_model(paths.embeddings[0] / "d.safetensors", {"emb_params": (2, 768)})
    write_model(paths.upscalers[0] / "e.safetensors", {"model.1.sub.0.RDB1.conv1.0.weight": (1,)})
    catalog = Catalog(paths)
    assert [names(kind) for kind in (catalog.checkpoints, catalog.vaes, catalog.loras)] == [
        ["a.safetensors"],
        ["b.safetensors"],
        ["style/c.safetensors"],
    ]
    assert [m.kind for m in (*catalog.embeddings, *catalog.upscalers)] == ["embedding", "upscaler"]
    assert all(m.runnable for m in (*catalog.checkpoints, *catalog.vaes, *catalog.loras, *catalog.embeddings))


def test_names_are_sorted_as_people_count(paths: Paths, checkpoints: Path):
    for name in ("v10", "v9", "B", "a", "v2/x"):
        write_model(checkpoints / f"{name}.safetensors", sd1())
    assert names(Catalog(paths).checkpoints) == [f"{n}.safetensors" for n in ("a", "B", "v2/x", "v9", "v10")]


def test_a_missing_folder_holds_no_models(tmp_path: Path):
    catalog = Catalog(Paths.under(tmp_path / "nothing" / "here"))
    assert catalog.checkpoints == ()
    assert catalog.problems == ()


def test_folders_given_by_the_user_come_first_and_hide_files_of_the_same_name(tmp_path: Path):
    given = tmp_path / "given"
    write_model(given / "same.safetensors", sd1(8))
    usual = folders(tmp_path)
    write_model(usual.checkpoints[0] / "same.safetensors", sd1(16))
    catalog = Catalog(Paths.under(tmp_path, checkpoints=(given,)))
    first, second = catalog.checkpoints
    assert (first.path.parent, first.runnable) == (given, True)
    assert not second.runnable
    assert "folder that comes first" in second.reason
    assert catalog.find_checkpoint("same").path.parent == given


def test_a_folder_given_twice_lists_its_files_once(paths: Paths, checkpoints: Path, tmp_path: Path):
    write_model(checkpoints / "sub" / "a.safetensors", sd1())
    catalog = Catalog(Paths.under(tmp_path, checkpoints=(checkpoints, checkpoints / "sub")))
    assert names(catalog.checkpoints) == ["sub/a.safetensors"]


def test_records_cross_process_borders(paths: Paths, checkpoints: Path):
    write_model(checkpoints / "a.safetensors", sd1())
    write_json(checkpoints / "a.json", {"notes": "x", "vae": "None"})
    models = Catalog(paths).checkpoints
    assert pickle.loads(pickle.dumps(models)) == models
    assert hash(models[0]) == hash(pickle.loads(pickle.dumps(models[0])))


def test_the_catalog_does_not_import_torch():
    code = "import sys, webui.catalog; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO_ROOT, timeout=60).returncode == 0


# Files that cannot be used -----------------------------------------------------------------------------------------


def test_H027_files_of_another_kind_are_listed_with_the_place_where_they_belong(paths: Paths, checkpoints: Path):
    write_model(checkpoints / "lora.safetensors", kohya_lora())
    write_model(checkpoints / "vae.safetensors", ldm_vae())
    write_model(checkpoints / "ip2p.safetensors", sdxl(channels=8))
    write_model(paths.vaes[0] / "checkpoint.safetensors", sd1())
    write_model(paths.loras[0] / "emb.safetensors", {"emb_params": (2, 768)})
    catalog = Catalog(paths)
    reasons = {m.name: m.reason for m in (*catalog.checkpoints, *catalog.vaes, *catalog.loras)}
    assert reasons["lora.safetensors"] == "This is a LoRA for SD1, not a checkpoint. Move it to models/Lora."
    assert reasons["vae.safetensors"] == "This is a VAE, not a checkpoint. Move it to models/VAE."
    assert reasons["ip2p.safetensors"] == "It belongs to the family SDXL ip2p, which this version does not run yet."
    assert reasons["checkpoint.safetensors"].startswith("This is a checkpoint for SD1, not a VAE.")
    assert "models/embeddings" in reasons["emb.safetensors"]
    assert not any(m.runnable for m in (*catalog.checkpoints, *catalog.vaes, *catalog.loras))


def test_H032_what_is_no_file_is_listed_with_that_reason_and_blocks_nothing(paths: Paths, checkpoints: Path):
    os.mkfifo(checkpoints / "pipe.safetensors")
    (checkpoints / "device.safetensors").symlink_to("/dev/zero")
    (checkpoints / "dangling.safetensors").symlink_to("nowhere")
    (checkpoints / "loop.safetensors").symlink_to("loop.safetensors")
    (checkpoints / "folder.safetensors").mkdir()
    write_model(checkpoints / "good.safetensors", sd1())
    listed = {m.name: m for m in Catalog(paths).checkpoints}
    assert set(listed) == {f"{n}.safetensors" for n in ("pipe", "device", "dangling", "loop", "good")}
    assert [n for n, m in listed.items() if m.runnable] == ["good.safetensors"]
    assert "regular file" in listed["pipe.safetensors"].reason
    assert "leads nowhere" in listed["dangling.safetensors"].reason


def test_H032_links_to_files_and_folders_elsewhere_are_followed(paths: Paths, checkpoints: Path, tmp_path: Path):
    shared = tmp_path / "another-ui"
    write_model(shared / "one.safetensors", sd1())
    write_model(shared / "more" / "two.safetensors", sd1())
    (checkpoints / "linked.safetensors").symlink_to(shared / "one.safetensors")
    (checkpoints / "all").symlink_to(shared / "more", target_is_directory=True)
    models = Catalog(paths).checkpoints
    assert names(models) == ["all/two.safetensors", "linked.safetensors"]
    assert all(m.runnable for m in models)


def test_H032_a_loop_of_folders_ends(paths: Paths, checkpoints: Path):
    write_model(checkpoints / "sub" / "a.safetensors", sd1())
    (checkpoints / "sub" / "back").symlink_to(checkpoints, target_is_directory=True)
    (checkpoints / "sub" / "self").symlink_to(".", target_is_directory=True)
    assert names(Catalog(paths).checkpoints) == ["sub/a.safetensors"]


def test_H033_two_thousand_files_ten_folders_deep_are_read_once(paths: Paths, checkpoints: Path, inspected: list[str]):
    deep = checkpoints.joinpath(*(f"level{i}" for i in range(10)))
    text, size = header_json(sd1())
    for i in range(200):
        for folder in (deep.parents[i % 10], deep):
            for suffix in "abcde":
                write_raw(folder / f"m{i}{suffix}.safetensors", text, size)
    models = Catalog(paths).checkpoints
    assert len(models) == len(inspected) == 2000
    assert all(m.runnable for m in models)
    inspected.clear()
    again = Catalog(paths)  # a new start: everything comes from the cache
    assert again.checkpoints == models
    again.refresh()
    assert inspected == []


ODD_NAMES = [
    "emoji 👩\u200d🎨🍎",
    "x" * 243,
    "quo\"te's",
    "<img src=x onerror=alert(1)>",
    "[tag]",
    "lora:x:1.0>",
    "trailing.",
    "CON",
    "Case",
    "case",
    unicodedata.normalize("NFC", "café"),
    unicodedata.normalize("NFD", "café"),
    " leading space",
    "${oc.env:HOME}",
    "%2e%2e%2f",
    "-rf",
    "a\\b",
]


def test_H034_odd_but_legal_names_are_listed_and_found_by_that_name(paths: Paths, checkpoints: Path):
    for i, name in enumerate(ODD_NAMES):
        write_model(checkpoints / f"{name}.safetensors", sd1(), {"number": str(i)})
    catalog = Catalog(paths)
    for i, name in enumerate(ODD_NAMES):
        found = catalog.find_checkpoint(f"{name}.safetensors")
        assert (found.metadata["number"], found.runnable, found.name) == (str(i), True, f"{name}.safetensors")
    assert len(catalog.checkpoints) == len(ODD_NAMES)


@pytest.mark.parametrize("name", ["new\nline", "esc\x1b[31mred", "rtl\u202egnp", "bell\x07", "line\u2028separator"])
def test_H034_names_that_cannot_be_shown_are_listed_escaped_with_the_advice_to_rename(
    paths: Paths, checkpoints: Path, name: str
):
    write_model(checkpoints / f"{name}.safetensors", sd1())
    write_model(checkpoints / "good.safetensors", sd1())
    listed = {m.runnable: m for m in Catalog(paths).checkpoints}
    assert listed[True].name == "good.safetensors"
    assert listed[False].name.isprintable()
    assert "Rename" in listed[False].reason


def test_H034_a_name_that_is_no_utf8_is_listed_escaped(paths: Paths, checkpoints: Path):
    raw = os.path.join(os.fsencode(checkpoints), b"caf\xe9.safetensors")  # noqa: PTH118
    try:
        os.close(os.open(raw, os.O_CREAT | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    [model] = Catalog(paths).checkpoints
    model.name.encode()
    assert "Rename" in model.reason


def test_H050_H053_files_of_other_formats_are_listed_with_that_reason(paths: Paths, checkpoints: Path):
    (checkpoints / "page.safetensors").write_bytes(b"<!DOCTYPE html><html>log in</html>")
    for name in ("q.gguf", "q.onnx", "q.bin", "q.pth", "old.ckpt", "readme.txt", "preview.png", ".hidden.safetensors"):
        (checkpoints / name).write_bytes(b"xxxx")
    reasons = {m.name: m.reason for m in Catalog(paths).checkpoints}
    assert set(reasons) == {"page.safetensors", "q.gguf", "q.onnx", "q.bin", "q.pth", "old.ckpt"}
    assert "web page" in reasons["page.safetensors"]
    assert "GGUF" in reasons["q.gguf"]
    assert "ONNX" in reasons["q.onnx"]
    assert all("pickle" in reasons[n] for n in ("q.bin", "q.pth", "old.ckpt"))


@pytest.mark.parametrize(
    "yaml",
    [
        "a: !!python/object/apply:os.system ['touch pwned']",
        "model: {params: {timesteps: '${oc.env:HOME}'}}",
        "model: {params: {unet_config: {params: {context_dim: 999}}}}",
        "model: [",
        "#" * 70_000,
    ],
)
def test_H054_a_hostile_yaml_makes_its_model_unusable_and_names_itself(paths: Paths, checkpoints: Path, yaml: str):
    write_model(checkpoints / "a.safetensors", sd1())
    write_model(checkpoints / "b.safetensors", sd1())
    (checkpoints / "a.yaml").write_text(yaml)
    a, b = Catalog(paths).checkpoints
    assert (a.runnable, b.runnable) == (False, True)
    assert "configuration" in a.reason
    assert os.environ["HOME"] not in a.reason
    assert not (checkpoints / "pwned").exists()


def test_H054_a_yaml_with_target_lines_is_used_for_its_numbers(paths: Paths, checkpoints: Path):
    write_model(checkpoints / "a.safetensors", sd1())
    (checkpoints / "a.yaml").write_text("model: {target: os.system, params: {parameterization: v, image_size: 16}}")
    [model] = Catalog(paths).checkpoints
    assert (model.runnable, model.prediction, model.native_size) == (True, "v", 128)


def test_a_yaml_that_is_corrected_or_removed_counts_at_the_next_refresh(paths: Paths, checkpoints: Path):
    write_model(checkpoints / "a.safetensors", sd1())
    (checkpoints / "a.yaml").write_text("model: {params: {timesteps: 0}}")
    catalog = Catalog(paths)
    assert not catalog.checkpoints[0].runnable
    (checkpoints / "a.yaml").write_text("model: {params: {timesteps: 500}}")
    catalog.refresh()
    assert catalog.checkpoints[0].sidecar.timesteps == 500  # type: ignore[union-attr]
    (checkpoints / "a.yaml").unlink()
    catalog.refresh()
    assert (catalog.checkpoints[0].runnable, catalog.checkpoints[0].sidecar) == (True, None)


def test_notes_that_cannot_be_read_are_told_and_the_model_still_runs(paths: Paths, checkpoints: Path):
    write_model(checkpoints / "a.safetensors", sd1())
    (checkpoints / "a.json").write_text("{not json")
    [model] = Catalog(paths).checkpoints
    assert (model.runnable, model.notes, len(model.problems)) == (True, None, 1)
    write_json(checkpoints / "a.json", {"vae": "None", "activation text": "icon"})
    [model] = Catalog(paths).checkpoints
    assert model.notes is not None
    assert (model.notes.vae, model.notes.activation_text, model.problems) == ("None", "icon", ())


def test_an_undecided_prediction_type_is_told(paths: Paths, checkpoints: Path):
    write_model(checkpoints / "b.safetensors", sd2())
    [model] = Catalog(paths).checkpoints
    assert (model.prediction, model.prediction_known) == ("v", False)
    assert any("b.yaml" in p for p in model.problems)


def test_long_metadata_stays_in_the_file(paths: Paths):
    write_model(
        paths.loras[0] / "a.safetensors", kohya_lora(), {"ss_tag_frequency": "x" * 5000, "ss_output_name": "<b>"}
    )
    [model] = Catalog(paths).loras
    assert model.metadata == {"ss_output_name": "<b>"}


# Faults of reliability.md ------------------------------------------------------------------------------------------


def test_F24_names_of_255_bytes_and_nfd_names_are_listed_without_a_fault(paths: Paths):
    for name in ("é" * 121 + "x", unicodedata.normalize("NFD", "é" * 60)):
        write_model(paths.loras[0] / f"{name}.safetensors", kohya_lora())
    assert all(m.runnable for m in Catalog(paths).loras)
    assert len(Catalog(paths).loras) == 2


def test_F25_a_checkpoint_deleted_after_the_scan_is_a_named_error_and_leaves_the_list(paths: Paths, checkpoints: Path):
    write_model(checkpoints / "gone.safetensors", sd1())
    write_model(checkpoints / "stays.safetensors", sd1())
    catalog = Catalog(paths)
    model = catalog.find_checkpoint("gone")
    (checkpoints / "gone.safetensors").unlink()
    with pytest.raises(ModelNotFound, match=r"gone\.safetensors.*not there any more"):
        catalog.find_checkpoint("gone")
    assert names(catalog.checkpoints) == ["stays.safetensors"]
    with pytest.raises(ModelNotFound):
        catalog.sha256(model)


def test_F26_a_replaced_checkpoint_is_the_new_one_at_the_next_use_with_its_own_hash(paths: Paths, checkpoints: Path):
    path = write_model(checkpoints / "a.safetensors", sd1(8), {"version": "old"})
    catalog = Catalog(paths)
    old = catalog.sha256(catalog.find_checkpoint("a"))
    stamp = path.stat()
    other = write_model(checkpoints / ".tmp-new", sd1(8), {"version": "new"})
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same size, same time: the inode tells
    replace_file(path, other)
    assert path.stat().st_size == stamp.st_size
    model = catalog.find_checkpoint("a")
    assert (model.metadata["version"], model.sha256) == ("new", None)
    assert catalog.sha256(model) != old
    assert catalog.find_checkpoint("a").sha256 == catalog.sha256(model)


def test_F28_a_checkpoint_overwritten_in_place_has_another_fingerprint(paths: Paths, checkpoints: Path):
    path = write_model(checkpoints / "a.safetensors", sd1(8))
    catalog = Catalog(paths)
    before = catalog.find_checkpoint("a").fingerprint
    os.utime(path, ns=(1, 1))
    assert catalog.find_checkpoint("a").fingerprint != before


def test_F29_a_growing_file_is_listed_as_not_ready_and_runs_when_it_is_complete(paths: Paths, checkpoints: Path):
    whole = write_model(checkpoints / "a.safetensors", sd1()).read_bytes()
    path = checkpoints / "a.safetensors"
    catalog = Catalog(paths)
    for length in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        catalog.refresh()
        [model] = catalog.checkpoints
        assert not model.runnable
        assert "incomplete" in model.reason or "empty" in model.reason
    path.write_bytes(whole)
    assert catalog.find_checkpoint("a").runnable


@pytest.mark.parametrize("ending", [".aria2", ".part", ".crdownload"])
def test_F29_a_file_with_a_downloaders_mark_beside_it_is_not_ready(paths: Paths, checkpoints: Path, ending: str):
    write_model(checkpoints / "a.safetensors", sd1())  # complete in size: space is often reserved at the start
    mark = checkpoints / f"a.safetensors{ending}"
    mark.touch()
    catalog = Catalog(paths)
    assert "still being downloaded" in catalog.checkpoints[0].reason
    mark.unlink()
    assert catalog.find_checkpoint("a").runnable


def test_F30_one_bad_file_among_fifty_is_listed_with_its_error_beside_49_good_ones(paths: Paths, checkpoints: Path):
    for i in range(50):
        write_model(checkpoints / f"m{i}.safetensors", sd1())
    (checkpoints / "m17.safetensors").write_bytes(b"\xff" * 4096)
    models = Catalog(paths).checkpoints
    assert sum(m.runnable for m in models) == 49
    [bad] = [m for m in models if not m.runnable]
    assert bad.name == "m17.safetensors"
    assert "not a valid .safetensors file" in bad.reason


def test_F30_a_defect_in_the_detection_of_one_file_does_not_hide_the_others(
    paths: Paths, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
):
    write_model(checkpoints / "a.safetensors", sd1(), {"fault": "yes"})
    write_model(checkpoints / "b.safetensors", sd1())
    real = inspection.detect

    def faulty(header: inspection.Header, sidecar: inspection.Sidecar | None) -> object:
        if header.metadata:
            raise ZeroDivisionError
        return real(header, sidecar)

    monkeypatch.setattr(inspection, "detect", faulty)
    a, b = Catalog(paths).checkpoints
    assert "ZeroDivisionError" in a.reason
    assert b.runnable


def test_a_file_that_could_not_be_read_is_tried_again(paths: Paths, checkpoints: Path):
    path = write_model(checkpoints / "a.safetensors", sd1())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    catalog = Catalog(paths)
    assert "cannot be opened" in catalog.checkpoints[0].reason
    path.chmod(0o600)
    catalog.refresh()
    assert catalog.checkpoints[0].runnable


# The cache ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(paths: Paths, checkpoints: Path) -> Path:
    """The cache's file after a first scan of one model with a hash."""
    write_model(checkpoints / "a.safetensors", sd1())
    catalog = Catalog(paths)
    catalog.sha256(catalog.checkpoints[0])
    return paths.cache_dir / "models.sqlite"


def rescanned(paths: Paths) -> str:
    """The hash that a new catalog finds for the one model, which must be usable."""
    catalog = Catalog(paths)
    [model] = catalog.checkpoints
    assert model.runnable
    assert model.sha256 in (None, catalog.sha256(model))
    return catalog.sha256(model)


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_F32_a_damaged_cache_is_made_anew(paths: Paths, database: Path, content: bytes):
    good = rescanned(paths)
    for ending in ("-wal", "-shm"):
        database.with_name(database.name + ending).unlink(missing_ok=True)
    database.write_bytes(content)
    assert rescanned(paths) == good
    assert Cache(database).facts()


def test_F32_every_kind_of_overwritten_page_is_survived(paths: Paths, database: Path):
    good = rescanned(paths)
    original = database.read_bytes()
    for start in range(0, len(original), 1024):
        database.write_bytes(original[:start] + b"\xa5" * 1024 + original[start + 1024 :])
        assert rescanned(paths) == good


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE facts SET facts = '{'",
        'UPDATE facts SET facts = \'{"kind": "os.system"}\'',
        "UPDATE facts SET facts = x'ff00'",
        "UPDATE facts SET stamp = 'old'",
        "UPDATE facts SET version = 0",
        "UPDATE hashes SET digest = 'zz'",
        "UPDATE hashes SET digest = x'ff', size = 'many'",
        "UPDATE hashes SET mtime_ns = mtime_ns - 1, digest = '" + "0" * 64 + "'",
        "DROP TABLE facts",
        "DROP TABLE hashes",
        "PRAGMA user_version = 999",
    ],
)
def test_F32_stale_and_wrong_rows_are_found_again_from_the_file(paths: Paths, database: Path, statement: str):
    good = rescanned(paths)
    with sqlite3.connect(database) as db:
        db.execute(statement)
    db.close()
    assert rescanned(paths) == good
    assert rescanned(paths) == good


def test_F32_a_cache_that_cannot_be_written_is_done_without(paths: Paths, checkpoints: Path):
    write_model(checkpoints / "a.safetensors", sd1())
    paths.cache_dir.write_text("a file where the folder should be")
    catalog = Catalog(paths)
    assert catalog.checkpoints[0].runnable
    assert len(catalog.sha256(catalog.checkpoints[0])) == 64


def test_what_is_known_of_files_that_are_gone_is_forgotten_but_not_their_hashes(paths: Paths, checkpoints: Path):
    path = write_model(checkpoints / "a.safetensors", sd1())
    catalog = Catalog(paths)
    catalog.sha256(catalog.checkpoints[0])
    path.unlink()
    catalog.refresh()
    cache = Cache(paths.cache_dir / "models.sqlite")
    assert cache.facts() == {}
    assert set(cache.hashes("sha256")) == {str(path)}


# Several threads ---------------------------------------------------------------------------------------------------


def test_a_snapshot_that_somebody_holds_does_not_change(paths: Paths, checkpoints: Path):
    write_model(checkpoints / "a.safetensors", sd1())
    catalog = Catalog(paths)
    held = catalog.checkpoints
    write_model(checkpoints / "b.safetensors", sd1())
    catalog.refresh()
    assert (len(held), len(catalog.checkpoints)) == (1, 2)


def test_the_revision_counts_changes_alone(paths: Paths, checkpoints: Path):
    write_model(checkpoints / "a.safetensors", sd1())
    catalog = Catalog(paths)
    catalog.refresh()
    before = catalog.revision
    catalog.refresh()
    assert catalog.revision == before
    catalog.sha256(catalog.checkpoints[0])
    assert catalog.revision == before + 1


def test_threads_that_refresh_and_ask_at_once_all_get_answers(paths: Paths, checkpoints: Path):
    for i in range(20):
        write_model(checkpoints / f"m{i}.safetensors", sd1())
    catalog = Catalog(paths)
    faults: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(10):
                if number % 2:
                    catalog.refresh()
                model = catalog.find_checkpoint(f"m{(number + i) % 20}")
                assert len(catalog.sha256(model)) == 64
                assert len(catalog.checkpoints) == 20
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_a_file_added_after_the_scan_is_found_by_its_name_and_not_taken_for_another(paths: Paths, checkpoints: Path):
    write_model(checkpoints / "my-photo.safetensors", sd1())
    catalog = Catalog(paths)
    assert catalog.find_checkpoint("photo").name == "my-photo.safetensors"  # a part of its title
    write_model(checkpoints / "photo.safetensors", sd1())
    assert catalog.find_checkpoint("photo.safetensors").name == "photo.safetensors"


def test_a_part_of_a_name_is_looked_up_on_the_disk_only_now_and_then(
    paths: Paths, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
):
    catalog = Catalog(paths)
    assert catalog.checkpoints == ()
    write_model(checkpoints / "new.safetensors", sd1())
    with pytest.raises(ModelNotFound):
        catalog.find_checkpoint("new")
    monkeypatch.setattr("webui.catalog.catalog.RESCAN_SECONDS", 0.0)
    assert catalog.find_checkpoint("new").name == "new.safetensors"


def test_a_folder_that_was_put_there_a_moment_ago_is_found_by_its_name(paths: Paths, checkpoints: Path):
    catalog = Catalog(paths)
    with pytest.raises(ModelNotFound):
        catalog.find_checkpoint("saved")
    folder = checkpoints / "saved"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert catalog.find_checkpoint("saved").is_folder
    for elsewhere in ("", "..", "../Stable-diffusion/saved", str(folder), "saved\0", "long" * 1000):
        with pytest.raises(ModelNotFound):
            catalog.find_checkpoint(elsewhere)


@pytest.mark.parametrize(
    ("name", "said", "size"),
    [
        ("a.safetensors", 'parameterization: "v", image_size: 64', 768),
        ("a.safetensors", 'parameterization: "eps", image_size: 64', 512),
        ("a.safetensors", 'parameterization: "v", image_size: 32', 256),
        ("a.ckpt", 'parameterization: "v", image_size: 64, unet_config: {params: {context_dim: 1024}}', 768),
    ],
)
def test_the_image_size_of_sd2s_published_yaml_is_not_its_size(
    checkpoints: Path, paths: Paths, name: str, said: str, size: int
):
    write_model(checkpoints / name, sd2())
    (checkpoints / "a.yaml").write_text(f"model: {{params: {{{said}}}}}")
    assert Catalog(paths).checkpoints[0].native_size == size


def test_an_embedding_whose_download_ended_is_noticed(paths: Paths):
    file = write_model(paths.embeddings[0] / "glow.safetensors", {"emb_params": (2, 768)})
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    catalog = Catalog(paths)
    assert not catalog.embeddings[0].runnable
    file.write_bytes(whole)
    catalog.notice("embedding")
    assert catalog.embeddings[0].runnable


def test_an_entry_of_the_notes_that_cannot_be_used_does_not_make_the_file_be_read_again(
    paths: Paths, inspected: list[str]
):
    write_model(paths.loras[0] / "film.safetensors", kohya_lora())
    write_json(paths.loras[0] / "film.json", {"preferred weight": "0.8", "activation text": "x"})
    catalog = Catalog(paths)
    assert catalog.find_network("lora", "film") is not None
    assert catalog.loras[0].problems
    catalog.refresh()
    assert Catalog(paths).loras[0].problems
    assert inspected == ["film.safetensors"]


def test_an_upscaler_or_face_restorer_replaced_on_the_disk_is_the_new_one_when_it_is_used(paths: Paths):
    catalog = Catalog(paths)
    for folder, find in (
        (paths.upscalers[0], catalog.find_upscaler),
        (paths.face_restorers[0], catalog.find_face_restorer),
    ):
        file = write_model(folder / "e.safetensors", {"model.1.sub.0.RDB1.conv1.0.weight": (1,)})
        before = find("e.safetensors")
        new = write_model(paths.data_dir / "new.safetensors", {"model.1.sub.0.RDB1.conv1.0.weight": (2,)})
        replace_file(file, new)
        assert find("e.safetensors").fingerprint != before.fingerprint
        file.unlink()
        with pytest.raises(ModelNotFound):
            find("e.safetensors")
