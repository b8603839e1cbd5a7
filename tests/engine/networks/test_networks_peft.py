"""Each family of peft acts on a model as peft's own layers do, from a file as diffusers writes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from network_models import adapters_of, lora_file, randomised, small_text_encoder, small_unet, unet_output

from webui.engine.networks.lora import Strength
from webui.engine.networks.rotations import peft_boft

peft = pytest.importorskip("peft")

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
LAYERS = [*ATTENTION, "conv1", "conv2", "proj_in", "time_emb_proj"]

CASES: dict[str, Callable[[], Any]] = {
    "LoRA": lambda: peft.LoraConfig(r=4, lora_alpha=8, target_modules=LAYERS),
    "LoRA with biases": lambda: peft.LoraConfig(r=4, lora_alpha=2, target_modules=LAYERS, lora_bias=True),
    "rank-stabilised LoRA": lambda: peft.LoraConfig(r=4, lora_alpha=3, target_modules=ATTENTION, use_rslora=True),
    "LoRA with patterns": lambda: peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=LAYERS, rank_pattern={"to_k": 2, "conv1": 3}, alpha_pattern={"to_k": 5}
    ),
    "DoRA": lambda: peft.LoraConfig(r=4, lora_alpha=4, target_modules=LAYERS, use_dora=True),
    "LoHa": lambda: peft.LoHaConfig(r=4, alpha=8, target_modules=LAYERS, use_effective_conv2d=True),
    "LoKr": lambda: peft.LoKrConfig(r=2, alpha=4, target_modules=LAYERS, use_effective_conv2d=True),
    "IA3": lambda: peft.IA3Config(target_modules=[*ATTENTION, "conv1"], feedforward_modules=["to_v", "conv1"]),
    "OFT": lambda: peft.OFTConfig(r=0, oft_block_size=8, target_modules=ATTENTION),
    "BOFT": lambda: peft.BOFTConfig(boft_block_size=4, target_modules=[*ATTENTION, "conv1"]),
}


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """peft tries to build an extension for BOFT, and has one stage where it cannot: what it does on most machines."""
    from peft.tuners.boft import layer

    monkeypatch.setattr(layer, "get_fbd_cuda", lambda: None)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_a_diffusers_file_acts_as_peft_does(case: str, tmp_path: Path) -> None:
    config = CASES[case]()
    theirs = small_unet()
    before = unet_output(theirs)
    peft.inject_adapter_in_model(config, theirs)
    randomised(theirs.parameters, 0.2 if case == "LoHa" else 0.1)
    expected = unet_output(theirs)
    state = peft.get_peft_model_state_dict(theirs, adapter_name="default")
    settings = {f"unet.{key}": value for key, value in config.to_dict().items()}
    metadata = {"lora_adapter_metadata": json.dumps(settings, default=list)}

    unet = small_unet()
    adapters = adapters_of(unet, small_text_encoder())
    file = lora_file(tmp_path / "a.safetensors", {f"unet.{name}": tensor for name, tensor in state.items()}, metadata)
    adapters.use("unet", [Strength(file, 1.0)])
    counts = adapters.counts(file)
    assert (counts.skipped, counts.reasons) == (0, ())
    assert not torch.allclose(before, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(unet_output(unet), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("width", "size", "stages"), [(32, 4, 3), (24, 4, 2), (16, 2, 4)])
def test_the_stages_of_boft_mix_the_rows_that_peft_mixes(width: int, size: int, stages: int) -> None:
    """peft runs several stages with its extension alone; here they are put together from its own parts."""
    from peft.tuners.boft.layer import BOFTLayer

    generator = torch.Generator().manual_seed(6)
    count = width // size
    blocks = torch.randn(stages, count, size, size, generator=generator)
    scale, weight = torch.randn(5, 1, generator=generator), torch.randn(5, width, generator=generator)
    parts: Any = BOFTLayer.__new__(BOFTLayer)
    expected = torch.eye(width)
    for i in range(stages):
        order = BOFTLayer.block_butterfly_perm(parts, width, count // 2**i, size // 2, stages - 1)
        turn = BOFTLayer.perm2mat(parts, order)
        expected = turn @ torch.block_diag(*BOFTLayer.cayley_batch(parts, blocks[i])) @ turn.t() @ expected
    found = peft_boft({"boft_r": blocks, "boft_s": scale}, weight) + weight
    torch.testing.assert_close(found, (expected @ weight.t()).t() * scale, rtol=1e-4, atol=1e-5)
