"""The two ways in which a sampler adds noise: churn before a step, ancestral noise after it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from webui.sampling.contract import Noise


@dataclass(frozen=True, slots=True)
class Churn:
    """Stochastic sampler of Karras et al. 2022, algorithm 2: raise the noise level a little before each step.

    `s_churn` is the overall amount, spread over the steps whose sigma lies in [s_tmin, s_tmax] (0 = no upper bound);
    `s_noise` scales the noise that is put in.
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = 0.0
    s_noise: float = 1.0

    def gamma(self, sigma: float, steps: int) -> float:
        """How much the level rises, as a share of it."""
        if self.s_tmin <= sigma <= (self.s_tmax or math.inf):
            return min(self.s_churn / steps, math.sqrt(2) - 1)
        return 0.0

    def raised(self, x: Tensor, sigma: float, sigma_next: float, steps: int, noise: Noise) -> tuple[Tensor, float]:
        """(x hat, sigma hat); with churn every step draws noise, as in k-diffusion, also where the level stays."""
        if self.s_churn <= 0:
            return x, sigma
        drawn = noise(sigma, sigma_next)  # or the range would decide which noise the steps inside of it get
        gamma = self.gamma(sigma, steps)
        if gamma == 0:
            return x, sigma
        sigma_hat = sigma * (1 + gamma)
        x_hat = x + drawn * (self.s_noise * math.sqrt(sigma_hat**2 - sigma**2))
        return x_hat, sigma_hat


def ancestral_step(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up): go down to the first without noise, then add noise of the second, to be at `sigma_next`.

    eta 0 is the ODE, eta 1 the posterior of the forward process (Song et al. 2021, DDIM, equation 16, in sigmas).
    """
    if eta == 0 or sigma_next == 0:
        return sigma_next, 0.0
    sigma_up = min(sigma_next, eta * sigma_next * math.sqrt(sigma**2 - sigma_next**2) / sigma)
    return math.sqrt(sigma_next**2 - sigma_up**2), sigma_up
