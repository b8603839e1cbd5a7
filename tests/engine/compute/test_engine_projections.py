"""Queries, keys and values by one product: the same numbers; each layer by itself as soon as one is not as usual."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from block_models import SMALL, ours, unet_call
from torch.nn import functional

from webui.engine.compute.projections import lay_side_by_side
from webui.engine.networks.attachment import Attachment, ChangedWeights

CPU = torch.device("cpu")
SELF = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


class Products:
    """Counts the products of three times as many rows as columns."""

    def __init__(self) -> None:
        self.joined = 0


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> Products:
    seen, linear = Products(), functional.linear

    def counting(x: Any, weight: Any, bias: Any = None) -> Any:
        seen.joined += weight.shape[0] == 3 * weight.shape[1] and bias is None
        return linear(x, weight, bias)

    monkeypatch.setattr(functional, "linear", counting)
    return seen


def test_self_attention_asks_once_and_gets_the_same_numbers(products: Products) -> None:
    unet = ours(SMALL)
    weights = {name: weight.clone() for name, weight in unet.state_dict().items()}
    expected = unet_call(unet, torch.float32)
    assert products.joined == 0
    lay_side_by_side(unet)
    assert all(weight.equal(weights[name]) for name, weight in unet.state_dict().items())
    torch.testing.assert_close(unet_call(unet, torch.float32), expected, atol=1e-5, rtol=1e-5)
    assert products.joined == sum(name.endswith("attn1") for name, _ in unet.named_modules())


def test_an_adapter_takes_its_layer_out_and_gives_it_back(products: Products) -> None:
    unet = ours(SMALL)
    name = f"{SELF}.to_k.weight"
    changed = {name: unet.get_parameter(name).data * 1.5}
    attachment = Attachment(unet, ChangedWeights(changed), CPU)
    attachment.attach()
    expected = unet_call(unet, torch.float32)
    attachment.detach()
    lay_side_by_side(unet)
    unet_call(unet, torch.float32)
    all_of_them, products.joined = products.joined, 0
    attachment = Attachment(unet, ChangedWeights(changed), CPU)
    attachment.attach()
    torch.testing.assert_close(unet_call(unet, torch.float32), expected, atol=1e-5, rtol=1e-5)
    assert products.joined == all_of_them - 1
    attachment.detach()
    products.joined = 0
    unet_call(unet, torch.float32)
    assert products.joined == all_of_them


def test_a_layer_that_something_listens_to_is_asked_itself(products: Products) -> None:
    unet = ours(SMALL)
    lay_side_by_side(unet)
    heard: list[Any] = []
    handle = unet.get_submodule(f"{SELF}.to_v").register_forward_pre_hook(lambda _layer, inputs: heard.append(inputs))
    unet_call(unet, torch.float32)
    assert len(heard) == 1
    handle.remove()
    before = products.joined
    unet_call(unet, torch.float32)
    assert len(heard) == 1
    assert products.joined == 2 * before + 1
