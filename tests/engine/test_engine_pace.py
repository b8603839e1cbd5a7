"""The processor goes a few steps ahead of its GPU, and no further."""

from __future__ import annotations

import torch

from webui.engine.pace import Pace, Wait, pace_of


def test_it_waits_for_the_step_before_the_last_two() -> None:
    marks, waited = 0, list[int]()

    def mark() -> Wait:
        nonlocal marks
        marks += 1
        number = marks
        return lambda: waited.append(number)

    pace = Pace(mark, ahead=2)
    pace.step()
    pace.step()
    assert waited == []
    pace.step()
    assert waited == [1]
    pace.step()
    assert (marks, waited) == (4, [1, 2])


def test_a_cpu_sets_no_marks() -> None:
    pace = pace_of(torch.device("cpu"))
    for _ in range(5):
        pace.step()
    assert not pace._waits
