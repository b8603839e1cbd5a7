"""Checkpoints mixed tensor by tensor: weighted sum, add difference, SLERP; a VAE baked in; the recipe kept inside.

A slice of one tensor is in memory at a time, of the result as of its sources, whatever the size of the files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from webui.engine.files.dims import VAE_PREFIX
from webui.engine.files.weights import Weights
from webui.engine.tools.rewriting import (
    SLICE,
    Progress,
    Written,
    as_json,
    check_computable,
    check_target,
    precision_dtype,
    sliced,
    write_model,
)
from webui.errors import BadModelFile, InvalidParams

Method = Literal["weighted sum", "add difference", "slerp"]
METHODS: tuple[Method, ...] = ("weighted sum", "add difference", "slerp")
NEARLY_PARALLEL = 0.9995  # cosine from which SLERP is a straight line
_CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to merge. `alpha` is the share of B, or of the difference B - C that is added to A."""

    method: Method = "weighted sum"
    alpha: float = 0.5
    precision: str = "fp16"

    def check(self, has_third: bool) -> None:
        """Raises `InvalidParams`."""
        if self.method not in METHODS:
            raise InvalidParams(
                f'There is no way to merge called "{self.method[:40]}".', f"Known: {', '.join(METHODS)}."
            )
        limit = 2.0 if self.method == "add difference" else 1.0
        if not 0.0 <= self.alpha <= limit:
            raise InvalidParams(f"alpha is {self.alpha:g}; it goes from 0 to {limit:g} here.")
        if (self.method == "add difference") != has_third:
            what = "needs a third model, C" if self.method == "add difference" else "takes two models, not three"
            raise InvalidParams(f"The method {self.method} {what}.")
        precision_dtype(self.precision)


@dataclass(frozen=True, slots=True)
class Source:
    """One of the files, with what its metadata does not say: the name that users know it by, and its sha256."""

    weights: Weights
    name: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of it. `only_in_a`: tensors of A that B (or C) lacks; they are A's own."""

    written: Written
    mixed: int
    only_in_a: int
    notes: tuple[str, ...] = field(default=())


def merge(
    target: Path,
    recipe: Recipe,
    a: Source,
    b: Source,
    c: Source | None = None,
    vae: Source | None = None,
    *,
    progress: Progress = lambda _done, _total: None,
) -> Merged:
    """Write the merged checkpoint.

    Tensors are A's where B or C have none of that name, and where they are no floating point numbers. An inpainting A
    (9 channels) takes of a plain B what belongs to the latents. Raises `InvalidParams` for an impossible recipe or a
    target that exists, `BadModelFile` for models that do not go together, `OSError` when the disk refuses.
    """
    recipe.check(c is not None)
    check_target(target)
    others = [source for source in (b, c) if source is not None]
    plan = _Plan(recipe, a, others, vae)
    plan.check()
    dtype = precision_dtype(recipe.precision)
    names = sorted(plan.names, key=plan.position)
    specs = {name: (plan.dtype(name, dtype), plan.shape(name)) for name in names}
    size = write_model(
        target, specs, lambda name: plan.pieces(name, specs[name][0]), _metadata(recipe, a, b, c, vae), progress
    )
    mixed = sum(plan.is_mixed(name) for name in names)
    lone = sum(not plan.is_mixed(name) and name not in plan.baked and a.weights.is_float(name) for name in names)
    return Merged(Written(target, len(names), 0, size), mixed, lone, tuple(plan.notes))


class _Plan:
    """Which tensor of the result comes from where."""

    def __init__(self, recipe: Recipe, a: Source, others: list[Source], vae: Source | None) -> None:
        self.recipe = recipe
        self.a = a.weights
        self.others = [source.weights for source in others]
        self.baked: dict[str, str] = {}  # name in the result -> name in the VAE's file
        self.vae = vae.weights if vae else None
        self.notes: list[str] = []
        if self.vae is not None:
            prefix = VAE_PREFIX if f"{VAE_PREFIX}decoder.conv_in.weight" in self.vae.tensors else ""
            names = [name for name in self.vae.tensors if name.startswith((f"{prefix}encoder.", f"{prefix}decoder."))]
            names += [name for name in self.vae.tensors if name.startswith((f"{prefix}quant_", f"{prefix}post_quant_"))]
            self.baked = {VAE_PREFIX + name.removeprefix(prefix): name for name in names}
        own = [name for name in self.a.tensors if not (self.baked and name.startswith(VAE_PREFIX))]
        self.names = [*own, *self.baked]

    def check(self) -> None:
        """Raises `BadModelFile` when the models are not of one architecture."""
        if self.vae is not None and f"{VAE_PREFIX}encoder.down.0.block.0.conv1.weight" not in self.baked:
            raise BadModelFile(
                f"{self.vae.path.name} is no VAE with the key names of a single-file checkpoint.",
                "Take a VAE file in that layout (its keys begin with encoder.down).",
            )
        floats = [name for name in self.a.tensors if self.a.is_float(name)]
        for other in self.others:
            common = [name for name in floats if name in other.tensors and name not in self.baked]
            if len(common) * 2 < len(floats):
                raise BadModelFile(
                    f"{other.path.name} shares only {len(common)} of the {len(floats)} tensors of {self.a.path.name}.",
                    "Merge models of one family, all of them single files.",
                )
            for name in common:
                if not self._fits(name, other):
                    mine, theirs = ("x".join(map(str, w.tensors[name].shape)) for w in (self.a, other))
                    raise BadModelFile(
                        f"{name[:120]} is {mine} in {self.a.path.name} and {theirs} in {other.path.name}.",
                        "Merge models of one family.",
                    )
            check_computable(other, common)
        check_computable(self.a, self.a.tensors)

    def is_mixed(self, name: str) -> bool:
        if name in self.baked or not self.a.is_float(name):
            return False
        return all(name in other.tensors for other in self.others)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._origin(name)[0].tensors[self._origin(name)[1]].shape

    def dtype(self, name: str, wanted: torch.dtype | None) -> torch.dtype:
        weights, own = self._origin(name)
        return wanted if wanted is not None and weights.is_float(own) else weights.dtype(own)

    def position(self, name: str) -> tuple[int, int]:
        """A's tensors in the order in which they lie in its file, the VAE's after them."""
        weights, own = self._origin(name)
        return (0 if weights is self.a else 1), weights.tensors[own].start

    def pieces(self, name: str, dtype: torch.dtype) -> Iterator[Tensor]:
        """One tensor of the result in `dtype`, flat, a slice at a time."""
        weights, own = self._origin(name)
        if not self.is_mixed(name):
            yield from sliced(weights, own, dtype)
            return
        first = weights.tensor(own)
        rest = [_like_a(other.tensor(name), first) for other in self.others]
        for values in mixing(self.recipe, first, *rest, passed=lambda numbers: self._release(name, numbers)):
            yield values.to(dtype)

    def _release(self, name: str, numbers: int) -> None:
        """The first numbers of a tensor were read, in all files that it is mixed from."""
        for weights in (self.a, *self.others):
            weights.release(name, min(numbers, math.prod(weights.tensors[name].shape)))

    def _origin(self, name: str) -> tuple[Weights, str]:
        if self.vae is not None and name in self.baked:
            return self.vae, self.baked[name]
        return self.a, name

    def _fits(self, name: str, other: Weights) -> bool:
        mine, theirs = self.a.tensors[name].shape, other.tensors[name].shape
        inpainting = name == _CONV_IN and len(mine) == 4 and mine[1] == 9 and theirs == (mine[0], 4, *mine[2:])
        if inpainting:
            self.notes.append(f"{self.a.path.name} is an inpainting model: its mask channels are kept as they are.")
        return mine == theirs or inpainting


