"""The stored queue: order, exactly-once claims, keys, limits, and what it survives."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from webui.errors import AlreadyRunning, InvalidParams, NotFound, QueueFull
from webui.jobs import queue as queue_module
from webui.jobs.database import migrate
from webui.jobs.lock import InstanceLock
from webui.jobs.queue import MIGRATIONS, JobQueue
from webui.jobs.states import JobState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite"


def claim_all(path: Path) -> list[str]:
    """Claim until nothing is left, as one of several that do so at once."""
    queue = JobQueue(path)
    claimed = []
    while (record := queue.claim()) is not None:
        claimed.append(record.id)
    queue.close()
    return claimed


def test_concurrent_claims_in_threads_never_claim_the_same_job_twice(path: Path) -> None:
    queue = JobQueue(path)
    made = [queue.enqueue("{}").id for _ in range(60)]
    claimed: list[str] = []
    threads = [threading.Thread(target=lambda: claimed.extend(claim_all(path))) for _ in range(4)]
    shared = threading.Thread(target=lambda: claimed.extend(r.id for r in iter(queue.claim, None)))
    for thread in (*threads, shared):
        thread.start()
    for thread in (*threads, shared):
        thread.join()
    assert sorted(claimed) == sorted(made)


def test_concurrent_claims_in_processes_never_claim_the_same_job_twice(path: Path) -> None:
    queue = JobQueue(path)
    made = [queue.enqueue("{}").id for _ in range(40)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        claimed = [job for part in pool.map(claim_all, [path, path], chunksize=1) for job in part]
    assert sorted(claimed) == sorted(made)


def test_of_a_claim_and_a_cancel_exactly_one_wins(path: Path) -> None:
    queue = JobQueue(path)
    for _ in range(30):
        job = queue.enqueue("{}").id
        with ThreadPoolExecutor(2) as pool:
            claim = pool.submit(queue.claim)
            cancel = pool.submit(queue.transition, job, JobState.pending, JobState.cancelled)
        assert (claim.result() is not None) != cancel.result()
        assert queue.get(job).state is (JobState.cancelled if cancel.result() else JobState.running)
        queue.recover({})


def test_F40_pending_jobs_survive_a_restart_in_order_and_a_running_one_is_lost(path: Path) -> None:
    queue = JobQueue(path)
    ids = [queue.enqueue(f'{{"n": {n}}}').id for n in range(5)]
    assert queue.claim().id == ids[0]  # type: ignore[union-attr]
    assert queue.reorder(ids[4])
    del queue  # no close: as after a kill

    again = JobQueue(path)
    assert again.recover({"error": {"error": "WorkerDied", "message": "m", "advice": "a"}}) == [ids[0]]
    assert again.get(ids[0]).state is JobState.lost
    assert again.pending_ids() == [ids[4], ids[1], ids[2], ids[3]]
    assert [again.claim().id for _ in range(4)] == [ids[4], ids[1], ids[2], ids[3]]  # type: ignore[union-attr]
    assert again.claim() is None


def test_F43_the_same_key_of_the_same_user_gives_the_same_job(path: Path) -> None:
    queue = JobQueue(path)
    first = queue.enqueue("{}", user="ann", key="k")
    assert queue.enqueue("{}", user="ann", key="k").id == first.id
    assert queue.enqueue("{}", user="bob", key="k").id != first.id
    assert queue.enqueue("{}", user="ann").id != queue.enqueue("{}", user="ann").id
    made: set[str] = set()
    threads = [threading.Thread(target=lambda: made.add(queue.enqueue("{}", key="click").id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_full_queue_refuses_with_429_and_takes_jobs_again_when_one_has_left(path: Path) -> None:
    queue = JobQueue(path)
    for _ in range(3):
        queue.enqueue("{}", max_pending=3)
    with pytest.raises(QueueFull) as refusal:
        queue.enqueue("{}", max_pending=3)
    assert refusal.value.status == 429
    assert refusal.value.advice
    queue.claim()
    queue.enqueue("{}", max_pending=3)


@pytest.mark.parametrize("bad", ["x" * 201, "line\nbreak", "\x1b[31m"])
def test_names_out_of_bounds_are_refused(path: Path, bad: str) -> None:
    queue = JobQueue(path)
    with pytest.raises(InvalidParams):
        queue.enqueue("{}", user=bad)
    with pytest.raises(InvalidParams):
        queue.enqueue("{}", key=bad)


def test_positions_count_the_jobs_before_and_follow_moves(path: Path) -> None:
    queue = JobQueue(path)
    a, b, c = (queue.enqueue("{}").id for _ in range(3))
    before = queue.order_rev
    assert queue.reorder(c, 1)
    assert queue.order_rev > before
    assert [queue.position(job) for job in (a, c, b)] == [0, 1, 2]
    queue.claim()
    assert [queue.position(job) for job in (a, c, b)] == [None, 0, 1]
    assert not queue.reorder(a)
    assert not queue.reorder("unknown")
    last = queue.enqueue("{}").id
    assert queue.reorder(last, 10_000)
    assert queue.pending_ids() == [c, b, last]


def test_a_finished_job_keeps_its_result_and_pictures(path: Path) -> None:
    queue = JobQueue(path)
    job = queue.enqueue('{"steps": 3}').id
    queue.claim()
    queue.add_image(job, {"index": 0, "infotext": "lone \ud83d surrogate"})
    queue.add_image(job, {"index": 1})
    assert queue.transition(job, JobState.running, JobState.done, result={"seconds": {"total": 1.5}})
    queue.close()
    queue = JobQueue(path)
    record = queue.get(job)
    assert record.result == {"seconds": {"total": 1.5}}
    assert [image["index"] for image in record.images] == [0, 1]
    for pictures in range(4):
        [listed] = queue.list(pictures=pictures)
        assert listed.images == record.images[:pictures]
        assert listed.image_count == 2


def test_old_finished_jobs_are_pruned_and_waiting_ones_never(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "KEEP_FINISHED", 10)
    queue = JobQueue(path)
    waiting = queue.enqueue("{}").id
    ended = [queue.enqueue("{}").id for _ in range(30)]
    for job in ended:
        queue.transition(job, JobState.pending, JobState.cancelled)
    queue.close()
    queue = JobQueue(path)
    assert [r.id for r in queue.list(100)] == [*ended[:-11:-1], waiting]
    with pytest.raises(NotFound):
        queue.get(ended[0])


def test_listing_gives_the_newest_first_within_the_limit(path: Path) -> None:
    queue = JobQueue(path)
    ids = [queue.enqueue("{}", user="ann" if n % 2 else "bob").id for n in range(6)]
    assert [r.id for r in queue.list(2)] == ids[:-3:-1]
    assert [r.id for r in queue.list(user="ann")] == [ids[5], ids[3], ids[1]]
    assert queue.list(-1) == []


@pytest.mark.parametrize("damage", ["garbage", "middle", "truncated"])
def test_F21_a_damaged_file_is_set_aside_and_the_queue_works(path: Path, damage: str) -> None:
    queue = JobQueue(path)
    for n in range(300):
        queue.enqueue(f'{{"prompt": "{"x" * 200}{n}"}}')
    queue.close()
    data = bytearray(path.read_bytes())
    if damage == "garbage":
        data = bytearray(b"\x00not a database" * 1000)
    elif damage == "middle":
        data[4096:12288] = b"\xa5" * 8192
    else:
        del data[len(data) // 2 :]
    path.write_bytes(data)

    told: list[str] = []
    queue = JobQueue(path, tell=told.append)
    assert len(told) == 1
    assert "damaged" in told[0]
    (aside,) = (p for p in path.parent.glob("queue.sqlite.corrupt-*") if not p.name.endswith(("-wal", "-shm")))
    assert aside.read_bytes() == bytes(data)
    queue.enqueue("{}")
    assert queue.claim() is not None
    assert queue.durable


def test_F21_a_zero_length_file_is_a_new_one(path: Path) -> None:
    path.touch()
    told: list[str] = []
    JobQueue(path, tell=told.append).enqueue("{}")
    assert told == []


def test_F21_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.execute("CREATE TABLE precious (x)")
    db.commit()
    db.close()
    before = path.read_bytes()
    told: list[str] = []
    queue = JobQueue(path, tell=told.append)
    queue.enqueue("{}")
    assert queue.claim() is not None
    assert not queue.durable
    assert "newer version" in told[0]
    queue.close()
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
def test_a_folder_that_is_deleted_while_it_is_in_use_is_written_anew(tmp_path: Path) -> None:
    folder, told = tmp_path / "cache", list[str]()
    path = folder / "queue.sqlite"
    lock = InstanceLock(folder / "instance.lock")
    queue = JobQueue(path, tell=told.append)
    first = queue.enqueue("{}").id
    shutil.rmtree(folder)
    second = queue.enqueue("{}").id
    lock.look()
    with pytest.raises(AlreadyRunning):
        InstanceLock(folder / "instance.lock")
    assert queue.durable
    assert len(told) == 1
    assert set(queue.pending_ids()) == {first, second}
    queue.close()
    lock.release()
    assert set(JobQueue(path).pending_ids()) == {first, second}


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
def test_a_folder_that_is_deleted_and_cannot_be_made_again_leaves_the_queue_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webui.jobs.database.RETRY_DISK_AFTER", 0.0)
    folder, told = tmp_path / "cache", list[str]()
    path = folder / "queue.sqlite"
    queue = JobQueue(path, tell=told.append)
    first = queue.enqueue("{}").id
    shutil.rmtree(folder)
    folder.write_text("a file in its place")
    second = queue.enqueue("{}").id
    assert not queue.durable
    assert set(queue.pending_ids()) == {first, second}
    folder.unlink()
    third = queue.enqueue("{}").id
    assert queue.durable
    queue.close()
    assert set(JobQueue(path).pending_ids()) == {first, second, third}


def test_F21_a_file_that_another_program_locks_for_good_does_not_stop_the_work(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webui.jobs.database.BUSY_TIMEOUT", 0.1)
    monkeypatch.setattr("webui.jobs.database.RETRY_DISK_AFTER", 0.0)
    told: list[str] = []
    queue = JobQueue(path, tell=told.append)
    first = queue.enqueue("{}").id
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    second = queue.enqueue("{}").id
    assert not queue.durable
    assert queue.claim().id == first  # type: ignore[union-attr]
    other.execute("ROLLBACK")
    other.close()
    assert queue.claim().id == second  # type: ignore[union-attr]
    assert queue.durable
    assert len(told) == 2
    queue.close()
    assert JobQueue(path).get(second).state is JobState.running


def test_a_file_of_the_first_version_is_migrated_and_a_copy_of_it_kept(path: Path) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    migrate(db, MIGRATIONS[:1])
    for number, params in enumerate(('{"checkpoint": "a.safetensors"}', "{", '{"checkpoint": "b.safetensors"}')):
        db.execute(
            "INSERT INTO jobs (id, user, state, rank, params, rev, created) VALUES (?, '', 'pending', ?, ?, 1, 1.0)",
            (f"job{number}", number, params),
        )
    db.close()
    queue = JobQueue(path)
    assert queue.pending_ids() == ["job0", "job1", "job2"]
    queue.close()
    assert path.with_name("queue.sqlite.v1.bak").exists()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert [row[0] for row in db.execute("SELECT model FROM jobs ORDER BY number")] == [
        "a.safetensors",
        "",
        "b.safetensors",
    ]


def wants(checkpoint: str) -> str:
    return json.dumps({"checkpoint": checkpoint})


def test_users_take_turns_and_each_sees_the_place_that_it_will_have(path: Path) -> None:
    queue = JobQueue(path)
    many = [queue.enqueue(wants("a"), user="ann").id for _ in range(4)]
    one = queue.enqueue(wants("a"), user="bob").id
    assert queue.position(one) == 1
    assert [queue.position(job) for job in many] == [0, 2, 3, 4]
    assert queue.pending_ids("ann") == many
    assert [queue.claim().id for _ in range(5)] == [many[0], one, *many[1:]]  # type: ignore[union-attr]


def test_whose_turn_it_is_survives_a_restart(path: Path) -> None:
    queue = JobQueue(path)
    ann = [queue.enqueue(wants("a"), user="ann").id for _ in range(3)]
    assert queue.claim().id == ann[0]  # type: ignore[union-attr]
    bob = queue.enqueue(wants("a"), user="bob").id
    del queue
    again = JobQueue(path)
    again.recover({})
    assert again.claim().id == bob  # type: ignore[union-attr]


def test_jobs_of_one_checkpoint_are_grouped_and_the_overtaken_one_has_its_turn(path: Path) -> None:
    queue = JobQueue(path)
    first = queue.enqueue(wants("a")).id
    other = queue.enqueue(wants("b")).id
    rest = [queue.enqueue(wants("a")).id for _ in range(6)]
    order = [first, *rest[:4], other, *rest[4:]]
    assert queue.pending_ids() == order
    assert [queue.claim().id for _ in order] == order  # type: ignore[union-attr]


def test_what_is_moved_stays_where_it_was_put_whatever_comes_later(path: Path) -> None:
    queue = JobQueue(path)
    queue.enqueue(wants("a"))
    queue.claim()
    a, b, c = (queue.enqueue(wants(name)).id for name in "aba")
    assert queue.pending_ids() == [a, c, b]
    assert queue.reorder(b, 0)
    assert queue.pending_ids() == [b, a, c]
    queue.enqueue(wants("a"), user="bob")
    assert queue.pending_ids()[0] == b


def test_a_user_moves_jobs_among_their_own_alone(path: Path) -> None:
    queue = JobQueue(path)
    ann = [queue.enqueue(wants("a"), user="ann").id for _ in range(3)]
    bob = [queue.enqueue(wants("a"), user="bob").id for _ in range(2)]
    assert queue.reorder(ann[2], 0, user="ann")
    assert queue.pending_ids("ann") == [ann[2], ann[0], ann[1]]
    assert queue.pending_ids() == [ann[2], bob[0], ann[0], bob[1], ann[1]]
    assert not queue.reorder(bob[0], 0, user="ann")


def test_one_user_has_a_limit_of_their_own(path: Path) -> None:
    queue = JobQueue(path)
    for _ in range(2):
        queue.enqueue("{}", user="ann", max_own=2)
    with pytest.raises(QueueFull, match="of your jobs"):
        queue.enqueue("{}", user="ann", max_own=2)
    queue.enqueue("{}", user="bob", max_own=2)
    queue.claim()
    queue.enqueue("{}", user="ann", max_own=2)


def test_a_full_queue_says_when_there_is_room_by_the_pace_of_the_latest_jobs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(queue_module.time, "time", lambda: now[0])
    queue = JobQueue(path)

    def refused(user: str, **limits: int) -> int:
        with pytest.raises(QueueFull) as refusal:
            queue.enqueue("{}", user=user, **limits)
        return refusal.value.retry_after

    for user in ("ann", "ann", "ann", "bob", "bob"):
        queue.enqueue("{}", user=user)
    assert refused("ann", max_pending=5) == 1, "nothing runs: the next one begins at once"
    for seconds in (30.0, 50.0):
        job = queue.claim()
        assert job is not None
        now[0] += seconds
        queue.transition(job.id, JobState.running, JobState.done)
    running = queue.claim()
    assert running is not None
    now[0] += 10.0
    assert refused("cid", max_pending=2) == 30, "forty seconds is the mean, ten of them are over"
    waiting = [queue.get(job).user for job in queue.pending_ids()]
    assert waiting == ["bob", "ann"]
    assert refused("bob", max_own=1) == 30, "theirs is the next"
    assert refused("ann", max_own=1) == 70, "one more comes before theirs"
    now[0] += 1000.0
    assert refused("cid", max_pending=2) == 1, "it takes longer than was thought"
