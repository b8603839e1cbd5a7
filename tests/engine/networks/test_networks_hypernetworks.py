"""Hypernetworks in AUTOMATIC1111's files: their mathematics, their pickles, and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_runs import run
from network_files import loaded, notice
from network_models import WIDTH, small_unet, unet_output
from safetensors.torch import save_file

from webui.engine import Engine
from webui.engine.files.weights import Weights, open_weights
from webui.engine.networks.hypernetworks import Hypernetwork, HypernetworkAttachment, load_hypernetwork
from webui.errors import BadModelFile, UnsupportedModel


def layers(width: int, seed: int, norm: bool = False) -> dict[str, torch.Tensor]:
    """The state of `Linear, activation, [LayerNorm,] Linear`, under the numbers that they have in a Sequential."""
    generator = torch.Generator().manual_seed(seed)
    last = 3 if norm else 2
    state = {
        "linear.0.weight": torch.randn(2 * width, width, generator=generator) * 0.2,
        "linear.0.bias": torch.randn(2 * width, generator=generator) * 0.2,
        f"linear.{last}.weight": torch.randn(width, 2 * width, generator=generator) * 0.2,
        f"linear.{last}.bias": torch.randn(width, generator=generator) * 0.2,
    }
    if norm:
        state |= {
            "linear.2.weight": torch.rand(2 * width, generator=generator),
            "linear.2.bias": torch.zeros(2 * width),
        }
    return state


def content(*widths: int, norm: bool = False) -> dict[Any, Any]:
    pairs = {w: (layers(w, w, norm), layers(w, w + 1, norm)) for w in widths}
    return {**pairs, "activation_func": "relu", "is_layer_norm": norm, "activate_output": False, "name": "x"}


def opened(path: Path, saved: dict[Any, Any]) -> Hypernetwork:
    torch.save(saved, path)
    return load_hypernetwork(open_weights(path, allow_pickle=True, cache_dir=path.parent / "cache"))


@pytest.mark.parametrize("norm", [False, True])
def test_keys_and_values_get_what_the_two_networks_add(norm: bool, tmp_path: Path) -> None:
    network = opened(tmp_path / "a.pt", content(32, norm=norm))
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(1))
    for side in (0, 1):
        state = layers(32, 32 + side, norm)
        hidden = torch.relu(torch.nn.functional.linear(x, state["linear.0.weight"], state["linear.0.bias"]))
        if norm:
            hidden = torch.nn.functional.layer_norm(hidden, (64,), state["linear.2.weight"], state["linear.2.bias"])
        last = 3 if norm else 2
        added = torch.nn.functional.linear(hidden, state[f"linear.{last}.weight"], state[f"linear.{last}.bias"])
        torch.testing.assert_close(network.change(x, side, 0.5), x + added * 0.5)
    assert network.change(torch.ones(1, 2, 7), 0, 1.0).equal(torch.ones(1, 2, 7))


def test_off_again_the_unet_is_what_it_was(tmp_path: Path) -> None:
    unet = small_unet()
    before = unet_output(unet)
    attachment = HypernetworkAttachment(unet, [(opened(tmp_path / "a.pt", content(WIDTH)), 1.0)])
    assert not torch.equal(unet_output(unet), before)
    attachment.detach()
    assert torch.equal(unet_output(unet), before)


def test_one_in_a_prompt_changes_the_picture_as_strongly_as_it_says(own_engine: Engine) -> None:
    width = int(loaded(own_engine).unet.config.cross_attention_dim)
    tensors = {
        f"{width}.{side}.{name}": tensor for side in (0, 1) for name, tensor in layers(width, width + side).items()
    }
    path = own_engine._tools.paths.hypernetworks[-1] / "anime.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {"activation_func": '"relu"', "activate_output": "false"})
    notice(own_engine)
    results = []
    for tag in ("", " <hypernet:anime:0.5>", " <hypernet:anime>", " <hypernet:anime:1>", " <hypernet:anime:0>", ""):
        done = run(own_engine, prompt=f"a red apple{tag}", steps=2, width=64, height=64)
        assert [w.text for w in done.warnings] == []
        results += done.digests
    plain, half, whole, one, zero, after = results
    assert len({plain, half, whole}) == 3
    assert (whole, zero, after) == (one, plain, plain)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"activation_func": "os.system"}, UnsupportedModel),
        ({32: ({"linear.0.weight": torch.zeros(8, 31), "linear.0.bias": torch.zeros(8)},) * 2}, BadModelFile),
        ({32: ({"linear.0.weight": torch.zeros(32, 32)},) * 2}, BadModelFile),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(change: dict[Any, Any], error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        opened(tmp_path / "a.pt", {**content(32), **change})


def test_the_two_layers_of_the_first_files_are_read(tmp_path: Path) -> None:
    state = layers(32, 1)
    old = {name.replace("linear.0", "linear1").replace("linear.2", "linear2"): t for name, t in state.items()}
    save_file(
        {f"32.{side}.{name}": t.clone() for side in (0, 1) for name, t in old.items()}, tmp_path / "a.safetensors"
    )
    network = load_hypernetwork(Weights(tmp_path / "a.safetensors"))
    assert [step.weight.shape for step in network.pairs[32][0]] == [(64, 32), (32, 64)]
