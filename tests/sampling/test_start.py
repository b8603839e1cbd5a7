"""The latents that a sampler starts from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from webui.sampling import start_latents


@pytest.mark.parametrize(
    ("sampler", "prediction", "sgm", "scale"),
    [
        ("Euler", "eps", False, 3.0),
        ("Euler", "v", True, math.sqrt(10)),
        ("DDIM", "eps", False, math.sqrt(10)),
        ("PLMS", "v", False, math.sqrt(10)),
        ("Euler (flow)", "flow", False, 3.0),
        ("Euler (flow)", "flow", True, 3.0),
    ],
)
def test_start_noise_is_scaled_for_the_sampler(
    sampler: str, prediction: str, sgm: bool, scale: float, x_unit: Tensor
) -> None:
    x = start_latents(x_unit, [3.0, 0.0], sampler, prediction=prediction, sgm_noise_multiplier=sgm)
    torch.testing.assert_close(x, x_unit * scale)


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_a_picture_to_start_from_gets_noise_of_the_first_level(sampler: str, x_unit: Tensor) -> None:
    picture = torch.full_like(x_unit, 2.0)
    x = start_latents(x_unit, [3.0, 0.0], sampler, prediction="eps", latents=picture)
    torch.testing.assert_close(x, picture + 3 * x_unit)
    mixed = start_latents(x_unit, [0.25, 0.0], "Euler (flow)", prediction="flow", latents=picture)
    torch.testing.assert_close(mixed, 0.75 * picture + 0.25 * x_unit)
