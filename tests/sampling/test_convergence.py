"""Every method's error falls with the number of steps at the method's order, on data whose denoiser is known exactly.

The measurement is that of benchmarks/convergence.py, on fewer steps.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from benchmarks.convergence import METHODS, Method, Problem, adaptive_rows, error, make_problem, observed_order
from webui.sampling import SAMPLERS

STEPS = (80, 161, 254)
FASTER_THAN_PROMISED = {"UniPC", "DPM++ 3M SDE"}  # at these steps the next order's error is still the larger one


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem()


def test_every_method_that_follows_the_ode_is_measured() -> None:
    others = {"LCM", "DDPM", "Restart", "DPM adaptive"}  # the first three draw noise, the last chooses its own steps
    assert {method.name for method in METHODS} | others == set(SAMPLERS)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_error_falls_at_the_methods_order(method: Method, problem: Problem) -> None:
    errors = [error(method, steps, problem) for steps in STEPS]
    order = observed_order(errors, STEPS)
    assert order > method.order - 0.3
    if method.name not in FASTER_THAN_PROMISED:
        assert order < method.order + 0.4


def test_the_error_of_dpm_adaptive_falls_with_its_tolerance(problem: Problem) -> None:
    rows = adaptive_rows(problem)
    for (rtol, calls, wrong), (tighter, more, less) in pairwise(rows):
        assert tighter < rtol
        assert more > calls
        assert less < wrong / 2
