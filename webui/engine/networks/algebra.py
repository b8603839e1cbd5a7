"""The mathematics of LoRA and its relatives: what each adds to a layer's weight W (out, in, ...).

Every function gives the difference at strength 1 as a fp32 tensor of W's shape; but for BOFT, the result grows
linearly with the strength, as AUTOMATIC1111 has it. Sources: Hu et al. 2021 (LoRA); Yeh et al. 2023, "Navigating
Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation" (LoCon, LoHa, LoKr); Chavan et al. 2023
(GLoRA); Liu et al. 2022 (IA3); Liu et al. 2024 (DoRA). Rotations are in `rotations.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


class Misfit(Exception):
    """The tensors do not belong to a layer of this shape, or not to each other."""


def lora(t: Tensors, weight: Tensor, dyn_rank: int | None = None) -> Tensor:
    """B A, with a core tensor between them where a convolution was decomposed further (LoCon's Tucker form).

    `down` (r, in, ...), `up` (out, r, ...), `mid` (r, r, kernel). `dyn_rank` takes the first ranks alone.
    """
    down, up = t["down"], t["up"]
    if "mid" in t:
        up, down = up.flatten(1), down.flatten(1)
        _check(weight, (up.shape[0], down.shape[1], *t["mid"].shape[2:]))
        return torch.einsum("mn...,im,nj->ij...", t["mid"], up, down).reshape(weight.shape)
    _check(weight, (up.shape[0], *down.shape[1:]))
    up, down = up.flatten(1), down.flatten(1)
    if dyn_rank is not None:
        up, down = up[:, :dyn_rank], down[:dyn_rank]
    return (up @ down).reshape(weight.shape)


def loha(t: Tensors, weight: Tensor) -> Tensor:
    """(A1 B1) ∘ (A2 B2): two low-rank products, multiplied element by element."""
    halves = []
    for a, b, core in (("hada_w1_a", "hada_w1_b", "hada_t1"), ("hada_w2_a", "hada_w2_b", "hada_t2")):
        if core in t:
            _check(weight, (t[a].shape[1], t[b].shape[1], *t[core].shape[2:]))
            halves.append(torch.einsum("ij...,jr,ip->pr...", t[core], t[b], t[a]))
        else:
            _check(weight, (t[a].shape[0], t[b].shape[1]))
            halves.append(t[a] @ t[b])
    return (halves[0].reshape(weight.shape)) * halves[1].reshape(weight.shape)


def lokr(t: Tensors, weight: Tensor) -> Tensor:
    """W1 ⊗ W2 (Kronecker product); each factor whole or a low-rank product."""
    first = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    if "lokr_w2" in t:
        second = t["lokr_w2"]
    elif "lokr_t2" in t:
        a, b, core = t["lokr_w2_a"], t["lokr_w2_b"], t["lokr_t2"]
        if a.shape[1] * b.shape[1] * prod(core.shape[2:]) > weight.numel():
            raise Misfit("larger than the layer")
        second = torch.einsum("ij...,jr,ip->pr...", core, b, a)
    else:
        second = t["lokr_w2_a"] @ t["lokr_w2_b"]
    if first.numel() * second.numel() != weight.numel():
        raise Misfit("of another size than the layer")
    first = first.reshape(*first.shape, *[1] * (second.ndim - first.ndim))
    return torch.kron(first, second.contiguous()).reshape(weight.shape)


def lokr_rank(t: Tensors) -> int | None:
    """The rank that `alpha` refers to; None where both factors are whole, and alpha means nothing."""
    if "lokr_w1_b" in t:
        return t["lokr_w1_b"].shape[0]
    if "lokr_w2_b" in t:
        return t["lokr_w2_b"].shape[0]
    return None


def glora(t: Tensors, weight: Tensor) -> Tensor:
    """W A + B with low-rank A and B. Early files have the two factors of each in the other order."""
    a1, a2, b1, b2 = (t[name].flatten(1) for name in ("a1", "a2", "b1", "b2"))
    out, width = weight.shape[0], weight.shape[1]
    if not (b1.shape[0] == out and a1.shape[0] == width):
        a1, a2, b1, b2 = a2, a1, b2, b1
    if "bm" in t:
        added = torch.einsum("mn...,im,nj->ij...", t["bm"], b1, b2)
    else:
        _check(weight, (b1.shape[0], b2.shape[1]))
        added = b1 @ b2
    turned = torch.einsum("oi...,ij->oj...", weight, a1)
    return torch.einsum("oi...,ij->oj...", turned, a2) + added.reshape(weight.shape)


def glora_rank(t: Tensors) -> int:
    """The smaller side of a factor."""
    return min(t["a1"].shape[:2])


def ia3(t: Tensors, weight: Tensor) -> Tensor:
    """W times one number for each output, or for each input where `on_input` says so."""
    factors = t["ia3"].flatten()
    axis = 1 if bool(t["on_input"].any()) else 0
    return weight * _along(factors, weight, axis)


def peft_ia3(t: Tensors, weight: Tensor) -> Tensor:
    """The same as peft has it: the factors themselves (out, 1) or (1, in), not what they add to 1."""
    factors = t["ia3_l"]
    axis = 1 if factors.ndim > 1 and factors.shape[0] == 1 and factors.shape[1] == weight.shape[1] else 0
    return weight * (_along(factors.flatten(), weight, axis) - 1)


def decomposed(weight: Tensor, delta: Tensor, t: Tensors) -> Tensor:
    """DoRA: W + delta keeps its directions and gets the trained lengths (eq. 5 of the paper); the difference from W.

    `magnitude`, peft's, has a length for each row. `dora_scale` has one for each row (out, 1, ...) or for each column
    (1, in, 1, ...).
    """
    lengths = t["magnitude"] if "magnitude" in t else t["dora_scale"]
    of_rows = "magnitude" in t or lengths.ndim == 1 or lengths.shape[0] == weight.shape[0]
    axis = 0 if of_rows else 1
    merged = weight + delta
    others = [i for i in range(weight.ndim) if i != axis]
    present: Tensor = torch.linalg.vector_norm(merged, dim=others, keepdim=True) + torch.finfo(merged.dtype).eps
    return merged * (_along(lengths.flatten(), weight, axis) / present) - weight


def same_shape(tensor: Tensor, weight: Tensor) -> Tensor:
    """A difference that is stored as it is."""
    _check(weight, tensor.shape)
    return tensor.reshape(weight.shape)


def _along(factors: Tensor, weight: Tensor, axis: int) -> Tensor:
    if factors.numel() != weight.shape[axis]:
        raise Misfit("of another width than the layer")
    shape = [1] * weight.ndim
    shape[axis] = -1
    return factors.reshape(shape)


def _check(weight: Tensor, shape: tuple[int, ...]) -> None:
    """Before anything of that size is computed. A 1x1 convolution and a linear layer are the same."""
    if prod(shape) != weight.numel() or shape[0] != weight.shape[0]:
        raise Misfit(f"{'x'.join(map(str, shape))} instead of {'x'.join(map(str, weight.shape))}")
