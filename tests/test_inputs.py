"""The store of pictures to start from: addressed by content, opened safely, never cleaned while needed."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from webui.errors import BadPicture, NotFound, SaveError
from webui.identity import OWNER, Viewer
from webui.inputs import FOLDER, KEEP_UNUSED_SECONDS, InputRights, InputStore, references_in
from webui.params import make_params
from webui.pictures import opening


def png(colour: str = "red", mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> InputStore:
    return InputStore(tmp_path)


def make_old(path: Path) -> None:
    past = time.time() - 2 * KEEP_UNUSED_SECONDS
    os.utime(path, (past, past))


def test_a_picture_is_kept_under_the_sha256_of_its_bytes_and_comes_back_as_it_was(store: InputStore) -> None:
    data = png()
    kept = store.add(data)
    assert kept.reference == hashlib.sha256(data).hexdigest()
    assert (kept.width, kept.height, kept.format, kept.has_alpha) == (24, 16, "PNG", False)
    assert store.read(kept.reference) == data
    assert store.open(kept.reference).getpixel((0, 0)) == (255, 0, 0)
    assert store.look(kept.reference) == kept


def test_one_user_keeps_no_more_in_use_than_a_bound(store: InputStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = png(), png("blue")
    monkeypatch.setattr("webui.inputs.MAX_OF_ONE", len(first) + 10)
    kept = store.add(first, "ann")
    with pytest.raises(SaveError):
        store.add(second, "ann")
    assert store.add(first, "ann") == kept
    assert store.add(second, "bob")
    assert store.add(png("green")), "whoever sits at the machine"
    make_old(store.path(kept.reference))
    assert store.add(second, "ann")


def test_equal_files_are_kept_once(store: InputStore, tmp_path: Path) -> None:
    assert store.add(png()) == store.add(png())
    assert len(list((tmp_path / FOLDER).rglob("*.png"))) == 1


def test_transparency_is_known(store: InputStore) -> None:
    assert store.add(png("#ff000080", "RGBA")).has_alpha


def test_no_more_than_two_pictures_are_decoded_at_a_time(store: InputStore, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, lock = [0], threading.Lock()
    most, most_with_large = [0], [0]
    real = opening.open_image

    def counted(data: bytes, **more: Any) -> Image.Image:
        with lock:
            beside[0] += 1
            most[0] = max(most[0], beside[0])
        time.sleep(0.01)
        try:
            image = real(data, **more)
            if image.width > 100:
                most_with_large[0] = max(most_with_large[0], beside[0])
            return image
        finally:
            with lock:
                beside[0] -= 1

    def compared(data: bytes) -> None:
        with opening.both_opened(data, data) as (one, other):
            assert one.size == other.size

    monkeypatch.setattr(opening, "open_image", counted)
    monkeypatch.setattr(opening, "MAX_PIXELS", 1000)
    monkeypatch.setattr(opening, "MAX_RESULT_PIXELS", 3000)
    with ThreadPoolExecutor(8) as pool:
        small = [pool.submit(store.add, png(size=(8, side))) for side in range(8, 16)]
        large = [pool.submit(store.add, png(size=(200, side))) for side in range(8, 12)]
        pairs = [pool.submit(compared, png(size=(8, side))) for side in range(8, 12)]
        for done in (*small, *large, *pairs):
            done.result()
    assert (most[0], most_with_large[0]) == (opening.AT_ONCE, 1)
    with pytest.raises(BadPicture, match="200x16 pixels"):
        store.add(png(size=(200, 16)))


def test_a_picture_above_what_is_decoded_beside_others_can_be_started_from(
    store: InputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "MAX_PIXELS", 100)
    monkeypatch.setattr("webui.pictures.MAX_RESULT_PIXELS", 24 * 16)
    kept = store.add(png())
    assert store.open(kept.reference).size == (kept.width, kept.height) == (24, 16)
    monkeypatch.setattr("webui.pictures.MAX_RESULT_PIXELS", 24 * 15)
    with pytest.raises(BadPicture):
        store.open(kept.reference)


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"GIF89a" + b"\0" * 50, png()[:60]])
def test_what_is_no_picture_is_refused_and_nothing_is_written(store: InputStore, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadPicture):
        store.add(data)
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize("reference", ["", "a", "../../etc/passwd", "a" * 64, "A" * 64, "a" * 64 + "\n"])
def test_what_is_not_there_is_not_found(store: InputStore, reference: str) -> None:
    with pytest.raises(NotFound):
        store.path(reference)


def test_a_file_that_was_changed_on_the_disk_is_not_taken(store: InputStore) -> None:
    kept = store.add(png())
    store.path(kept.reference).write_bytes(png("blue"))
    with pytest.raises(BadPicture, match="damaged"):
        store.open(kept.reference)


def test_cleaning_takes_what_is_old_and_not_needed_and_nothing_else(store: InputStore) -> None:
    needed, unused, fresh = (store.add(png(colour)).reference for colour in ("red", "green", "blue"))
    for reference in (needed, unused):
        make_old(store.path(reference))
    cleaned = store.clean({needed})
    assert (cleaned.removed, cleaned.kept) == (1, 2)
    assert cleaned.removed_bytes == len(png("green"))
    assert store.read(needed)
    assert store.read(fresh)
    with pytest.raises(NotFound):
        store.read(unused)


def test_whoever_brings_a_picture_may_use_it_until_it_is_cleaned_away(store: InputStore) -> None:
    reference = store.add(png(), "ann").reference
    assert store.add(png(), "b/../ö\u202e").reference == reference
    rights = InputRights(store)
    for name, may in (("ann", True), ("b/../ö\u202e", True), ("bob", False), ("", False)):
        assert rights.may_use(Viewer(name), reference) == may, name
    assert rights.may_use(OWNER, reference)
    assert not rights.may_use(Viewer("ann"), "../../etc/passwd")
    for asked in ({"init": {"image": reference}}, {"extras": {}, "sources": ({"image": reference},)}):
        params = make_params(asked)
        rights.require(Viewer("ann"), params)
        with pytest.raises(NotFound) as refused:
            rights.require(Viewer("bob"), params)
    make_old(store.path(reference))
    assert store.clean(set()).removed == 1
    assert not rights.may_use(Viewer("ann"), reference)
    with pytest.raises(NotFound) as gone:
        store.path(reference)
    assert str(refused.value) == str(gone.value), "somebody else's picture is answered like none"


def test_using_a_picture_keeps_it_for_another_day(store: InputStore) -> None:
    again, named = store.add(png("red")).reference, store.add(png("green")).reference
    for reference in (again, named):
        make_old(store.path(reference))
    store.add(png("red"))
    store.require(make_params({"init": {"image": named}}))
    assert store.clean(set()).removed == 0


def test_a_request_whose_picture_is_gone_is_refused(store: InputStore) -> None:
    with pytest.raises(NotFound, match="Choose it again"):
        store.require(make_params({"init": {"image": "a" * 64}}))


def test_references_are_found_in_the_text_of_any_request(store: InputStore) -> None:
    a, b, c = "a" * 64, "b" * 64, "c" * 64
    params = make_params({"init": {"image": a}, "inpaint": {"mask": b}, "prompt": f'say "{"d" * 63}"'})
    assert references_in(params.canonical_json()) == {a, b}
    assert references_in(make_params({"hires": {"first_pass": c}}).canonical_json()) == {c}
    assert references_in(make_params({"prompt": "a picture"}).canonical_json()) == set()


def test_uploads_are_cleaned_again_and_again_while_the_server_runs(
    store: InputStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from webui.server import boot

    class Nothing:
        looks = 0

        def wait(self) -> None: ...

        def banner(self) -> str:
            return ""

        def inputs(self) -> set[str]:
            self.looks += 1
            if self.looks == 2:
                make_old(store.path(late.reference))  # between the first look and the second
            if self.looks == 3:
                builder.end()
            return set()

    monkeypatch.setattr(boot, "CLEAN_SECONDS", 0.001)
    late, nothing, said = store.add(png()), Nothing(), list[str]()
    paths: Any = SimpleNamespace(outputs=tmp_path)
    unused: Any = None
    builder = boot._Builder(unused, paths, unused, unused, unused, unused, said.append, None, None)
    builder._clean_inputs(SimpleNamespace(inputs=set), nothing)  # type: ignore[arg-type]
    assert nothing.looks == 3
    assert len(said) == 1
