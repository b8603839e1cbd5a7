"""What the sampling tests share: the trained sigmas, a known denoiser, noise that can be counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from webui.sampling import GaussianMixture, sigma_table

REFERENCE = Path(__file__).resolve().parent.parent / "reference"


class CountingNoise:
    """Reproducible noise that knows how often it was asked, and for which intervals."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.intervals: list[tuple[float, float]] = []

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        self.intervals.append((sigma, sigma_next))
        generator = torch.Generator().manual_seed(len(self.intervals))
        return torch.randn(self.like.shape, generator=generator, dtype=self.like.dtype)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """The tensors here are tiny: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def new_noise(x_unit: Tensor) -> Callable[[], CountingNoise]:
    """`new_noise()` starts the same noise from its beginning, shaped like `x_unit`."""
    return lambda: CountingNoise(x_unit)


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Any]:
    """`reference("schedules")` reads tests/reference/schedules.json."""
    return lambda name: json.loads((REFERENCE / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def table() -> Tensor:
    return sigma_table()


@pytest.fixture(scope="session")
def mixture() -> GaussianMixture:
    """Five Gaussians in 64 dimensions, as in the reference numbers, but with centers of our own."""
    generator = torch.Generator().manual_seed(0)
    return GaussianMixture(torch.randn(5, 64, generator=generator, dtype=torch.float64), 0.3)


@pytest.fixture(scope="session")
def x_unit() -> Tensor:
    """Start noise (3, 4, 4, 4), float64."""
    return torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
