"""Rows and files: what the start-up brings together, the trash and back, thumbnails, archives."""

from __future__ import annotations

import io
import os
import threading
import time
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest
from history_studio import Studio, draw, ids
from PIL import Image

from webui import events, pictures
from webui.errors import BadPicture, NotFound, SaveError
from webui.history import History, deletion, thumbnails, zips
from webui.history.reconcile import Origin, origins_of, picture_files, reconcile
from webui.history.records import Record, State
from webui.history.replay import exact_params
from webui.history.rows import thumbnail_key
from webui.history.skeleton import read_skeleton, size_of
from webui.history.thumbnails import Thumbnails
from webui.paths import Paths
from webui.pictures import opening

# --- reconcile -------------------------------------------------------------------------------------------------------


def without_history(paths: Paths) -> None:
    for part in paths.outputs.glob("history.sqlite*"):
        part.unlink()


def test_F19_a_file_without_a_row_is_indexed_from_its_own_text(studio: Studio, paths: Paths) -> None:
    params = studio.params(prompt="a (red:1.2) castle, <lora:grain:0.5>", negative_prompt="fog", seed=11, steps=33)
    path = studio.save(params)
    studio.recorder.close()
    without_history(paths)
    history = History(paths)
    assert history.reconcile().indexed == 1
    [picture_id] = ids(history)
    record = history.get("", picture_id).record
    assert record.prompt == params.prompt
    assert (record.negative_prompt, record.seed, record.steps, record.source) == ("fog", 11, 33, "")
    assert (record.width, record.height) == (64, 48)
    assert record.checkpoint is not None
    assert (record.checkpoint.name, record.checkpoint.sha256) == ("base-v15", "6ce0161689")
    assert [network.name for network in record.networks] == ["grain"]
    assert record.created == pytest.approx(path.stat().st_mtime)
    again = exact_params(record)
    assert again.vae == "None", "its text names no VAE, so it was the baked one"
    assert again.changed(checkpoint=params.checkpoint, vae=params.vae) == params.single(0)
    assert ids(history, "red model:6ce lora:grain") == [picture_id]
    history.stop()


def test_F19_the_queue_still_knows_whose_an_orphan_is(studio: Studio, paths: Paths) -> None:
    params = studio.params(seed=5, batch_count=2)
    path = studio.save(params, index=1)
    studio.recorder.close()
    without_history(paths)
    view = {
        "id": "j7",
        "user": "anna",
        "params": params.model_dump(),
        "images": [{"path": path.relative_to(paths.outputs).as_posix(), "index": 1}, {"path": "", "index": 0}],
    }
    history = History(paths)
    history.start(lambda: origins_of([view]))
    assert history.wait(20)
    [picture_id] = ids(history, user="anna")
    record = history.get("anna", picture_id).record
    assert (record.job, record.picture_index, record.params) == ("j7", 1, params.canonical_json())
    history.stop()


def test_a_job_whose_params_are_of_another_version_still_says_who_made_it() -> None:
    view = {"id": "j", "user": "anna", "params": {"no": "such"}, "images": [{"path": "x.png", "index": 0}]}
    assert origins_of([view]) == {"x.png": Origin("j", "anna", "", 0)}


def test_F19_a_row_without_its_file_is_marked_and_found_again(studio: Studio, history: History) -> None:
    path = studio.save(seed=1)
    elsewhere = path.with_name("elsewhere.bin")
    path.rename(elsewhere)
    assert history.reconcile().missing == 1
    assert ids(history, "is:missing") == [1]
    with pytest.raises(NotFound):
        history.file("", 1)
    elsewhere.rename(path)
    assert history.reconcile().found == 1
    assert history.file("", 1) == path


def test_a_second_look_changes_nothing(studio: Studio, history: History) -> None:
    for seed in range(3):
        studio.save(seed=seed)
    history.delete("", [2])
    before = history.get("", 1), history.get("", 2)
    result = history.reconcile()
    assert (result.finished, result.removed, result.indexed, result.missing, result.found) == (0, 0, 0, 0, 0)
    assert (history.get("", 1), history.get("", 2)) == before


def test_files_that_are_no_pictures_and_hidden_ones_are_passed_over(studio: Studio, history: History) -> None:
    outputs = studio.paths.outputs
    (outputs / "notes.txt").write_text("x")
    (outputs / "broken.png").write_bytes(b"not a picture")
    (outputs / ".tmp-abc.png").write_bytes(b"")
    (outputs / ".hidden").mkdir()
    draw(1).save(outputs / ".hidden" / "x.png")
    draw(2).save(outputs / "plain.png")
    result = history.reconcile()
    assert (result.indexed, result.unreadable) == (1, 1)
    assert history.get("", ids(history)[0]).record.path == "plain.png"


