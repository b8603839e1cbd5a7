"""Queries, keys and values of a self attention in one matrix product.

The three layers keep their names and weights, so that adapters and hooks find them as usual; only their weights lie
side by side in memory, and are then read as one. Where they do not any more (a LoRA put others in their place, the
network was moved) or something listens at a layer, each is asked by itself. Worth it on a GPU, where a small product
leaves most of the chip idle; on a CPU there is nothing to gain (docs/performance.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from webui.engine.compute.layers import EIGHT_BITS


def lay_side_by_side(network: Any) -> None:
    """Move the weights of every self attention of the network together. Takes one layer's memory at a time."""
    with torch.inference_mode(False), torch.no_grad():
        for layer in network.modules():
            layers = _layers(layer)
            if layers is None:
                continue
            weights = [one.weight for one in layers]
            joined = torch.cat([weight.data for weight in weights])
            for weight, part in zip(weights, joined.chunk(3), strict=True):
                weight.data = part


def projected(attention: Any, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of x (B, tokens, C), keys and values of the context (B, tokens, D), of an attention of diffusers."""
    joined = _joined(attention) if context is x else None
    if joined is None:
        return attention.to_q(x), attention.to_k(context), attention.to_v(context)
    queries, keys, values = functional.linear(x, joined).chunk(3, dim=-1)
    return queries, keys, values


def _layers(attention: Any) -> list[torch.nn.Linear] | None:
    """The three layers, where they are such that one product can be made of them."""
    found: list[Any] = [getattr(attention, name, None) for name in ("to_q", "to_k", "to_v")]
    plain = [layer for layer in found if isinstance(layer, torch.nn.Linear) and layer.bias is None]
    layers = [layer for layer in plain if layer.weight.dtype not in EIGHT_BITS]
    alike = len({tuple(layer.weight.shape) for layer in layers}) == 1
    return layers if alike and len(layers) == 3 else None


def _joined(attention: Any) -> Tensor | None:
    """The weights as one (3 C, C), without a copy; None where they do not lie side by side, or a layer has a hook."""
    layers = _layers(attention)
    if layers is None or any(layer._forward_pre_hooks or layer._forward_hooks for layer in layers):
        return None
    first, *others = (layer.weight for layer in layers)
    place = first.data_ptr()
    for other in others:
        place += first.nbytes
        if other.data_ptr() != place or other.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
            return None
    rows, width = first.shape
    return first.as_strided((3 * rows, width), (width, 1)) if first.is_contiguous() else None
