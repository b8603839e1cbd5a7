"""Attention backends: the same result from each, and one that fails gives way to the next."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_runs import make_engine, run
from torch.nn import functional

from webui.engine.compute import attention as module
from webui.engine.compute.attention import Attention, AttentionProcessor, preferred, sdpa, sliced
from webui.settings import Attention as Choice

CPU = torch.device("cpu")


def tensors(tokens: int = 70, width: int = 40) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, n, width, generator=generator) for n in (tokens, 77, 77)]


class StandIn:
    """xformers.ops on the CPU: its layout, its way of refusing."""

    def __init__(self, refuse: int | None = None, wrong: bool = False) -> None:
        self.calls = 0
        self.refuse = refuse
        self.wrong = wrong

    def memory_efficient_attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        assert q.shape[2] == k.shape[2] == v.shape[2], "the third side is the heads"
        if q.shape[3] == self.refuse:
            raise NotImplementedError("No operator found for `memory_efficient_attention_forward`")
        out = sdpa(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)
        return out * 2 if self.wrong else out


def test_xformers_is_called_in_its_own_layout() -> None:
    ops = StandIn()
    attention = Attention(CPU, torch.float32, Choice.xformers, lambda: ops)
    assert attention.name == "xformers"
    q, k, v = tensors()
    torch.testing.assert_close(attention(q, k, v), sdpa(q, k, v))
    assert ops.calls == 2  # the probe at the start, and this


def test_F09_a_refusal_falls_back_for_that_call_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    ops = StandIn(refuse=160)
    attention = Attention(CPU, torch.float32, Choice.xformers, lambda: ops)
    wide, narrow = tensors(width=160), tensors()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            torch.testing.assert_close(attention(*wide), sdpa(*wide))
    assert len(caplog.records) == 1
    assert "xformers refused" in caplog.text
    attention(*narrow)
    assert ops.calls == 5  # tried every time: another shape may work


@pytest.mark.parametrize(
    ("capability", "first"), [((7, 5), "xformers"), ((8, 9), "xformers"), ((9, 0), "sdpa"), ((12, 0), "sdpa")]
)
def test_the_automatic_choice_is_the_quicker_one(
    capability: tuple[int, int], first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert preferred(torch.device("cuda"))[0] == first
    assert preferred(CPU)[0] == "sdpa"


def test_where_cudnn_finds_too_late_that_it_cannot_the_other_kernels_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, refusals = functional.scaled_dot_product_attention, []

    def refusing(*qkv: torch.Tensor) -> torch.Tensor:
        if torch.backends.cuda.cudnn_sdp_enabled():
            refusals.append("cuDNN Frontend error: No valid execution plans built.")
            raise RuntimeError(refusals[-1])
        return usual(*qkv)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", refusing)
    q, k, v = tensors()
    torch.testing.assert_close(sdpa(q, k, v), usual(q, k, v))
    assert len(refusals) == 1
    monkeypatch.setattr(functional, "scaled_dot_product_attention", lambda *_: torch.zeros(1) @ torch.zeros(2))
    with pytest.raises(RuntimeError, match="size"):
        sdpa(q, k, v)


def missing() -> Any:
    raise ImportError("No module named 'xformers'")


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (missing, "No module named 'xformers'"),
        (lambda: StandIn(wrong=True), "wrong result"),
        (lambda: SimpleNamespace(), "no attribute"),
        (lambda: StandIn(refuse=40), "No operator found"),
    ],
)
def test_F47_what_does_not_work_is_listed_with_its_reason_and_not_used(
    load: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    attention = Attention(CPU, torch.float32, Choice.xformers, load)
    assert attention.name == "sdpa"
    status = {s.name: s for s in attention.statuses}
    assert not status["xformers"].available
    assert reason in status["xformers"].reason
    assert status["sdpa"].available
    assert status["sliced"].available
    assert "xformers cannot be used" in caplog.text


def test_the_real_xformers_keeps_its_warning_to_itself(capfd: pytest.CaptureFixture[str]) -> None:
    attention = Attention(CPU, torch.float32, Choice.xformers)
    assert attention.name == "sdpa"  # it has no operator for the CPU
    captured = capfd.readouterr()
    assert "xFormers can't load" not in captured.out + captured.err


def test_sliced_attention_equals_sdpa_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = tensors()
    torch.testing.assert_close(sliced(q, k, v), sdpa(q, k, v))
    monkeypatch.setattr(module, "SLICE_BYTES", 7 * 2 * 3 * 77 * 4)  # seven queries at a time
    torch.testing.assert_close(sliced(q, k, v), sdpa(q, k, v))


@pytest.mark.parametrize("kind", ["self", "cross", "vae"])
def test_the_processor_equals_diffusers(kind: str) -> None:
    from diffusers.models.attention_processor import Attention as Layer
    from diffusers.models.attention_processor import AttnProcessor2_0

    torch.manual_seed(0)
    if kind == "vae":
        layer = Layer(32, heads=1, dim_head=32, norm_num_groups=8, residual_connection=True, bias=True)
        x, context = torch.randn(2, 32, 4, 6), None
    else:
        layer = Layer(32, cross_attention_dim=24 if kind == "cross" else None, heads=4, dim_head=8)
        x, context = torch.randn(2, 10, 32), torch.randn(2, 77, 24) if kind == "cross" else None
    with torch.inference_mode():
        layer.set_processor(AttnProcessor2_0())
        theirs = layer(x, context)
        layer.set_processor(AttentionProcessor(Attention(CPU, torch.float32)))
        torch.testing.assert_close(layer(x, context), theirs)


def test_the_choice_of_backend_reaches_the_picture(data_dir: Any, engine: Any) -> None:
    own = make_engine(data_dir, device__attention="sliced")
    assert own.report().attention == "sliced"
    assert run(own, width=64, height=64).finished.pictures == 1
    assert engine.report().attention == "sdpa"
    own.close()


@pytest.mark.gpu
@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_real_xformers_equals_sdpa_on_cuda(width: int) -> None:
    device = torch.device("cuda")
    attention = Attention(device, torch.float16, Choice.xformers)
    q, k, v = (t.to(device, torch.float16) for t in tensors(width=width))
    torch.testing.assert_close(attention(q, k, v).float(), sdpa(q.float(), k.float(), v.float()), rtol=1e-2, atol=1e-2)