HARD_NAMES = [
    "é" * 125 + "-.png",  # 255 bytes, 130 characters
    unicodedata.normalize("NFD", "Ünïcödé") + ".png",
    unicodedata.normalize("NFC", "Ünïcödé") + ".png",
    "a 'quoted\" name; DROP TABLE.png",
    "🏰" * 60 + ".png",
    "UPPER.PNG",
]
NO_TEXT = ["line\nbreak.png", "back\\slash.png"]  # names that cannot be stored, as bytes of no encoding cannot


def test_F24_ten_thousand_files_with_the_hardest_names_are_indexed_bit_by_bit(studio: Studio, history: History) -> None:
    source = studio.save(seed=1)
    outputs = studio.paths.outputs
    for folder in ("hard", "many"):
        (outputs / folder).mkdir()
    for name in (*HARD_NAMES, *NO_TEXT):
        os.link(source, outputs / "hard" / name)
    os.link(source, os.fsencode(outputs) + b"/hard/\xff\xfe.png")
    for number in range(10_000):
        os.link(source, outputs / "many" / f"{number:05d}-1.png")
    assert len(set(picture_files(outputs))) == 1 + len(HARD_NAMES) + 10_000
    parts = iter([False, False, True])  # the program is ended after two parts of the work
    result = reconcile(history._database, outputs, stop=lambda: next(parts))
    assert result.indexed == 400
    with history._database.read() as db:
        found = {row["path"] for row in db.execute("SELECT path FROM pictures")}
    assert {f"hard/{name}" for name in HARD_NAMES} <= found
    assert reconcile(history._database, outputs, stop=lambda: True).indexed == 0
    hard = [card.id for card in history.page("", limit=500).cards if history.get("", card.id).record.path in
            {f"hard/{name}" for name in HARD_NAMES}]  # fmt: skip
    assert len(hard) == len(HARD_NAMES)
    assert history.delete("", hard) == hard
    assert not any((outputs / "hard" / name).exists() for name in HARD_NAMES)
    assert history.restore("", hard) == hard
    assert all((outputs / "hard" / name).exists() for name in HARD_NAMES)


# --- the trash -------------------------------------------------------------------------------------------------------


def test_what_is_deleted_leaves_the_grid_and_the_folder_and_comes_back_as_it_was(
    studio: Studio, history: History
) -> None:
    paths = [studio.save(seed=seed) for seed in range(3)]
    data = paths[1].read_bytes()
    before = history.get("", 2)
    gone = history.delete("", [2, 2, 99])
    assert gone == [2]
    assert ids(history) == [3, 1]
    assert not paths[1].exists()
    assert [card.id for card in history.page("", trashed=True).cards] == [2]
    assert history.thumbnail("", 2)[1]  # the trash shows what is in it
    with pytest.raises(NotFound):
        history.file("", 2)
    assert history.delete("", [2]) == []
    assert history.restore("", gone) == [2]
    assert history.get("", 2) == before
    assert paths[1].read_bytes() == data
    assert not list((studio.paths.outputs / ".trash").iterdir())
    assert history.restore("", [1, 2]) == []


