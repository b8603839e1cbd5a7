"""Hashes are those that users and other programs know; they are computed once and kept."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from pathlib import Path

import pytest
from embedded import EMBEDDED_CHECKPOINT
from model_files import folders, kohya_lora, ldm_vae, sd1, write_model

from webui.catalog import Catalog, hasher
from webui.catalog.cache import Cache, kept
from webui.catalog.hashes import HashingStopped, addnet_hash, old_hash, sha256_of
from webui.catalog.header import read_header
from webui.errors import BadModelFile, ModelNotFound
from webui.paths import Paths

CONTENT = EMBEDDED_CHECKPOINT.read_bytes()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = folders(tmp_path)
    for i in range(3):
        write_model(paths.checkpoints[0] / f"m{i}.safetensors", sd1(), {"number": str(i)})
    return paths


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read to the end from now on."""
    names: list[str] = []

    def counting(path: Path, **options: object) -> str:
        names.append(path.name)
        return sha256_of(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(hasher, "sha256_of", counting)
    return names


def test_the_hash_is_the_sha256_of_the_whole_file():
    assert sha256_of(EMBEDDED_CHECKPOINT) == hashlib.sha256(CONTENT).hexdigest()


def test_the_old_hash_is_over_64_kb_from_the_first_megabyte():
    assert old_hash(EMBEDDED_CHECKPOINT) == hashlib.sha256(CONTENT[0x100000:0x110000]).hexdigest()[:8]


def test_the_hash_of_a_lora_leaves_its_header_out(tmp_path: Path):
    start = read_header(EMBEDDED_CHECKPOINT).data_start
    assert addnet_hash(EMBEDDED_CHECKPOINT) == hashlib.sha256(CONTENT[start:]).hexdigest()
    one = write_model(tmp_path / "a.safetensors", kohya_lora(), {"ss_output_name": "one"})
    two = write_model(tmp_path / "b.safetensors", kohya_lora(), {"ss_output_name": "two"})
    assert addnet_hash(one) == addnet_hash(two)
    assert sha256_of(one) != sha256_of(two)
    other = tmp_path / "c.pt"
    other.write_bytes(b"x")
    assert addnet_hash(other) == hashlib.sha256(b"x").hexdigest()


def test_a_file_written_while_it_is_read_has_no_hash(tmp_path: Path):
    path = tmp_path / "growing.safetensors"
    path.write_bytes(b"x" * 100)

    def grow() -> bool:
        path.write_bytes(b"y" * 200)
        return False

    with pytest.raises(BadModelFile, match="while it was read"):
        sha256_of(path, stopped=grow)


def test_a_file_that_is_gone_has_no_hash(tmp_path: Path):
    with pytest.raises(ModelNotFound):
        sha256_of(tmp_path / "gone")


def test_hashing_stops_when_it_is_told_to(tmp_path: Path):
    with pytest.raises(HashingStopped):
        sha256_of(EMBEDDED_CHECKPOINT, stopped=lambda: True)


def test_a_hash_is_computed_once_and_known_after_a_restart(paths: Paths, computed: list[str]):
    catalog = Catalog(paths)
    digest = catalog.sha256(catalog.checkpoints[0])
    assert catalog.sha256(catalog.checkpoints[0]) == digest
    again = Catalog(paths)
    assert again.checkpoints[0].sha256 == digest
    assert again.checkpoints[0].short_hash == digest[:10]
    assert again.sha256(again.checkpoints[0]) == digest
    assert computed == ["m0.safetensors"]


def test_each_vae_has_its_own_hash(tmp_path: Path):
    paths = folders(tmp_path)
    write_model(paths.vaes[0] / "a.safetensors", ldm_vae(), {"v": "a"})
    write_model(paths.vaes[0] / "b.safetensors", ldm_vae(), {"v": "b"})
    catalog = Catalog(paths)
    a, b = (catalog.sha256(v) for v in catalog.vaes)
    assert a != b
    assert [v.sha256 for v in catalog.vaes] == [a, b]


def test_a_record_from_before_a_change_does_not_get_the_old_hash(paths: Paths):
    catalog = Catalog(paths)
    old = catalog.checkpoints[0]
    digest = catalog.sha256(old)
    held = catalog.checkpoints[0]
    write_model(held.path, sd1(), {"number": "changed"})
    assert catalog.sha256(held) != digest
    assert catalog.sha256(held) == hashlib.sha256(held.path.read_bytes()).hexdigest()


def test_hashes_in_the_background_arrive_in_the_lists(paths: Paths):
    catalog = Catalog(paths)
    before = catalog.revision
    assert catalog.sha256(catalog.checkpoints[0], wait=False) == ""
    catalog.hash_in_background()
    deadline = time.monotonic() + 30
    while not all(m.sha256 for m in catalog.checkpoints) and time.monotonic() < deadline:
        time.sleep(0.005)
    for model in catalog.checkpoints:
        assert model.sha256 == hashlib.sha256(model.path.read_bytes()).hexdigest()
    assert catalog.revision > before
    assert catalog.sha256(catalog.checkpoints[0], wait=False) == catalog.checkpoints[0].sha256
    catalog.close()


def test_a_fault_in_the_background_does_not_end_the_hashing(paths: Paths, monkeypatch: pytest.MonkeyPatch):
    catalog = Catalog(paths)
    first, second, third = catalog.checkpoints
    first.path.unlink()

    def faulty(path: Path, **options: object) -> str:
        if path == second.path:
            raise OSError("the disk")
        return sha256_of(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(hasher, "sha256_of", faulty)
    for model in (second, third):
        catalog.sha256(model, wait=False)
    deadline = time.monotonic() + 30
    while not catalog.checkpoints[2].sha256 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert catalog.checkpoints[2].sha256
    monkeypatch.setattr(hasher, "sha256_of", sha256_of)
    assert len(catalog.sha256(second)) == 64
    catalog.close()


def test_threads_that_ask_for_one_hash_share_the_work(paths: Paths, monkeypatch: pytest.MonkeyPatch):
    catalog = Catalog(paths)
    model = catalog.checkpoints[0]
    everybody_asked, reads = threading.Event(), []

    def slow(path: Path, **options: object) -> str:
        reads.append(path)
        everybody_asked.wait(10)
        return sha256_of(path)

    monkeypatch.setattr(hasher, "sha256_of", slow)
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(catalog.sha256(model))) for _ in range(5)]
    for thread in threads:
        thread.start()
    while not reads:
        time.sleep(0.001)
    time.sleep(0.05)
    everybody_asked.set()
    for thread in threads:
        thread.join()
    assert len(reads) == 1
    assert len(set(results)) == 1


