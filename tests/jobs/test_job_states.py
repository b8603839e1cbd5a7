"""Whatever is asked of it, a job only takes the steps of the table, and one that has ended stays as it ended."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webui.jobs.queue import JobQueue
from webui.jobs.states import TRANSITIONS, JobState, require_transition

STATES = st.sampled_from(list(JobState))


def test_every_state_can_be_reached_and_every_one_but_pending_and_running_is_an_end() -> None:
    reached, edge = {JobState.pending}, [JobState.pending]
    while edge:
        for state in TRANSITIONS[edge.pop()] - reached:
            reached.add(state)
            edge.append(state)
    assert reached == set(JobState)
    assert {s for s in JobState if not s.over} == {JobState.pending, JobState.running}


@given(old=STATES, new=STATES)
def test_a_step_outside_the_table_is_a_defect_and_raises(old: JobState, new: JobState) -> None:
    if new in TRANSITIONS[old]:
        require_transition(old, new)
    else:
        with pytest.raises(ValueError, match=new.value):
            require_transition(old, new)


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.tuples(STATES, STATES), max_size=12))
def test_a_stored_job_follows_the_table_whatever_is_tried(steps: list[tuple[JobState, JobState]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        queue = JobQueue(Path(folder) / "q.sqlite")
        job, state, rev = queue.enqueue("{}").id, JobState.pending, 0
        for old, new in steps:
            if new not in TRANSITIONS[old]:
                continue
            assert queue.transition(job, old, new) == (old is state)
            state = new if old is state else state
            record = queue.get(job)
            assert record.state is state
            assert record.rev >= rev
            assert (record.finished is not None) == state.over
            rev = record.rev
        queue.close()
