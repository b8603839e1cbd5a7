"""The order of the queue, as pure data: fair between users, few changes of checkpoint, nobody starves."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from webui.jobs.policy import MAX_OVERTAKEN, Waiting, turns


def jobs(*described: str) -> list[Waiting]:
    """Waiting jobs in the order of their coming, from words such as "ann:a": who, and which checkpoint."""
    split = [word.split(":") for word in described]
    return [Waiting(f"{user}{n}", user, model, (n, n)) for n, (user, model) in enumerate(split)]


def order(
    waiting: list[Waiting], served: dict[str, int] | None = None, loaded: tuple[str, ...] = (), resident: int = 1
) -> list[str]:
    return [f"{turn.job.user}:{turn.job.model}" for turn in turns(waiting, served or {}, loaded, resident)]


def switches(models: list[str]) -> int:
    return sum(a != b for a, b in itertools.pairwise(models))


def test_whoever_was_served_longest_ago_is_next() -> None:
    waiting = jobs("ann:m", "ann:m", "ann:m", "bob:m", "cid:m")
    assert order(waiting) == ["ann:m", "bob:m", "cid:m", "ann:m", "ann:m"]
    assert order(waiting, {"ann": 7, "bob": 9, "cid": 3}) == ["cid:m", "ann:m", "bob:m", "ann:m", "ann:m"]


def test_an_absent_user_saves_nothing_up() -> None:
    waiting = jobs(*["ann:m"] * 3, *["bob:m"] * 3)
    assert order(waiting, {"ann": 1000, "bob": 1}) == ["bob:m", "ann:m"] * 3


def test_one_users_jobs_keep_their_order_within_a_checkpoint() -> None:
    waiting = jobs("ann:b", "ann:a", "ann:b", "ann:a")
    assert [turn.job.id for turn in turns(waiting, {}, ["a"])] == ["ann1", "ann3", "ann0", "ann2"]


def test_two_users_with_two_checkpoints_switch_once_in_five_jobs() -> None:
    waiting = jobs(*["ann:a"] * 20, *["bob:b"] * 20)
    found = order(waiting)
    assert switches(found) == 7
    served = Counter(entry.partition(":")[0] for entry in found[:20])
    assert served["ann"] == served["bob"] == 10


def test_what_stays_in_memory_is_no_switch() -> None:
    waiting = jobs("ann:a", "bob:b", "ann:a", "bob:b")
    assert order(waiting, loaded=("b", "a"), resident=2) == ["ann:a", "bob:b", "ann:a", "bob:b"]
    assert order(waiting, loaded=("b", "a"), resident=1)[:2] == ["bob:b", "bob:b"]


def test_a_job_without_a_checkpoint_waits_for_none_and_drives_none_out() -> None:
    """Extras enlarge a picture: the checkpoint in memory stays there."""
    assert order(jobs("ann:", "bob:a"), loaded=("a",)) == ["ann:", "bob:a"]
    waiting = jobs("ann:", "bob:b", "cid:a")
    assert order(waiting, loaded=("a",)) == ["ann:", "cid:a", "bob:b"]
    assert order(jobs("bob:b", "cid:a"), loaded=("", "a")) == ["cid:a", "bob:b"]


def test_placed_jobs_come_first_in_the_order_of_their_places() -> None:
    a, b, c = jobs("ann:a", "bob:b", "cid:c")
    placed = [Waiting(b.id, b.user, b.model, (9, 1), placed=True), Waiting(c.id, c.user, c.model, (8, 2), placed=True)]
    assert order([a, *placed], loaded=("a",)) == ["cid:c", "bob:b", "ann:a"]


described = st.lists(st.tuples(st.sampled_from("uvwx"), st.sampled_from("abc")), max_size=40)


@given(described, st.dictionaries(st.sampled_from("uvwx"), st.integers(1, 50)), st.integers(1, 3))
def test_every_job_runs_once_and_none_is_overtaken_more_often_than_allowed(
    wanted: list[tuple[str, str]], served: dict[str, int], resident: int
) -> None:
    waiting = [Waiting(str(n), user, model, (n, n)) for n, (user, model) in enumerate(wanted)]
    found = list(turns(waiting, served, ["a"], resident))
    assert sorted(int(turn.job.id) for turn in found) == list(range(len(waiting)))
    overtaken = Counter(turn.overtakes.id for turn in found if turn.overtakes)
    assert max(overtaken.values(), default=0) <= MAX_OVERTAKEN


@given(described, st.integers(1, 3))
def test_claims_one_by_one_follow_the_order_that_was_shown(wanted: list[tuple[str, str]], resident: int) -> None:
    waiting = [Waiting(str(n), user, model, (n, n)) for n, (user, model) in enumerate(wanted)]
    shown = [turn.job.id for turn in turns(waiting, {}, [], resident)]
    left = {job.id: job for job in waiting}
    served: dict[str, int] = {}
    loaded: list[str] = []
    ran: list[Any] = []
    while left:
        turn = next(turns(list(left.values()), served, loaded, resident))
        job = left.pop(turn.job.id)
        if turn.overtakes is not None:
            due = left[turn.overtakes.id]
            left[due.id] = Waiting(due.id, due.user, due.model, due.rank, due.overtaken + 1)
        served[job.user] = len(ran) + 1
        loaded.insert(0, job.model)
        ran.append(job.id)
    assert ran == shown


def test_a_long_queue_is_ordered_whole() -> None:
    waiting = [Waiting(str(n), f"user{n % 20}", f"model{n % 7}", (n, n)) for n in range(5000)]
    assert len(list(turns(waiting, {}, []))) == 5000