def test_after_closing_a_hash_can_still_be_had_by_waiting(paths: Paths):
    catalog = Catalog(paths)
    catalog.hash_in_background()
    catalog.close()
    assert len(catalog.sha256(catalog.checkpoints[1])) == 64


def test_the_lora_hash_is_kept_too(tmp_path: Path):
    paths = folders(tmp_path)
    write_model(paths.loras[0] / "a.safetensors", kohya_lora())
    catalog = Catalog(paths)
    digest = catalog.addnet_hash(catalog.loras[0])
    assert digest == addnet_hash(catalog.loras[0].path)
    assert Catalog(paths).addnet_hash(catalog.loras[0], wait=False) == digest


def test_an_inode_of_64_bits_is_kept_folded(tmp_path: Path):
    cache, fingerprint = Cache(tmp_path / "models.sqlite"), (5, 6, 2**63 + 12_345)
    cache.keep_hash(tmp_path / "a", "sha256", fingerprint, "0" * 64)
    assert cache.hash_of(tmp_path / "a", "sha256", fingerprint) == "0" * 64
    assert cache.hashes("sha256") == {str(tmp_path / "a"): (kept(fingerprint), "0" * 64)}


def test_what_sqlite_cannot_keep_is_done_without(tmp_path: Path):
    cache, odd = Cache(tmp_path / "models.sqlite"), Path(os.fsdecode(b"/m\xfcller/a"))
    cache.keep_hash(odd, "sha256", (1, 2, 3), "0" * 64)
    assert cache.hash_of(odd, "sha256", (1, 2, 3)) is None
    cache.keep_hash(tmp_path / "a", "sha256", (2**63, 2, 3), "0" * 64)
    assert cache.hashes("sha256") == {}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_models_below_a_path_that_is_no_utf8_are_listed_and_hashed(tmp_path: Path):
    paths = folders(tmp_path / os.fsdecode(b"m\xfcller"))
    write_model(paths.checkpoints[0] / "a.safetensors", sd1())
    (model,) = Catalog(paths).checkpoints
    assert len(Catalog(paths).sha256(model)) == 64