def mixing(
    recipe: Recipe,
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    passed: Callable[[int], None] = lambda _numbers: None,
) -> Iterator[Tensor]:
    """The mixed numbers (n,) in fp32, a slice at a time.

    `passed` is told how many numbers of the tensors, from their first, are not needed for the moment.
    """
    x, y, *z = (tensor.reshape(-1) for tensor in (a, b, c) if tensor is not None)
    share_a, share_b = 1 - recipe.alpha, recipe.alpha
    if recipe.method == "slerp":
        share_a, share_b = slerp_shares(x, y, recipe.alpha, passed=passed)
    for start in range(0, x.numel(), SLICE):
        part = slice(start, min(start + SLICE, x.numel()))
        mixed, other = x[part].to(torch.float32, copy=True), y[part].to(torch.float32, copy=True)
        yield (
            mixed.add_(other.sub_(z[0][part]), alpha=recipe.alpha)
            if z
            else mixed.mul_(share_a).add_(other, alpha=share_b)
        )
        passed(part.stop)


def slerp_shares(
    a: Tensor, b: Tensor, alpha: float, *, passed: Callable[[int], None] = lambda _numbers: None
) -> tuple[float, float]:
    """The factors of A and B on the arc between them (Shoemake 1985): sin((1-t) w) / sin w and sin(t w) / sin w.

    w is the angle between the two tensors (n,) as vectors. Where they are nearly parallel, or one of them is zero, it
    is the straight line. `passed` as in `mixing`.
    """
    dot = norm_a = norm_b = 0.0
    for start in range(0, a.numel(), SLICE):
        part = slice(start, min(start + SLICE, a.numel()))
        x, y = a[part].double(), b[part].double()
        dot += float(x @ y)
        norm_a += float(x @ x)
        norm_b += float(y @ y)
        passed(part.stop)
    cosine = dot / math.sqrt(norm_a * norm_b) if norm_a and norm_b else 1.0
    if abs(cosine) > NEARLY_PARALLEL:
        return 1 - alpha, alpha
    angle = math.acos(cosine)
    return math.sin((1 - alpha) * angle) / math.sin(angle), math.sin(alpha * angle) / math.sin(angle)


def _like_a(tensor: Tensor, first: Tensor) -> Tensor:
    """B's tensor in A's shape: the channels that only an inpainting A has are A's."""
    if tensor.shape == first.shape:
        return tensor
    extended = first.clone()
    extended[:, : tensor.shape[1]] = tensor
    return extended


def _metadata(recipe: Recipe, a: Source, b: Source, c: Source | None, vae: Source | None) -> Mapping[str, str]:
    """A's own entries, and the recipe under the keys that AUTOMATIC1111 writes."""
    method = {"weighted sum": "Weighted sum", "add difference": "Add difference", "slerp": "SLERP"}[recipe.method]
    said = {
        "type": "latent-webui",
        "primary_model_hash": a.sha256 or None,
        "secondary_model_hash": b.sha256 or None,
        "tertiary_model_hash": (c.sha256 or None) if c else None,
        "primary_model_name": a.name,
        "secondary_model_name": b.name,
        "tertiary_model_name": c.name if c else None,
        "interp_method": method,
        "multiplier": recipe.alpha,
        "save_as_half": recipe.precision == "fp16",
        "precision": recipe.precision,
        "bake_in_vae": vae.name if vae else None,
    }
    models = {source.sha256 or source.name: {"name": source.name} for source in (a, b, c) if source is not None}
    return {**a.weights.metadata, "sd_merge_recipe": as_json(said), "sd_merge_models": as_json(models)}