@pytest.mark.parametrize("first", [0, 1])
def test_a_picture_that_two_restore_at_once_is_there(
    first: int, studio: Studio, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both see it in the trash, one moves the file, and either may be the first to write what it saw."""
    path = studio.save(seed=1)
    history.delete("", [1])
    real, outcomes = deletion._bring_back, list[Any]()

    def both(outputs: Path, picture: Any) -> Any:
        outcomes.extend(real(outputs, picture) for _ in range(2))
        if first:
            outcomes.reverse()
        monkeypatch.setattr(deletion, "_bring_back", lambda *_: outcomes[1])
        monkeypatch.setattr(deletion, "own_pictures", lambda *_: [picture])  # as it was when both looked
        return outcomes[0]

    monkeypatch.setattr(deletion, "_bring_back", both)
    history.restore("", [1])
    history.restore("", [1])
    assert history.get("", 1).record.state is State.present
    assert path.is_file()


def test_a_file_whose_name_was_taken_meanwhile_comes_back_under_another(studio: Studio, history: History) -> None:
    path = studio.save(seed=1)
    history.delete("", [1])
    draw(9).save(path)
    assert history.restore("", [1]) == [1]
    assert history.file("", 1).name == "00000-1 (2).png"
    assert b"Seed: 1" in history.file("", 1).read_bytes()
    assert history.reconcile().indexed == 1  # the one that took the name is a picture, too


def test_emptying_the_trash_is_for_good_and_only_for_the_trash(studio: Studio, history: History) -> None:
    for seed in range(4):
        studio.save(seed=seed)
        history.thumbnail("", seed + 1)
    history.delete("", [1, 2, 3])
    assert history.empty_trash("", [2, 4]) == 1
    assert history.empty_trash("") == 2
    assert ids(history) == [4]
    assert [path.name for path in studio.paths.outputs.rglob("*.png")] == ["00003-3.png"]
    assert len(list(history.thumbnails._folder.rglob("*.webp"))) == 1
    assert history.reconcile().indexed == 0
    with pytest.raises(NotFound):
        history.get("", 1)
    assert studio.save(seed=9).exists()
    assert ids(history) == [5, 4]  # an id is never used twice


@pytest.mark.parametrize("way", ["into", "out of"])
def test_F19_a_kill_between_moving_a_file_and_changing_its_row_is_put_right(
    way: str, studio: Studio, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.save(seed=1)
    if way == "out of":
        history.delete("", [1])
    with monkeypatch.context() as patch:
        patch.setattr(history._database, "write", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            history.delete("", [1]) if way == "into" else history.restore("", [1])
    history.reconcile()
    state = history.get("", 1).record.state
    assert state is (State.trashed if way == "into" else State.present)
    if way == "into":
        assert history.restore("", [1]) == [1]
    assert history.file("", 1).exists()


def test_a_file_that_cannot_be_moved_stays_with_its_picture(
    studio: Studio, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [studio.save(seed=seed) for seed in range(2)]
    real = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if self == paths[0]:
            raise PermissionError(13, "Permission denied")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(SaveError, match=r"00000-0\.png could not be deleted: Permission denied"):
        history.delete("", [1, 2])
    assert ids(history) == [1]
    assert paths[0].exists()
    assert not paths[1].exists()


def test_the_trash_of_a_lost_history_is_indexed_as_trash(studio: Studio, paths: Paths) -> None:
    path = studio.save(seed=1)
    studio.save(seed=2)
    first = History(paths)
    first.delete("", [1])
    first.stop()
    studio.recorder.close()
    without_history(paths)
    history = History(paths)
    history.reconcile()
    assert [card.seed for card in history.page("", trashed=True).cards] == [1]
    [card] = history.page("", trashed=True).cards
    assert history.restore("", [card.id]) == [card.id]
    assert path.exists()
    assert sorted(card.seed or 0 for card in history.page("").cards) == [1, 2]
    history.stop()


def test_a_picture_that_was_never_saved_can_be_deleted_and_restored(studio: Studio, history: History) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    studio.write = refuse
    with pytest.raises(OSError, match="No space"):
        studio.save(seed=1)
    assert history.delete("", [1]) == [1]
    assert history.restore("", [1]) == [1]
    assert history.get("", 1).record.state is State.unsaved


# --- thumbnails ------------------------------------------------------------------------------------------------------


def test_what_is_larger_than_a_picture_from_outside_may_be_has_a_thumbnail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's, in place of 89 million
    monkeypatch.setattr(opening, "MAX_PIXELS", 1000)
    monkeypatch.setattr(opening, "MAX_RESULT_PIXELS", 100_000)
    for mode in ("RGB", "L", "RGBA"):
        sheet = pictures.encode(Image.new(mode, (400, 250)))
        assert pictures.upright_size(thumbnails.shrink(sheet)) == (320, 200)
    with pytest.raises(BadPicture):
        thumbnails.shrink(pictures.encode(Image.new("L", (401, 250))))


def test_a_thumbnail_is_made_once_and_outlives_its_picture(studio: Studio, history: History) -> None:
    path = studio.save(seed=3, width=1024, height=512)
    key, data = history.thumbnail("", 1)
    with Image.open(io.BytesIO(data)) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("WEBP", (320, 160))
    path.unlink()
    assert history.thumbnail("", 1) == (key, data)
    history.thumbnails.drop(key)
    with pytest.raises(NotFound, match="gone"):
        history.thumbnail("", 1)


def test_a_saved_picture_gets_its_thumbnail_in_the_background(studio: Studio, history: History) -> None:
    path = studio.save(seed=3)
    record = history.get("", 1).record
    history.heard(events.Image(0, str(path), 3, 64, 48, "", record.pixels_sha256))
    cached = history.thumbnails._path(record.thumbnail)
    deadline = time.monotonic() + 20
    while not cached.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    path.unlink()
    assert history.thumbnail("", 1)[1] == cached.read_bytes()
    assert record.thumbnail == thumbnail_key(Record(pixels_sha256=record.pixels_sha256))


def test_the_cache_of_thumbnails_has_a_bound(tmp_path: Path) -> None:
    thumbnails = Thumbnails(tmp_path / "thumbnails", max_bytes=20_000)
    now = time.time()
    for number in range(30):
        folder = tmp_path / "thumbnails" / f"{number:02x}"
        folder.mkdir(parents=True)
        path = folder / f"{number:032x}.webp"
        path.write_bytes(b"x" * 1000)
        os.utime(path, (now - number, now - number))
    assert thumbnails.prune() == 14
    left = sorted(path.stem for path in (tmp_path / "thumbnails").rglob("*.webp"))
    assert left == [f"{number:032x}" for number in range(16)]  # the longest unused went
    assert thumbnails.prune() == 0


def test_many_requests_for_one_thumbnail_all_get_it(studio: Studio, history: History) -> None:
    studio.save(seed=3)
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(history.thumbnail("", 1)[1])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    studio: Studio, history: History, tmp_path: Path
) -> None:
    studio.save(seed=3)
    (tmp_path / "file").write_text("in the way")
    history.thumbnails = Thumbnails(tmp_path / "file" / "below")
    assert history.thumbnail("", 1)[1][:4] == b"RIFF"


def test_a_file_that_became_something_else_has_no_thumbnail(studio: Studio, history: History) -> None:
    path = studio.save(seed=3)
    path.write_bytes(b"<svg onload=alert(1)>")
    with pytest.raises(BadPicture):
        history.thumbnail("", 1)


@pytest.mark.parametrize("key", ["", "../../x", "A" * 32, "a" * 31])
def test_a_key_that_is_none_leads_nowhere(key: str, history: History) -> None:
    with pytest.raises(NotFound):
        history.thumbnails.get(key, None)


# --- archives --------------------------------------------------------------------------------------------------------


def test_an_archive_holds_the_files_byte_for_byte(studio: Studio, history: History) -> None:
    one, two = studio.save(seed=1), studio.save(seed=2)
    twin = studio.save(seed=3, path=studio.paths.outputs / "other" / one.name)
    pieces = list(history.zip("", [3, 1, 2, 99]))
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [one.name, "00000-1 (2).png", two.name]
        assert archive.read(one.name) == twin.read_bytes()
        assert archive.read("00000-1 (2).png") == one.read_bytes()
    with pytest.raises(NotFound):
        history.zip("", [99])


def test_an_archive_is_streamed_and_survives_a_file_that_vanishes(tmp_path: Path) -> None:
    big = tmp_path / "big.png"
    big.write_bytes(os.urandom(3 * zips.PIECE))
    gone = tmp_path / "gone.png"
    gone.write_bytes(b"x")
    stream = zips.stream([(big, 0.0), (gone, time.time()), (big, 1e12)])
    first = next(stream)
    assert len(first) < 2 * zips.PIECE
    gone.unlink()
    with zipfile.ZipFile(io.BytesIO(first + b"".join(stream))) as archive:
        assert archive.namelist() == ["big.png", "big (2).png"]
        assert archive.read("big (2).png") == big.read_bytes()
        assert archive.infolist()[0].date_time[0] == 1980


# --- reading around the pixels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp", "avif"])
def test_the_text_of_a_large_file_is_read_without_its_pixels(image_format: str, tmp_path: Path) -> None:
    noise = Image.frombytes("RGB", (700, 500), os.urandom(700 * 500 * 3))
    text = "a castle, ünïcode 🏰\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 700x500"
    path = tmp_path / f"x.{image_format}"
    path.write_bytes(pictures.encode(noise, image_format, 95, text))
    skeleton = read_skeleton(path)
    assert pictures.read_text(skeleton)[0] == text
    assert size_of(skeleton) == (700, 500)
    assert image_format == "avif" or len(skeleton) < 70_000 < path.stat().st_size


def test_a_truncated_file_gives_what_can_be_read(tmp_path: Path) -> None:
    data = pictures.encode(Image.frombytes("RGB", (400, 400), os.urandom(480_000)), "png", 90, "hello")
    for length in range(0, len(data), len(data) // 10):
        path = tmp_path / "cut.png"
        path.write_bytes(data[:length])
        skeleton = read_skeleton(path)
        assert size_of(skeleton) in ((400, 400), (0, 0))
    with pytest.raises(NotFound):
        read_skeleton(tmp_path / "no.png")
