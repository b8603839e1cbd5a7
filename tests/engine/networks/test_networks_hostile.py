"""H029, H030: LoRA files whose numbers or names make no sense attach nothing that is no number, and come off again."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from network_models import adapters_of, fingerprint, lora_file, small_text_encoder, small_unet

from webui.engine.networks.lora import Strength
from webui.errors import WebUIError

LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
NAN, INFINITY = float("nan"), float("inf")


def pair(layer: str, rank: int, alpha: float) -> dict[str, torch.Tensor]:
    return {
        f"{layer}.lora_up.weight": torch.full((64, rank), 0.01),
        f"{layer}.lora_down.weight": torch.full((rank, 64), 0.01),
        f"{layer}.alpha": torch.tensor(alpha),
    }


@pytest.mark.parametrize(
    ("rank", "alpha"), [(0, 1.0), (100_000, 1.0), (4, NAN), (4, INFINITY), (4, 0.0), (4, 1e30), (4, -1e30)]
)
def test_H029_a_rank_or_alpha_that_makes_no_sense_leaves_the_model_whole(
    tmp_path: Path, rank: int, alpha: float
) -> None:
    unet = small_unet()
    adapters = adapters_of(unet, small_text_encoder())
    before = fingerprint(unet)
    with contextlib.suppress(WebUIError):
        adapters.use("unet", [Strength(lora_file(tmp_path / "a.safetensors", pair(LAYER, rank, alpha)), 1.0)])
    attached = unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q").weight
    assert not attached.isnan().any()
    adapters.use("unet", [])
    assert fingerprint(unet) == before


def test_H030_layers_that_no_model_has_are_counted_and_change_nothing(tmp_path: Path) -> None:
    unet = small_unet()
    adapters = adapters_of(unet, small_text_encoder())
    before = {name: value for name, (_, value) in fingerprint(unet).items()}
    odd = {}
    for layer in ("lora_unet_down_blocks_99_attn", "lora_unet___class__", "lora_te_../../x", "lora_unet_" + "x" * 200):
        odd |= pair(layer, 4, 1.0)
    file = lora_file(tmp_path / "a.safetensors", odd)
    for network in ("unet", "te1"):
        adapters.use(network, [Strength(file, 1.0)])
    assert adapters.counts(file).applied == 0
    assert adapters.counts(file).skipped == 4
    assert {name: value for name, (_, value) in fingerprint(unet).items()} == before
