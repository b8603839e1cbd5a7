"""OFT and BOFT: the rows of a weight are rotated, in blocks, instead of something being added.

Sources: Qiu et al. 2023, "Controlling Text-to-Image Diffusion by Orthogonal Finetuning"; Liu et al. 2024, "Parameter-
Efficient Orthogonal Finetuning via Butterfly Factorization". The rotation is the Cayley transform of a skew-symmetric
matrix, R = (I + Q)(I - Q)^-1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from webui.engine.networks.algebra import Misfit, Tensors

NEUMANN_TERMS = 5  # of peft's series in place of the inverse


def oft(t: Tensors, weight: Tensor) -> Tensor:
    """`oft_blocks` (blocks, b, b) of kohya's trainers and LyCORIS; older LyCORIS stored the rotations (`oft_diag`)."""
    if "oft_diag" in t:
        rotations = t["oft_diag"]
    else:
        rotations = _cayley(t["oft_blocks"], _constraint(t, weight))
    count, size, _ = rotations.shape
    if count * size != weight.shape[0]:
        raise Misfit("of another width than the layer")
    blocks = weight.reshape(count, size, *weight.shape[1:])
    turned = torch.einsum("knm,kn...->km...", rotations, blocks).reshape(weight.shape)
    if "rescale" in t:
        turned = turned * t["rescale"].reshape(-1, *[1] * (weight.ndim - 1))
    return turned - weight


def boft(t: Tensors, weight: Tensor, strength: float) -> Tensor:
    """`oft_blocks` (stages, blocks, b, b): stage i mixes rows that are 2^i b/2 apart.

    The strength acts on each stage, as it does in training.
    """
    stages, count, size, _ = t["oft_blocks"].shape
    if count * size != weight.shape[0]:
        raise Misfit("of another width than the layer")
    identity = torch.eye(size, device=weight.device)
    rotations = _cayley(t["oft_blocks"], _constraint(t, weight)) * strength + (1 - strength) * identity
    turned = weight
    for i in range(stages):
        apart = 2**i * size // 2
        if weight.shape[0] % (2 * apart):
            raise Misfit("with more stages than the layer's width allows")
        rest = weight.shape[1:]
        turned = turned.reshape(-1, 2, apart, *rest).transpose(1, 2).reshape(count, size, *rest)
        turned = torch.einsum("bij,bj...->bi...", rotations[i], turned)
        turned = turned.reshape(-1, apart, 2, *rest).transpose(1, 2).reshape(weight.shape)
    if "rescale" in t:
        scale = t["rescale"].reshape(-1, *[1] * (weight.ndim - 1))
        turned = turned * (1 + strength * (scale - 1))
    return turned - weight


def peft_oft(t: Tensors, weight: Tensor) -> Tensor:
    """`oft_R` (blocks, b (b - 1) / 2): the upper triangles of skew-symmetric matrices; peft rotates the inputs."""
    triangles = t["oft_r"]
    size = round((1 + (1 + 8 * triangles.shape[1]) ** 0.5) / 2)
    inputs = weight.flatten(1)
    if size < 2 or size * (size - 1) // 2 != triangles.shape[1] or inputs.shape[1] % size:
        raise Misfit("in blocks that do not divide the layer")
    rows, columns = torch.triu_indices(size, size, 1, device=weight.device)
    skew = torch.zeros(triangles.shape[0], size, size, device=weight.device)
    skew[:, rows, columns] = triangles
    skew = skew - skew.transpose(1, 2)
    count = inputs.shape[1] // size
    if triangles.shape[0] not in (1, count):
        raise Misfit("of another width than the layer")
    rotations = _neumann(skew).expand(count, -1, -1)
    turned = torch.einsum("okc,knc->okn", inputs.reshape(-1, count, size), rotations)
    return turned.reshape(weight.shape) - weight


def peft_boft(t: Tensors, weight: Tensor) -> Tensor:
    """`boft_r` (stages, blocks, b, b) and `boft_s` (a number for each output): peft's BOFT rotates the inputs."""
    stages, count, size, _ = t["boft_r"].shape
    turned = weight.flatten(1).t()
    if count * size != turned.shape[0]:
        raise Misfit("of another width than the layer")
    rotations = _cayley(t["boft_r"] / -2, 0.0)
    for i in range(stages):
        order = butterfly(turned.shape[0], size, i).to(weight.device)
        placed = torch.empty_like(turned)
        placed[order] = turned
        blocks = torch.einsum("kmn,kno->kmo", rotations[i], placed.reshape(count, size, -1))
        turned = blocks.reshape(turned.shape)[order]
    scale = t["boft_s"].reshape(-1, 1) if "boft_s" in t else 1.0
    return (turned.t() * scale).reshape(weight.shape) - weight


def butterfly(width: int, size: int, stage: int) -> Tensor:
    """Which row stands at each place in a stage of peft's BOFT: in each 2^stage blocks of `size` rows, taken in half
    blocks, the even ones first, then the odd ones.
    """
    if stage == 0:
        return torch.arange(width)
    half, groups = size // 2, 2 ** (stage + 1)
    if size % 2 or width % (half * groups):
        raise Misfit("with more stages than the layer's width allows")
    rows = torch.arange(width).reshape(-1, groups, half)
    return torch.cat((rows[:, 0::2], rows[:, 1::2]), dim=1).flatten()


def _constraint(t: Tensors, weight: Tensor) -> float:
    """The greatest length of Q; 0: none. Files keep it in `alpha`, divided by the layer's outputs."""
    return float(t["alpha"]) * weight.shape[0] if "alpha" in t else 0.0


def _cayley(blocks: Tensor, constraint: float) -> Tensor:
    q = blocks - blocks.transpose(-1, -2)
    length = float(q.norm()) + 1e-8
    if 0 < constraint < length:
        q = q * (constraint / length)
    identity = torch.eye(q.shape[-1], device=q.device)
    rotation: Tensor = (identity + q) @ torch.linalg.inv(identity - q)
    return rotation


def _neumann(q: Tensor) -> Tensor:
    """(I + Q)(I - Q)^-1 as I + 2Q + 2Q^2 + ... + Q^n: what peft trains with."""
    total = torch.eye(q.shape[-1], device=q.device) + 2 * q
    power = q
    for term in range(2, NEUMANN_TERMS):
        power = power @ q
        total = total + power * (1 if term == NEUMANN_TERMS - 1 else 2)
    return total
