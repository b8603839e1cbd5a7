"""Attention backends: xformers, PyTorch's own SDPA, and a sliced one that needs little memory.

Each is a function of (q, k, v), all (B, heads, tokens, head_dim), to (B, heads, tokens, head_dim). At start every one
is tried with a tiny real tensor on the real device; what does not work is listed with its reason and never used. A
backend that passed may still refuse a shape later (NotImplementedError): that call falls back to SDPA, and the log says
so once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from webui.engine.compute.device import BackendStatus
from webui.engine.compute.projections import projected
from webui.settings import Attention as Choice

AttentionFunction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

_HOPPER = 9  # compute capability

SLICE_BYTES = 64 * 2**20  # of attention scores held at once by the sliced backend

_log = logging.getLogger(__name__)


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """PyTorch's scaled dot-product attention: cuDNN's, flash, memory-efficient or plain, as it sees fit.

    cuDNN is asked where PyTorch believes that it can; where it finds then that it cannot, the others do it.
    """
    try:
        return functional.scaled_dot_product_attention(q, k, v)
    except RuntimeError as error:
        if "cudnn" not in str(error).lower():
            raise
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        return functional.scaled_dot_product_attention(q, k, v)


def sliced(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v, a slice of the queries at a time, so that the scores never exceed `SLICE_BYTES`."""
    batch, heads, tokens, width = q.shape
    bytes_per_query = batch * heads * k.shape[2] * 4
    step = max(1, SLICE_BYTES // max(1, bytes_per_query))
    keys = k.transpose(-1, -2)
    out = torch.empty(batch, heads, tokens, v.shape[3], dtype=q.dtype, device=q.device)
    for start in range(0, tokens, step):
        scores = torch.matmul(q[:, :, start : start + step] * width**-0.5, keys)
        out[:, :, start : start + step] = torch.matmul(scores.float().softmax(dim=-1).to(v.dtype), v)
    return out


def xformers_attention(ops: Any) -> AttentionFunction:
    """The backend on `ops` = xformers.ops, whose layout is (B, tokens, heads, head_dim)."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = ops.memory_efficient_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return out.transpose(1, 2)

    return attend


def import_xformers_ops() -> Any:
    """xformers.ops. Raises whatever its import raises. Its warning about missing extensions is kept off the console.

    Without its compiled part xformers still calls PyTorch's own cutlass and flash kernels; the probe tells what works.
    """
    logger = logging.getLogger("xformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import xformers.ops
    finally:
        logger.setLevel(level)
    return xformers.ops


class Attention:
    """The backend in use, as a function of (q, k, v); the others as a safety net below it."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        choice: Choice = Choice.auto,
        load_xformers: Callable[[], Any] = import_xformers_ops,
    ) -> None:
        self.statuses: tuple[BackendStatus, ...]
        self._lock = threading.Lock()
        self._told: set[str] = set()
        functions, self.statuses = _probe_all(device, dtype, choice, load_xformers)
        first = choice.value if choice.value in functions else next(n for n in preferred(device) if n in functions)
        self.name = first
        if choice is not Choice.auto and first != choice.value:
            reason = next(s.reason for s in self.statuses if s.name == choice.value)
            _log.warning("Attention: %s cannot be used (%s); using %s.", choice.value, reason, first)
        self._functions = [(first, functions[first])]
        self._functions += [(n, functions[n]) for n in ("sdpa", "sliced") if n in functions and n != first]

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        for name, function in self._functions[:-1]:
            try:
                return function(q, k, v)
            except NotImplementedError as error:
                self._tell(name, q, error)
        return self._functions[-1][1](q, k, v)

    def _tell(self, name: str, q: torch.Tensor, error: Exception) -> None:
        with self._lock:
            if name in self._told:
                return
            self._told.add(name)
        shape = "x".join(str(side) for side in q.shape)
        _log.warning("Attention: %s refused a tensor of %s (%s); using the next backend.", name, shape, _line(error))


