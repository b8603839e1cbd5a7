"""Deep features kept from call to call: exact where nothing changed, cheaper, and gone with the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from block_models import SMALL, ours
from engine_runs import QUICK, pixels_of, run
from torch import Tensor

from webui.engine.compute.reuse import ReusingUnet
from webui.engine.memory.residency import Residency
from webui.settings import MemoryMode

HERE = Residency(torch.device("cpu"), MemoryMode.normal)


def ask(unet: ReusingUnet, call: int, t: float = 500.0, side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(side)
    x = torch.randn(2, 4, side, side, generator=generator).contiguous(memory_format=torch.channels_last)
    context = torch.randn(2, 77, 24, generator=generator)
    unet.begin(call)
    with torch.inference_mode():
        return unet(x, torch.tensor(t), encoder_hidden_states=context, added_cond_kwargs=None, return_dict=False)[0]


@pytest.fixture(scope="module")
def network() -> Any:
    return ours(SMALL)


def counting(network: Any) -> tuple[list[int], Any]:
    ran: list[int] = []
    return ran, network.mid_block.register_forward_hook(lambda *_: ran.append(1))


def test_kept_features_of_the_same_call_give_the_same_answer(network: Any) -> None:
    unet = ReusingUnet(network, HERE, 3, 0.0)
    whole = ask(unet, 0)
    torch.testing.assert_close(ask(unet, 1), whole, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ask(unet, 2, t=300.0), whole, atol=1e-3), "the noise level of the call counts"
    assert not network.up_blocks[-1].resnets[-1]._forward_pre_hooks, "nothing stays on the network"


def test_only_every_nth_call_runs_the_deep_levels(network: Any) -> None:
    ran, handle = counting(network)
    unet = ReusingUnet(network, HERE, 3, 0.0)
    for call in range(7):
        ask(unet, call)
    handle.remove()
    assert len(ran) == 3  # calls 0, 3 and 6


def test_what_has_no_features_yet_is_run_whole(network: Any) -> None:
    """Guidance that comes on later, or a tile of another size, finds nothing to go by."""
    ran, handle = counting(network)
    unet = ReusingUnet(network, HERE, 4, 0.0)
    ask(unet, 0)
    exact = ask(ReusingUnet(network, HERE, 1, 0.0), 1, side=24)
    torch.testing.assert_close(ask(unet, 1, side=24), exact)
    handle.remove()
    assert len(ran) == 3


def test_a_picture_with_reused_features_differs_a_little_and_comes_again_bit_for_bit(engine: Any) -> None:
    steps = {**QUICK, "steps": 8}
    exact, near, again = (pixels_of(run(engine, **steps, feature_reuse=n).images[0]).astype(float) for n in (1, 2, 2))
    assert np.array_equal(near, again)
    difference = np.abs(exact - near).mean()
    assert 0 < difference < 40
