"""One layer of a file at work: which family its tensors belong to, and what it adds to the layer's weight and bias."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from webui.engine.networks import algebra, rotations
from webui.engine.networks.algebra import Misfit, Tensors

Difference = Callable[[Tensors, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Family:
    """A family of adapters: the roles by which a layer of it is known, its formula, and the rank for `alpha`.

    `factor` is a small tensor to which the difference is proportional: scaling it costs nothing.
    """

    name: str
    needs: frozenset[str]
    difference: Difference
    rank: Callable[[Tensors], int | None] = lambda _: None
    factor: str = ""


def _family(name: str, needs: str, difference: Difference, rank: str = "", factor: str = "") -> Family:
    return Family(name, frozenset(needs.split()), difference, lambda t: t[rank].shape[0] if rank else None, factor)


_BOFT_DIMENSIONS = 4
FAMILIES = (
    _family("LoRA", "down up", algebra.lora, "down", "up"),
    _family("LoHa", "hada_w1_a hada_w1_b hada_w2_a hada_w2_b", algebra.loha, "hada_w1_b", "hada_w1_a"),
    Family("LoKr", frozenset({"lokr_w1"}), algebra.lokr, algebra.lokr_rank, "lokr_w1"),
    Family("LoKr", frozenset({"lokr_w1_a", "lokr_w1_b"}), algebra.lokr, algebra.lokr_rank, "lokr_w1_a"),
    Family("GLoRA", frozenset({"a1", "a2", "b1", "b2"}), algebra.glora, algebra.glora_rank),
    _family("OFT", "oft_blocks", rotations.oft),
    _family("OFT", "oft_diag", rotations.oft),
    _family("OFT", "oft_r", rotations.peft_oft),
    _family("BOFT", "boft_r", rotations.peft_boft),
    _family("IA3", "ia3 on_input", algebra.ia3),
    _family("IA3", "ia3_l", algebra.peft_ia3),
    _family("full difference", "diff", lambda t, weight: algebra.same_shape(t["diff"], weight)),
    _family("norm", "w_norm", lambda t, weight: algebra.same_shape(t["w_norm"], weight)),
)


@dataclass(frozen=True, slots=True)
class Change:
    """What an adapter adds to a layer at its strength, in fp32 tensors of their own; None: nothing."""

    weight: Tensor | None
    bias: Tensor | None


def change_of(
    t: Tensors,
    weight: Tensor,
    bias: Tensor | None,
    strength: float,
    *,
    scale: float | None = None,
    dyn_rank: int | None = None,
) -> Change:
    """What the tensors `t` of one layer, by role and in fp32, add to its `weight` and `bias` (fp32, too).

    `scale` is alpha / rank as the file's settings have it; where a layer has its own `alpha`, that counts. Raises
    `Misfit` for tensors of no known family, or of another shape than the layer's.
    """
    added = None if bias is None else _bias_change(t, bias, strength, scale)
    if {"diff_b", "b_norm"} & set(t) and len(t) == 1:
        return Change(None, added)
    if "oft_blocks" in t and t["oft_blocks"].ndim == _BOFT_DIMENSIONS:
        return Change(rotations.boft(t, weight, strength), added)
    family = next((f for f in FAMILIES if f.needs <= set(t)), None)
    if family is None:
        raise Misfit("of no family that is known here")
    is_dora = "magnitude" in t or "dora_scale" in t
    factor = _scale(t, family.rank(t), scale) * (1.0 if is_dora else strength)
    if family.factor:
        t, factor = {**t, family.factor: t[family.factor] * factor}, 1.0
    if dyn_rank is not None and family.name == "LoRA":
        delta = algebra.lora(t, weight, dyn_rank)
    else:
        delta = family.difference(t, weight)
    delta = delta if family.factor else delta * factor
    if is_dora:
        delta = algebra.decomposed(weight, delta, t) * strength
    if not bool(torch.isfinite(delta).all()):
        raise Misfit("not finite numbers")
    return Change(delta, added)


def _scale(t: Tensors, rank: int | None, said: float | None) -> float:
    """alpha / rank; 1 where nothing is said, or 0 is (trainers write it for "the rank")."""
    if rank is None:
        return 1.0
    alpha = float(t["alpha"]) if "alpha" in t else 0.0
    if rank == 0 or not math.isfinite(alpha):
        raise Misfit("of rank 0, or scaled by what is no number")
    if alpha:
        return alpha / rank
    return 1.0 if said is None else said


def _bias_change(t: Tensors, bias: Tensor, strength: float, scale: float | None) -> Tensor | None:
    for role in ("diff_b", "b_norm"):
        if role in t:
            return algebra.same_shape(t[role], bias) * strength
    if "up_bias" in t:
        return algebra.same_shape(t["up_bias"], bias) * _scale(t, t["down"].shape[0], scale) * strength
    if "ia3_l" in t and t["ia3_l"].numel() == bias.numel() and t["ia3_l"].shape[0] != 1:
        return bias * (t["ia3_l"].flatten() - 1) * strength
    return None