class AttentionProcessor:
    """A diffusers attention processor on one `Attention`: projections, heads, and nothing that SD does not use.

    diffusers' own does the same with SDPA fixed inside; compared with it in tests/engine/test_attention.py.
    """

    def __init__(self, attention: Attention) -> None:
        self._attention = attention

    def __call__(
        self,
        attn: Any,  # diffusers.models.attention_processor.Attention
        hidden_states: torch.Tensor,  # (B, tokens, C), in the VAE (B, C, H, W)
        encoder_hidden_states: torch.Tensor | None = None,  # (B, tokens of the prompt, D)
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,  # noqa: ARG002 (part of the interface)
        plus: torch.Tensor | None = None,  # (B, tokens, C), added to the result
    ) -> torch.Tensor:
        if attention_mask is not None:
            raise NotImplementedError("attention masks")
        x, picture_shape = hidden_states, hidden_states.shape
        if x.ndim == 4:
            x = x.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        context = x if encoder_hidden_states is None else encoder_hidden_states
        heads = attn.heads
        q, k, v = (t.view(*t.shape[:2], heads, -1).transpose(1, 2) for t in projected(attn, x, context))
        attended = self._attention(q, k, v).transpose(1, 2).flatten(2)
        out: torch.Tensor = attn.to_out[0](attended) if plus is None else attn.to_out[0](attended, plus)
        if len(picture_shape) == 4:
            out = out.transpose(1, 2).reshape(picture_shape)
        if attn.residual_connection:
            out = out + hidden_states
        return out if attn.rescale_output_factor == 1.0 else out / attn.rescale_output_factor


def preferred(device: torch.device) -> tuple[str, ...]:
    """The backends in the order in which the automatic choice takes them.

    On a GPU xformers comes first. From Hopper on PyTorch's own is quicker: it has cuDNN's kernels for these, where
    xformers has those of FlashAttention 2 (1.9 times as long for SD1.5's largest attention; docs/performance.md).
    """
    if device.type != "cuda":
        return "sdpa", "sliced"
    major, _ = torch.cuda.get_device_capability(device)
    return ("sdpa", "xformers", "sliced") if major >= _HOPPER else ("xformers", "sdpa", "sliced")


def _probe_all(
    device: torch.device, dtype: torch.dtype, choice: Choice, load_xformers: Callable[[], Any]
) -> tuple[dict[str, AttentionFunction], tuple[BackendStatus, ...]]:
    functions: dict[str, AttentionFunction] = {}
    statuses: list[BackendStatus] = []

    def consider(name: str, make: Callable[[], AttentionFunction]) -> None:
        try:
            function = make()
            _probe(function, device, dtype)
        except Exception as error:  # a broken optional package can fail in any way; each means: not usable
            statuses.append(BackendStatus(name, False, _line(error)))
        else:
            functions[name] = function
            statuses.append(BackendStatus(name, True))

    if device.type == "cuda" or choice is Choice.xformers:
        consider("xformers", lambda: xformers_attention(load_xformers()))
    else:
        statuses.append(BackendStatus("xformers", False, "needs a CUDA device"))
    consider("sdpa", lambda: sdpa)
    consider("sliced", lambda: sliced)
    return functions, tuple(statuses)


def _probe(function: AttentionFunction, device: torch.device, dtype: torch.dtype) -> None:
    """Raise unless `function` gives the plain formula's result. Head width 40 is SD1's smallest."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 40, generator=generator).to(device, dtype) for n in (16, 77, 77))
    with torch.inference_mode():
        got = function(q, k, v).float()
        scores = (q.float() @ k.float().transpose(-1, -2)) * 40**-0.5
        expected = scores.softmax(dim=-1) @ v.float()
    worst = (got - expected).abs().max().item()
    if not worst < (1e-4 if dtype is torch.float32 else 5e-2):
        raise ArithmeticError(f"wrong result (error {worst:.2g})")


def _line(error: Exception) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:160].rstrip(".")
