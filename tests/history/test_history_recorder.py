"""The row of a picture is written in the same step as its file, whatever happens at which moment."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import sqlite3
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from history_studio import CHECKPOINT, Studio, ids

from webui import events, infotext
from webui.errors import HistoryUnavailable
from webui.history import History, Recorder
from webui.history.recorder import history_file
from webui.history.records import State
from webui.history.replay import exact_params
from webui.paths import Paths, write_new
from webui.provenance import UsedModel

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def in_a_process(work: Callable[[Studio], None], paths: Paths) -> Callable[[], int]:
    """Run `work` in a process of its own; the result waits for it and gives its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(Studio(paths, Recorder(paths)))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def wait() -> int:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return wait


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def limit_files(size: int) -> None:
    """No file may grow beyond `size` bytes: to SQLite and to Pillow this is a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_saved_picture_has_a_row_that_knows_everything(studio: Studio, history: History) -> None:
    vae = UsedModel("vae", "mse.safetensors", "cd" * 32)
    lora = UsedModel("lora", "grain.safetensors", "ef" * 32)
    studio.models = (CHECKPOINT, vae, lora)
    params = studio.params(prompt="a castle", negative_prompt="fog", seed=40, batch_size=3, sampler="Euler a")
    path = studio.save(params, index=2)
    [picture_id] = ids(history)
    record = history.get("", picture_id).record
    assert history.file("", picture_id) == path
    assert (record.state, record.seed, record.width, record.height) == (State.present, 42, 64, 48)
    assert (record.checkpoint, record.vae, record.networks) == (CHECKPOINT, vae, (lora,))
    assert (record.prompt, record.negative_prompt, record.sampler) == ("a castle", "fog", "Euler a")
    assert record.params == params.canonical_json()
    assert exact_params(record) == params.single(2)
    assert record.environment == {
        "product": "0.1.0", "torch": "2.13.0", "device": "cpu", "dtype": "float32", "attention": "sdpa"
    }  # fmt: skip
    assert record.infotext.startswith("a castle\nNegative prompt: fog\nSteps: 20")
    assert len(record.pixels_sha256) == 64
    assert abs(record.created - time.time()) < 60


def test_a_job_adds_its_user_its_time_and_its_memory(studio: Studio, history: History) -> None:
    def job() -> Iterator[events.Event]:
        for index in range(2):
            path = studio.save(studio.params(batch_count=2), index=index)
            yield events.Image(index, str(path), 7, 64, 48, "", "")
        yield events.Finished(2, {"sample": 1.5, "total": 2.0}, 123_456)

    told = list(studio.recorder.following(job(), job="j1", user="anna"))
    assert [type(event).__name__ for event in told] == ["Image", "Image", "Finished"]
    cards = history.of_job("anna", "j1")
    assert [card.picture_index for card in cards] == [0, 1]
    for card in cards:
        record = history.get("anna", card.id).record
        assert (record.seconds, record.peak_memory) == ({"sample": 1.5, "total": 2.0}, 123_456)
    studio.save()
    assert len(ids(history, user="")) == 1  # after the job, pictures are nobody's again


def test_a_jobs_pictures_are_counted_once_each_without_those_that_are_half_drawn_or_gone(
    studio: Studio, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, whole = studio.params(batch_count=4), infotext.format
    saved: list[Path] = []

    def job(stopped: bool) -> Iterator[events.Event]:
        saved.extend(studio.save(params, index) for index in range(2))
        if stopped:
            with monkeypatch.context() as patch:
                patch.setattr(infotext, "format", lambda *a, **k: whole(*a, **k) + ", Stopped at step: 3")
                studio.save(params, 2)
        yield from ()

    list(studio.recorder.following(job(stopped=True), job="j1"))
    assert history.finished_of("j1") == 2
    list(studio.recorder.following(job(stopped=False), job="j1"))
    assert history.finished_of("j1") == 2, "the same two once more"
    saved[0].unlink()
    saved[2].unlink()
    assert (history.finished_of("j1"), history.finished_of("j2"), history.finished_of("")) == (1, 0, 0)


def test_closing_the_events_closes_the_engine_too(studio: Studio) -> None:
    closed = []

    def job() -> Iterator[events.Event]:
        try:
            yield events.Started(1, 64, 48, 20)
            yield events.Started(1, 64, 48, 20)
        finally:
            closed.append(True)

    following = studio.recorder.following(job())
    next(following)
    following.close()  # type: ignore[attr-defined]
    assert closed == [True]


def test_a_name_that_is_taken_leaves_no_row_behind(studio: Studio, history: History) -> None:
    path = studio.save(seed=1)
    with pytest.raises(FileExistsError):
        studio.save(seed=2, path=path)
    assert [card.seed for card in history.page("").cards] == [1]


def test_F13_a_picture_that_the_disk_refused_is_in_the_history_with_the_reason(
    studio: Studio, history: History
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    studio.write = full
    with pytest.raises(OSError, match="No space left"):
        studio.save(seed=5)
    [picture_id] = ids(history)
    record = history.get("", picture_id).record
    assert (record.state, record.path) == (State.unsaved, None)
    assert "No space left" in record.error
    assert exact_params(record).seed == 5  # so it can be made again
    assert ids(history, "is:unsaved") == [picture_id]


@needs_fork
def test_F13_a_full_disk_leaves_neither_half_a_file_nor_a_false_row(paths: Paths, history: History) -> None:
    def work(studio: Studio) -> None:
        studio.save(seed=1)
        limit_files(200)  # smaller than a picture and any page of the database
        with pytest.raises(OSError, match="File too large"):
            studio.save(seed=2)
        assert studio.recorder.waiting == 1  # told when there is room again

    assert in_a_process(work, paths)() == 0
    assert [card.seed for card in history.page("").cards] == [1]
    assert [path.name for path in paths.outputs.rglob("*.png")] == ["00000-1.png"]
    assert not list(paths.outputs.rglob(".tmp-*"))


@needs_fork
def test_F14_generation_goes_on_when_the_history_cannot_be_written_and_it_catches_up(
    paths: Paths, history: History
) -> None:
    def work(studio: Studio) -> None:
        studio.save(seed=1)
        size = history_file(paths).with_name("history.sqlite-wal").stat().st_size

        def job() -> Iterator[events.Event]:
            limit_files(size)
            for seed in (2, 3):
                studio.save(seed=seed)
            yield events.Finished(2, {}, 0)

        warning, finished = studio.recorder.following(job(), user="anna")
        assert isinstance(warning, events.Warning)
        assert warning.code == "history"
        assert isinstance(finished, events.Finished)
        assert studio.recorder.waiting == 2
        limit_files(resource.RLIM_INFINITY)
        studio.save(seed=4)
        assert studio.recorder.waiting == 0

    assert in_a_process(work, paths)() == 0
    assert sorted(card.seed or 0 for card in history.page(None).cards) == [1, 2, 3, 4]
    assert [card.user for card in history.page(None, "seed:2..3").cards] == ["anna", "anna"]
    with sqlite3.connect(history_file(paths)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


@needs_fork
def test_F14_the_page_shows_a_banner_until_the_history_can_be_written_again(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webui.history.store.PROBE_SECONDS", 0.0)

    def work(studio: Studio) -> None:
        studio.save(seed=1)
        history = History(paths)
        assert history.banner() == ""
        limit_files(100)
        with pytest.raises(HistoryUnavailable, match="Pictures are made and saved all the same"):
            history.set_favourite("", [1], True)
        assert history.banner().startswith("The history cannot be written at present")
        assert len(history.page("").cards) == 1  # reading goes on
        limit_files(resource.RLIM_INFINITY)
        assert history.banner() == ""

    assert in_a_process(work, paths)() == 0


def test_a_warning_of_the_worker_becomes_the_banner_and_goes_when_writing_works(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webui.history.store.PROBE_SECONDS", 1e9)
    monkeypatch.setattr(history, "_probed", time.monotonic())
    history.heard(events.Warning("history", "The history cannot be written at present (full)."))
    assert "full" in history.banner()
    monkeypatch.setattr("webui.history.store.PROBE_SECONDS", 0.0)
    assert history.banner() == ""


def test_F16_a_folder_that_was_deleted_while_running_is_made_again(studio: Studio, history: History) -> None:
    studio.save(seed=1)
    assert len(ids(history)) == 1
    shutil.rmtree(studio.paths.outputs)
    path = studio.save(seed=2)
    assert path.exists()
    assert [card.seed for card in history.page("").cards] == [2]


def kill_before_the_row(studio: Studio) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("webui.history.recorder.rows.insert", die)
        studio.save(seed=2)


def kill_between_row_and_file(studio: Studio) -> None:
    studio.write = die
    studio.save(seed=2)


def kill_between_file_and_row(studio: Studio) -> None:
    studio.write = lambda path, data: (write_new(path, data), die())[0]
    studio.save(seed=2)


def kill_in_the_last_step(studio: Studio) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("webui.history.recorder.rows.set_state", die)
        studio.save(seed=2)


def kill_after_it(studio: Studio) -> None:
    studio.save(seed=2)
    die()


@needs_fork
@pytest.mark.parametrize(
    ("kill", "made"),
    [
        (kill_before_the_row, False),
        (kill_between_row_and_file, False),
        (kill_between_file_and_row, True),
        (kill_in_the_last_step, True),
        (kill_after_it, True),
    ],
)
def test_F19_a_kill_at_any_moment_of_saving_is_put_right_at_the_next_start(
    kill: Callable[[Studio], None], made: bool, paths: Paths, history: History
) -> None:
    def work(studio: Studio) -> None:
        studio.save(seed=1)
        kill(studio)

    assert in_a_process(work, paths)() == -signal.SIGKILL
    saved = {path.name for path in paths.outputs.rglob("*.png")}
    assert saved == {"00000-1.png"} | ({"00001-2.png"} if made else set())
    history.reconcile()
    records = [history.get("", one).record for one in ids(history)]
    assert [record.seed for record in records] == ([2, 1] if made else [1])
    assert all(record.state is State.present and record.environment for record in records)  # nothing was lost
    again = history.reconcile()
    assert (again.finished, again.removed, again.indexed, again.missing) == (0, 0, 0, 0)


@needs_fork
def test_F17_no_file_under_a_final_name_is_half_a_picture_after_a_kill(paths: Paths, history: History) -> None:
    def work(studio: Studio) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("webui.paths.os.fsync", die)  # the bytes are written, the name is not
            studio.save(seed=1)

    assert in_a_process(work, paths)() == -signal.SIGKILL
    assert not list(paths.outputs.rglob("0*.png"))
    assert history.reconcile().removed == 1
    assert ids(history) == []


def test_F22_a_power_cut_after_any_write_leaves_a_history_that_opens_and_agrees_with_the_disk(
    studio: Studio, paths: Paths, tmp_path: Path
) -> None:
    """Crash points: the state of the disk is copied at each step of the save routine and opened as after a restart."""
    copies = 0

    def snapshot() -> None:
        nonlocal copies
        shutil.copytree(paths.outputs, tmp_path / f"cut-{copies}" / "outputs")
        copies += 1

    def write(path: Path, data: bytes) -> None:
        snapshot()  # the row is announced
        write_new(path, data)
        snapshot()  # the file is there, the row does not know it

    studio.write = write
    for seed in range(3):
        studio.save(seed=seed)
        snapshot()
    for number in range(copies):
        found = tmp_path / f"cut-{number}" / "outputs"
        for without_wal in (False, True):
            root = tmp_path / f"cut-{number}-{without_wal}"
            shutil.copytree(found, root / "outputs")
            if without_wal:  # with synchronous=NORMAL the last commits may be gone
                for part in ("history.sqlite-wal", "history.sqlite-shm"):
                    (root / "outputs" / part).unlink(missing_ok=True)
            history = History(Paths.under(root))
            history.reconcile()
            files = {path.name for path in (root / "outputs").rglob("*.png")}
            rows = {history.file("", one).name for one in ids(history)}
            assert rows == files, (number, without_wal)
            history.stop()


def test_F23_a_clock_that_jumps_back_changes_neither_order_nor_names(
    studio: Studio, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    clock = iter([now, now - 3600, 0.0, now - 86_400 * 400, now + 5])
    moment = now

    def tick() -> float:
        return moment

    monkeypatch.setattr(time, "time", tick)
    names = set()
    for seed, now_it_is in enumerate(clock):
        moment = now_it_is
        names.add(studio.save(seed=seed).name)
    assert len(names) == 5
    assert [card.seed for card in history.page("").cards] == [4, 3, 2, 1, 0]
    first = history.page("", limit=2)
    second = history.page("", limit=2, after=first.older)
    assert [card.seed for card in (*first.cards, *second.cards)] == [4, 3, 2, 1]


@needs_fork
def test_F33_two_processes_record_at_once_and_nothing_is_lost_or_doubled(paths: Paths, history: History) -> None:
    def saving(first: int) -> Callable[[Studio], None]:
        def work(studio: Studio) -> None:
            for seed in range(first, first + 40):
                studio.save(seed=seed, path=paths.outputs / f"{seed}.png")

        return work

    running = [in_a_process(saving(first), paths) for first in (1000, 2000)]
    assert [wait() for wait in running] == [0, 0]
    cards = history.page("", limit=500).cards
    assert sorted(card.seed or 0 for card in cards) == [*range(1000, 1040), *range(2000, 2040)]
    assert len({card.cursor for card in cards}) == 80


@needs_fork
def test_F33_two_processes_that_want_the_same_name_make_one_file_and_one_row(paths: Paths, history: History) -> None:
    def saving(seed: int) -> Callable[[Studio], None]:
        def work(studio: Studio) -> None:
            for number in range(30):
                with contextlib.suppress(FileExistsError):
                    studio.save(seed=seed, path=paths.outputs / f"{number}.png")

        return work

    running = [in_a_process(saving(seed), paths) for seed in (1, 2)]
    assert [wait() for wait in running] == [0, 0]
    cards = history.page("", limit=500).cards
    assert len(cards) == 30
    for card in cards:  # each row is of the file that is there
        assert f"Seed: {card.seed}," in history.get("", card.id).record.infotext
        assert f"Seed: {card.seed},".encode() in history.file("", card.id).read_bytes()


def test_the_file_is_opened_by_the_recorder_only_when_it_is_needed(paths: Paths) -> None:
    Recorder(paths).close()
    assert not history_file(paths).exists()


def test_a_defect_of_the_history_never_costs_a_picture(
    studio: Studio, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> int:
        raise sqlite3.IntegrityError("a defect")

    monkeypatch.setattr("webui.history.recorder.rows.insert", broken)
    assert studio.save(seed=1).exists()
    monkeypatch.undo()
    studio.save(seed=2)
    assert sorted(card.seed or 0 for card in history.page("").cards) == [1, 2]


def test_the_params_in_a_row_are_canonical(studio: Studio, history: History) -> None:
    studio.save(seed=3)
    record = history.get("", ids(history)[0]).record
    assert json.dumps(json.loads(record.params), sort_keys=True, separators=(",", ":")) == record.params
