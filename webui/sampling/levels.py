"""The noise levels a model was trained at, and the way between them and its timesteps.

A table is the ascending list of trained sigmas, one a timestep: `table[t]`, float64, shape (T,). Between two timesteps
sigma is interpolated along its logarithm, as k-diffusion does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from webui.sampling.transfer import to_device

TERMINAL_ALPHAS_CUMPROD = 4.8973451890853435e-08  # stands for 0, which would make the last sigma infinite


def sigma_table(
    *,
    linear_start: float = 0.00085,
    linear_end: float = 0.012,
    timesteps: int = 1000,
    zero_terminal_snr: bool = False,
) -> Tensor:
    """The trained sigmas of a latent diffusion model, (timesteps,) float64, ascending.

    The betas are linear in their square root (Rombach et al. 2022), sigma^2 = (1 - alphas_cumprod) / alphas_cumprod.
    The defaults are those of SD1, SD2 and SDXL: 0.0292 ... 14.6146.
    """
    betas = torch.linspace(linear_start**0.5, linear_end**0.5, timesteps, dtype=torch.float64) ** 2
    alphas_cumprod = torch.cumprod(1 - betas, 0)
    table = ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5
    return rescale_zero_terminal_snr(table) if zero_terminal_snr else table


def rescale_zero_terminal_snr(table: Tensor) -> Tensor:
    """The table shifted and scaled so that its last timestep is pure noise, the first unchanged.

    Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1.
    """
    sqrt_alphas = (1 + table.double() ** 2) ** -0.5
    first, last = sqrt_alphas[0], sqrt_alphas[-1]
    alphas_cumprod = ((sqrt_alphas - last) * first / (first - last)) ** 2
    alphas_cumprod[-1] = TERMINAL_ALPHAS_CUMPROD
    return ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5


def flow_sigma_table(*, shift: float = 3.0, timesteps: int = 1000) -> Tensor:
    """The noise levels of a flow-matching model, (timesteps,) float64, ascending to 1.

    sigma = shift t / (1 + (shift - 1) t) for t = 1/T ... 1 (Esser et al. 2024, section 5.3.2; SD3 has shift 3).
    """
    t = torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps
    return shift * t / (1 + (shift - 1) * t)


def sigma_to_t(sigma: Tensor, log_table: Tensor) -> Tensor:
    """The timestep, between two trained ones as a rule, of each sigma; shape and dtype of `sigma`.

    `log_table` is `table.log()` on the same device. Beyond the table the nearest end is taken.
    """
    log_sigma = sigma.log()
    low = (torch.searchsorted(log_table, log_sigma, right=True) - 1).clamp(0, len(log_table) - 2)
    start, end = log_table[low], log_table[low + 1]
    return low + ((log_sigma - start) / (end - start)).clamp(0, 1)


class TimestepLookup:
    """`sigma_to_t` for a loop: the lines between two timesteps are worked out once, and kept where they are needed."""

    def __init__(self, table: Tensor) -> None:
        log_table = table.double().log()
        slope = 1 / log_table.diff()
        start = torch.arange(len(log_table) - 1, dtype=torch.float64, device=slope.device)
        self._last = len(log_table) - 1
        self._inner = log_table[1:-1].contiguous()
        self._lines = torch.stack((start - slope * log_table[:-1], slope), dim=1)

    def __call__(self, sigma: Tensor) -> Tensor:
        """The timestep of each sigma (B,), float64 where the device has it (MPS has not)."""
        dtype = torch.float32 if sigma.device.type == "mps" else torch.float64
        if self._lines.device != sigma.device or self._lines.dtype != dtype:
            self._lines = to_device(self._lines, sigma.device, dtype)
            self._inner = to_device(self._inner, sigma.device, dtype)
        log_sigma = sigma.to(dtype).log()
        line = self._lines[torch.searchsorted(self._inner, log_sigma, right=True)]
        return torch.addcmul(line[:, 0], line[:, 1], log_sigma).clamp(0, self._last)


def t_to_sigma(t: Tensor, log_table: Tensor) -> Tensor:
    """The inverse of `sigma_to_t`."""
    low = t.floor().long().clamp(0, len(log_table) - 2)
    return torch.lerp(log_table[low], log_table[low + 1], t - low).exp()
