"""Muon: momentum whose update matrix is made orthogonal before it is applied.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the scale that makes its learning
rates those of AdamW is from Liu et al. 2025, "Muon is Scalable for LLM Training", equation 4.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from training.precision import format_of

QUINTIC = (3.4445, -4.7750, 2.0315)  # the coefficients of the published iteration


def orthogonalised(matrices: Tensor, steps: int = 4) -> Tensor:
    """Newton-Schulz: (B, m, n) matrices with all singular values pushed to about 1, in `format_of` their device."""
    a, b, c = QUINTIC
    x = matrices.to(format_of(matrices.device.type))
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.mT if tall else x).float()
    return result


class Muon(torch.optim.Optimizer):
    """For weights of two or more dimensions; a convolution counts as its (out, in * k * k) matrix."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 2e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        steps: int = 4,
    ) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One update. Matrices of one shape are made orthogonal together."""
        for group in self.param_groups:
            same: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight.grad)
                momentum = state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(momentum, group["momentum"]).reshape(weight.shape[0], -1)
                same[tuple(update.shape)].append((weight, update))
            for shape, pairs in same.items():
                updates = orthogonalised(torch.stack([update for _, update in pairs]), group["steps"])
                scale = group["lr"] * 0.2 * max(shape) ** 0.5
                for (weight, _), update in zip(pairs, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update.reshape(weight.shape), alpha=-scale)


def split(named: Iterable[tuple[str, Tensor]], not_hidden: tuple[str, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights for Muon and weights for AdamW: vectors, and what a name in `not_hidden` marks, go to the second."""
    hidden: list[Tensor] = []
    other: list[Tensor] = []
    for name, weight in named:
        is_hidden = weight.ndim >= 2 and not any(part in name for part in not_hidden)
        (hidden if is_hidden else other).append(weight)
    return hidden, other
