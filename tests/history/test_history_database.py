"""Fault F21 and its neighbours: whatever is wrong with the history file, the program goes on, and nothing is harmed."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from history_studio import Studio, ids

from webui.errors import HistoryUnavailable
from webui.history import History, Recorder
from webui.history.database import Database, migrate
from webui.history.recorder import history_file
from webui.history.schema import MIGRATIONS
from webui.paths import Paths

FIXTURES = Path(__file__).parent / "fixtures"
ADDED = (("ALTER TABLE pictures ADD COLUMN rating INTEGER NOT NULL DEFAULT 3",),)  # a version that may come


def from_sql(text: str, path: Path) -> None:
    """A database file from a dump."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as db:
        db.executescript(text)
    db.close()


def versions_with_fixtures() -> list[int]:
    return sorted(int(path.stem.removeprefix("v")) for path in FIXTURES.glob("v*.sql"))


# --- versions --------------------------------------------------------------------------------------------------------


def test_every_version_has_a_fixture() -> None:
    assert versions_with_fixtures() == list(range(1, len(MIGRATIONS) + 1))


@pytest.mark.parametrize("version", versions_with_fixtures())
def test_a_history_of_every_older_version_opens_with_all_that_was_in_it(version: int, paths: Paths) -> None:
    from_sql((FIXTURES / f"v{version}.sql").read_text(encoding="utf-8"), history_file(paths))
    history = History(paths)
    assert [card.seed for card in history.page("", limit=10).cards] == [3, 2]
    assert [card.prompt for card in history.page("anna").cards] == ["a castle\nat night"]
    record = history.get("anna", 1).record
    assert (record.favourite, record.tags, record.notes) == (True, ("best", "Night"), "print this")
    assert record.checkpoint is not None
    assert record.checkpoint.name == "photo/base-v15.safetensors"
    assert (record.seconds["total"], record.peak_memory) == (2.0, 123456)
    assert [card.id for card in history.page("anna", "night print tag:best fav:").cards] == [1]
    assert [member.card.id for member in history.family("", 2).members] == [2, 3]
    assert history.draft("anna", "txt2img") is not None
    assert [share.picture for share in history.shares("anna")] == [1]
    assert [prompt.prompt for prompt in history.prompts("anna")[0]] == ["a castle\nat night"]
    with sqlite3.connect(history_file(paths)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        db.execute("INSERT INTO texts_index(texts_index) VALUES ('integrity-check')")
    db.close()


def test_a_migration_keeps_a_copy_of_what_was_before(studio: Studio) -> None:
    studio.save(seed=1)
    path = history_file(studio.paths)
    database = Database(path, (*MIGRATIONS, *ADDED))
    with database.read() as db:
        assert db.execute("SELECT seed, rating FROM pictures").fetchall()[0][:] == (1, 3)
    with sqlite3.connect(path.with_name(f"{path.name}.v{len(MIGRATIONS)}.bak")) as copy:
        assert copy.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
        assert copy.execute("SELECT seed FROM pictures").fetchall() == [(1,)]
    copy.close()


def test_a_migration_that_fails_changes_nothing(studio: Studio) -> None:
    studio.save(seed=1)
    path = history_file(studio.paths)
    broken = (*MIGRATIONS, (*ADDED[0], "INSERT INTO no_such VALUES (1)"))
    with sqlite3.connect(path, isolation_level=None) as db:
        with pytest.raises(sqlite3.OperationalError):
            migrate(db, broken)
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
        assert "rating" not in [row[1] for row in db.execute("PRAGMA table_info(pictures)")]
    db.close()


def test_openers_that_migrate_at_once_do_it_once(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with Database(path, MIGRATIONS).write() as db:
        db.execute("INSERT INTO folders (path) VALUES ('/x')")
    faults: list[Exception] = []

    def open_it() -> None:
        try:
            with Database(path, (*MIGRATIONS, *ADDED), busy_seconds=60).read() as db:
                db.execute("SELECT rating FROM pictures")
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert sorted(one.name for one in tmp_path.glob("*.bak*")) == [f"history.sqlite.v{len(MIGRATIONS)}.bak"]


def test_F21_a_newer_version_is_refused_and_left_as_it_is(studio: Studio) -> None:
    studio.save(seed=1)
    studio.recorder.close()
    path = history_file(studio.paths)
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    db.close()
    before = path.read_bytes()
    history = History(studio.paths)
    with pytest.raises(HistoryUnavailable, match="newer version of this program"):
        history.page("")
    assert "newer version" in history.banner()
    recorder = Recorder(studio.paths)
    studio.recorder = recorder
    assert studio.save(seed=2).exists()  # pictures go on
    history.stop()
    recorder.close()
    assert path.read_bytes() == before
    assert not list(path.parent.glob("history.sqlite.*"))


# --- damage ----------------------------------------------------------------------------------------------------------


def saved_and_closed(studio: Studio, count: int) -> Path:
    """Pictures with marks on some of them, everything in the one file."""
    for seed in range(count):
        studio.save(seed=seed, prompt=f"castle {seed} " + "of stone " * 20)
    history = History(studio.paths)
    history.set_favourite("", [1, 2], True)
    history.set_notes("", 3, "keep")
    history.save_draft("", "txt2img", {"prompt": "half typ"})
    history.stop()
    studio.recorder.close()
    return history_file(studio.paths)


# Pages 0 and 1 hold the schema: without it no row can be read, and everything comes from the pictures themselves.
@pytest.mark.parametrize("page", [0, 1, 3, 9, 17, 30, -1])
def test_F21_a_damaged_file_is_set_aside_and_the_history_made_again(page: int, studio: Studio, paths: Paths) -> None:
    path = saved_and_closed(studio, 40)
    data = bytearray(path.read_bytes())
    start = page * 4096 if page >= 0 else len(data) - 4096
    data[start : start + 4096] = random.Random(page).randbytes(4096)
    path.write_bytes(data)
    history = History(paths)
    history.start()
    assert history.wait(30)
    asides = list(path.parent.glob("history.sqlite.corrupt-*"))
    records = [history.get("", one).record for one in ids(history)]
    assert sorted(record.seed or 0 for record in records) == list(range(40))  # from the file or from the pictures
    if not asides:  # the page was one that nobody used
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        db.close()
    elif page not in (0, 1):
        rescued = [record for record in records if record.environment]
        assert len(rescued) >= 30  # one broken page costs the rows on it, not the others
    history.set_favourite("", ids(history)[:1], True)
    assert history.banner() == ""
    history.stop()


def test_F21_marks_and_ids_survive_the_damage_of_another_page(studio: Studio, paths: Paths) -> None:
    path = saved_and_closed(studio, 40)
    with sqlite3.connect(path) as db:  # break the index of the order, which every page of the grid walks along
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name='pictures_user'").fetchone()[0]
    db.close()
    data = bytearray(path.read_bytes())
    data[(root - 1) * 4096 : root * 4096] = b"\xff" * 4096
    path.write_bytes(data)
    history = History(paths)
    history.start()
    assert history.wait(30)
    assert [card.id for card in history.page("", "fav:").cards] == [2, 1]
    assert history.get("", 3).record.notes == "keep"
    assert history.get("", 1).record.seed == 0
    draft = history.draft("", "txt2img")
    assert draft is not None
    assert draft.data == {"prompt": "half typ"}
    history.stop()


def test_F21_a_rescue_that_was_broken_off_goes_on_at_the_next_start(
    studio: Studio, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved_and_closed(studio, 30)
    shutil.copy(path, path.with_name(f"{path.name}.corrupt-20260101-000000"))
    path.unlink()
    monkeypatch.setattr("webui.history.rescue.CHUNK", 10)
    from webui.history import rescue

    real, calls = rescue._write, []

    def broken(database: Database, batch: list[Any]) -> int:
        calls.append(len(batch))
        if len(calls) == 2:
            raise HistoryUnavailable("the program was ended")
        return real(database, batch)

    with monkeypatch.context() as patch:
        patch.setattr(rescue, "_write", broken)
        first = History(paths)
        first.start()
        assert first.wait(20)
        first.stop()
    assert calls == [10, 10]
    history = History(paths)
    history.start()
    assert history.wait(20)
    assert [card.id for card in history.page("", "fav:").cards] == [2, 1]
    assert sorted(card.seed or 0 for card in history.page("", limit=100).cards) == list(range(30))
    asides = {p.name for p in path.parent.glob("history.sqlite.corrupt-*")}
    assert "history.sqlite.corrupt-20260101-000000-rescued" in asides
    assert "history.sqlite.corrupt-20260101-000000" not in asides
    history.stop()


def test_F21_damage_that_shows_only_while_running_is_dealt_with_too(
    studio: Studio, history: History, paths: Paths
) -> None:
    for seed in range(5):
        studio.save(seed=seed)
    assert len(ids(history)) == 5
    history.stop()
    studio.recorder.close()
    path = history_file(paths)
    data = bytearray(path.read_bytes())
    with sqlite3.connect(path) as db:
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name='texts_index_data'").fetchone()[0]
    db.close()
    data[(root - 1) * 4096 : root * 4096] = b"\xff" * 4096
    path.write_bytes(data)
    reopened = History(paths)
    with pytest.raises(HistoryUnavailable, match="damaged"):
        reopened.page("", "castle")
    assert reopened.wait(30)
    assert len(ids(reopened, "castle")) == 5
    reopened.stop()


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 300, b"SQLite format 3\0" + b"\0" * 84])
def test_F21_a_file_that_is_empty_or_something_else_is_made_again_from_the_pictures(
    content: bytes, studio: Studio, paths: Paths
) -> None:
    studio.save(seed=1)
    studio.save(seed=2)
    studio.recorder.close()
    path = history_file(paths)
    path.write_bytes(content)
    history = History(paths)
    history.reconcile()
    assert sorted(card.seed or 0 for card in history.page("").cards) == [1, 2]
    history.stop()


def test_F21_the_worker_leaves_a_damaged_file_to_the_page(studio: Studio, paths: Paths) -> None:
    path = history_file(paths)
    path.write_bytes(b"nonsense" * 1000)
    assert studio.save(seed=1).exists()
    assert path.read_bytes() == b"nonsense" * 1000
    assert studio.recorder.waiting == 1
    history = History(paths)
    assert history.page("").cards == ()
    time.sleep(2.1)  # a refused file is not tried again for two seconds
    studio.save(seed=2)
    assert studio.recorder.waiting == 0
    assert sorted(card.seed or 0 for card in history.page("").cards) == [1, 2]
    history.stop()


def test_F21_a_lock_held_by_another_program_costs_the_row_a_while_and_never_the_picture(
    studio: Studio, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.save(seed=1)
    monkeypatch.setattr(studio.recorder._database, "_busy_seconds", 0.2)
    studio.recorder._database.close()
    other = sqlite3.connect(history_file(studio.paths), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert studio.save(seed=2).exists()
    assert studio.recorder.waiting == 1
    assert [card.seed for card in history.page("").cards] == [1]  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    studio.save(seed=3)
    assert sorted(card.seed or 0 for card in history.page("").cards) == [1, 2, 3]


def test_F21_a_history_that_can_only_be_read_is_read(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root no file is read-only, so the refusal is made where SQLite would make it: at the first write."""
    studio.save(seed=1)
    studio.recorder.close()
    history = History(studio.paths)

    def refuse(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(history._database, "_use_wal", refuse)
    assert [card.seed for card in history.page("").cards] == [1]
    assert "cannot be written" in history.banner()
    with pytest.raises(HistoryUnavailable, match="cannot be written"):
        history.set_favourite("", [1], True)
    assert not history.get("", 1).record.favourite
    history.stop()


def test_another_file_under_the_name_is_noticed(studio: Studio, history: History, tmp_path: Path) -> None:
    """A backup was put back while the program ran."""
    studio.save(seed=1)
    studio.recorder.close()
    history._database.close()
    backup = tmp_path / "backup.sqlite"
    shutil.copy(history_file(studio.paths), backup)
    studio.save(seed=2)
    assert len(ids(history)) == 2
    for ending in ("-wal", "-shm"):
        history_file(studio.paths).with_name(f"history.sqlite{ending}").unlink(missing_ok=True)
    backup.replace(history_file(studio.paths))
    assert [card.seed for card in history.page("").cards] == [1]


def test_a_defect_in_a_statement_is_not_mistaken_for_a_broken_disk(tmp_path: Path) -> None:
    database = Database(tmp_path / "history.sqlite", MIGRATIONS)
    with pytest.raises(sqlite3.OperationalError, match="syntax"), database.read() as db:
        db.execute("SELEKT 1")
    with pytest.raises(sqlite3.IntegrityError), database.write() as db:
        db.execute("INSERT INTO folders (path) VALUES ('')")
    assert database.trouble == ""


def test_a_failed_block_is_rolled_back(tmp_path: Path) -> None:
    database = Database(tmp_path / "history.sqlite", MIGRATIONS)

    def half(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO folders (path) VALUES ('/x')")
        raise ValueError

    with pytest.raises(ValueError), database.write() as db:
        half(db)
    with database.read() as db:
        assert db.execute("SELECT count(*) FROM folders").fetchone()[0] == 1
