"""A number that is none is noticed while a picture is drawn, on a GPU without anybody waiting for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from webui.engine.denoise import GPU_LOOKS_EVERY, Watch
from webui.errors import NanDetected

GPU = torch.device("meta")
SOUND = torch.ones(1, 4, 2, 2)
BAD = torch.full_like(SOUND, float("nan"))


class Slow:
    """A way to fetch from a GPU whose answers come when they are let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.ready = False
        self.sound = True

    def __call__(self, tensors: tuple[Tensor, ...]) -> Slow:
        [answer] = tensors
        assert (answer.shape, answer.dtype) == ((), torch.bool)
        self.asked += 1
        self.ready = False
        return self

    def get(self) -> tuple[Tensor, ...]:
        assert self.ready, "somebody waits"
        return (torch.tensor(self.sound),)


def test_a_cpu_is_asked_at_every_call() -> None:
    watch = Watch("model", "bf16", None)
    watch.see(SOUND)
    assert watch.denoised is SOUND
    with pytest.raises(NanDetected, match=r"UNet of model gave invalid numbers .NaN. in bf16 at call 2"):
        watch.see(BAD)
    assert watch.denoised is SOUND


def test_a_gpu_is_asked_now_and_then_and_heard_when_it_answers() -> None:
    gpu, pictures = Slow(), SOUND.to(GPU)
    watch = Watch("model", "fp16", gpu)
    for _ in range(GPU_LOOKS_EVERY - 1):
        watch.see(pictures)
    assert gpu.asked == 0
    watch.see(pictures)
    assert gpu.asked == 1
    for _ in range(3 * GPU_LOOKS_EVERY):
        watch.see(pictures)
    assert gpu.asked == 1, "one question at a time"
    gpu.ready = True
    watch.see(pictures)
    for _ in range(GPU_LOOKS_EVERY - 1):
        watch.see(pictures)
    assert gpu.asked == 2
    gpu.ready, gpu.sound = True, False
    with pytest.raises(NanDetected, match=f"at call {5 * GPU_LOOKS_EVERY}"):
        watch.see(pictures)


def test_a_device_from_which_nothing_can_be_fetched_is_asked_now_and_then() -> None:
    def looked_at(call: int) -> bool:
        watch = Watch("model", "fp16", None)
        for _ in range(call - 1):
            watch.see(SOUND.to(GPU))
        try:
            watch.see(SOUND.to(GPU))
        except RuntimeError:  # meta tensors have no numbers to tell
            return True
        return False

    assert [call for call in range(1, GPU_LOOKS_EVERY + 1) if looked_at(call)] == [GPU_LOOKS_EVERY]
