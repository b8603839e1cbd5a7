"""In which order waiting jobs run: one pure function over plain data.

1. What an administrator put in a place keeps it (`placed`).
2. Users take turns: next is whoever was served longest ago, with the first of their own jobs. A user who has nothing
   waiting loses nothing and saves nothing up.
3. A change of checkpoint costs seconds, so a job whose checkpoint is in memory may run in front of the one whose turn
   it is, of the same user first. It is counted, and after `MAX_OVERTAKEN` times the job has its turn whatever it needs:
   so nobody starves, and two users with two checkpoints change models once in five jobs, not with each.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MAX_OVERTAKEN = 4  # jobs that may run in front of one whose turn it is


@dataclass(frozen=True, slots=True)
class Waiting:
    """A waiting job. `rank` orders the jobs of one user, and placed jobs among each other; no two are equal.

    `model` is the checkpoint it needs, "" for a job that needs none (extras): for that one nothing has to be changed.
    """

    id: str
    user: str
    model: str
    rank: tuple[int, int]
    overtaken: int = 0
    placed: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """Which job runs next, and which one, if any, was due and is overtaken by it."""

    job: Waiting
    overtakes: Waiting | None = None


def turns(
    waiting: Sequence[Waiting], served: Mapping[str, int], loaded: Sequence[str], resident: int = 1
) -> Iterator[Turn]:
    """The order in which `waiting` will run if nothing else comes in.

    `served`: for each user the number of their latest turn, larger is later; who is not in it was never served.
    `loaded`: the checkpoints of the latest jobs, the newest first; `resident` of them are held in memory.
    O(n log n + n x users); the first turn alone costs O(n log n).
    """
    placed = sorted((job for job in waiting if job.placed), key=lambda job: job.rank)
    memory = list(dict.fromkeys(filter(None, loaded)))[:resident]
    latest = max(served.values(), default=0)
    last_turn = dict(served)

    def run(turn: Turn) -> Turn:
        nonlocal latest
        latest += 1
        last_turn[turn.job.user] = latest
        if model := turn.job.model:
            memory[:] = [model, *(other for other in memory if other != model)][:resident]
        return turn

    for job in placed:
        yield run(Turn(job))

    lines = _Lines([job for job in waiting if not job.placed])
    overtaken = {job.id: job.overtaken for job in waiting}
    heap = [(last_turn.get(user, 0), lines.head(user).rank, user) for user in lines.users]
    heapq.heapify(heap)
    while heap:
        _, _, user = heap[0]
        due = lines.head(user)
        chosen = due
        if due.model and due.model not in memory and overtaken[due.id] < MAX_OVERTAKEN:
            chosen = lines.first_with(memory, user, last_turn) or due
        if chosen is not due:
            overtaken[due.id] += 1
        yield run(Turn(chosen, None if chosen is due else due))
        lines.remove(chosen)
        heap = [entry for entry in heap if entry[2] != chosen.user]
        if lines.has(chosen.user):
            heap.append((last_turn[chosen.user], lines.head(chosen.user).rank, chosen.user))
        heapq.heapify(heap)


class _Lines:
    """Everybody's jobs in their own order, also by checkpoint."""

    def __init__(self, jobs: Sequence[Waiting]) -> None:
        self._gone: set[str] = set()
        self._by_user: dict[str, deque[Waiting]] = {}
        self._by_model: dict[str, dict[str, deque[Waiting]]] = {}
        for job in sorted(jobs, key=lambda job: job.rank):
            self._by_user.setdefault(job.user, deque()).append(job)
            self._by_model.setdefault(job.model, {}).setdefault(job.user, deque()).append(job)

    @property
    def users(self) -> list[str]:
        return list(self._by_user)

    def has(self, user: str) -> bool:
        return bool(self._clean(self._by_user.get(user)))

    def head(self, user: str) -> Waiting:
        line = self._by_user[user]
        self._clean(line)
        return line[0]

    def first_with(self, models: Sequence[str], user: str, last_turn: Mapping[str, int]) -> Waiting | None:
        """The next job with one of these checkpoints: of `user`, else of whoever was served longest ago."""
        for model in models:
            lines = self._by_model.get(model, {})
            for other in [name for name, line in lines.items() if not self._clean(line)]:
                del lines[other]
            heads = [line[0] for line in lines.values()]
            if heads:
                return min(heads, key=lambda job: (job.user != user, last_turn.get(job.user, 0), job.rank))
        return None

    def remove(self, job: Waiting) -> None:
        self._gone.add(job.id)

    def _clean(self, line: deque[Waiting] | None) -> deque[Waiting] | None:
        while line and line[0].id in self._gone:
            line.popleft()
        return line
