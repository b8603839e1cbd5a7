"""The states of a job and the one table of changes between them."""

from __future__ import annotations

from enum import Enum


class JobState(str, Enum):
    """Where a job stands. The value is its name in the database and on the wire."""

    pending = "pending"  # waits in the queue
    running = "running"  # claimed by the worker
    done = "done"
    interrupted = "interrupted"  # ended early on request; what was finished is kept
    failed = "failed"
    cancelled = "cancelled"  # taken out of the queue before it ran
    lost = "lost"  # the program ended while it ran

    @property
    def over(self) -> bool:
        """Whether the job has ended: nothing leads out of such a state."""
        return not TRANSITIONS[self]


# running -> pending: the device was lost under the job through no fault of its own; it runs once more.
# pending -> failed: its stored params cannot be read by this version.
TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.pending: frozenset({JobState.running, JobState.cancelled, JobState.failed}),
    JobState.running: frozenset(
        {JobState.done, JobState.interrupted, JobState.failed, JobState.lost, JobState.pending},
    ),
    JobState.done: frozenset(),
    JobState.interrupted: frozenset(),
    JobState.failed: frozenset(),
    JobState.cancelled: frozenset(),
    JobState.lost: frozenset(),
}

OVER = tuple(state for state in JobState if state.over)


def require_transition(old: JobState, new: JobState) -> None:
    """Raises ValueError for a change that the table does not have: such a call is a defect, not a race."""
    if new not in TRANSITIONS[old]:
        raise ValueError(f"a {old.value} job cannot become {new.value}")
