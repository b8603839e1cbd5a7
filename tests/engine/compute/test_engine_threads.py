"""How many threads a network call gets, and that it follows from the picture alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from embedded import install_embedded
from engine_runs import make_engine, run

from webui.engine import Engine
from webui.engine.compute.threads import FLOP_A_THREAD, suited, threads_for, unet_flop, vae_flop

CPU = torch.device("cpu")
SMALL, LARGE = {"width": 64, "height": 64, "steps": 2}, {"width": 256, "height": 256, "steps": 1}


def told(engine: Engine, threads: int) -> int:
    """Have the engine's thread use this many; gives how many it used before."""

    def tell() -> int:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        return before

    return engine._executor.submit(tell).result()


@pytest.fixture(scope="module")
def bf16(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """In bf16, where the number of threads shows in the last bits."""
    root = tmp_path_factory.mktemp("threads")
    install_embedded(root)
    engine = make_engine(root, device__precision="bf16")
    yield engine
    engine.close()


def test_work_decides_how_many_threads_there_are_within_what_the_machine_has() -> None:
    assert [threads_for(n * FLOP_A_THREAD, 4) for n in (0.1, 1, 1.9, 2, 3.5, 4, 100)] == [1, 1, 1, 2, 3, 4, 4]
    assert threads_for(1e15, 1) == 1


def test_a_block_has_its_threads_and_puts_the_others_back_even_when_it_fails() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with suited(2 * FLOP_A_THREAD, CPU):
            assert torch.get_num_threads() == 2
        with contextlib.suppress(ArithmeticError), suited(0, CPU):
            assert torch.get_num_threads() == 1
            raise ArithmeticError
        with suited(0, torch.device("cuda")):
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_estimate_of_work_is_near_what_is_counted(engine: Engine) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    list(engine.load())
    checkpoint = next(iter(engine._tools.store._checkpoints.values()))
    unet, vae = checkpoint.unet, checkpoint.baked.module  # type: ignore[union-attr]
    x, prompt = torch.zeros(1, 4, 8, 8), torch.zeros(1, 77, unet.config.cross_attention_dim)
    ways: list[tuple[float, Any]] = [
        (unet_flop(unet), lambda: unet(x, torch.zeros(1), encoder_hidden_states=prompt)),
        (vae_flop(vae)[1], lambda: vae.decode(x)),
        (vae_flop(vae)[0], lambda: vae.encode(torch.zeros(1, 3, 64, 64))),
    ]
    for estimate, call in ways:
        with torch.inference_mode(), FlopCounterMode(display=False) as counted:
            call()
        assert 0.7 < estimate * 64 / counted.get_total_flops() < 1.4
    assert checkpoint.flop == unet_flop(unet)


def test_a_small_picture_is_the_same_on_any_number_of_threads_and_after_any_other(bf16: Engine) -> None:
    before = told(bf16, 1)
    try:
        alone = run(bf16, **SMALL).digests
        told(bf16, 2)
        bf16._tools.chunks.clear()
        assert run(bf16, **SMALL).digests == alone
        large = run(bf16, **LARGE).digests
        assert run(bf16, **SMALL).digests == alone
        bf16._tools.chunks.clear()
        assert run(bf16, **LARGE).digests == large
    finally:
        told(bf16, before)


def test_the_record_of_a_picture_tells_its_threads_and_of_how_many(data_dir: Path) -> None:
    from contextlib import nullcontext

    from webui.paths import Paths
    from webui.settings import Settings

    seen: list[str] = []

    def hook(picture: Any) -> Any:
        seen.append(picture.environment.threads)
        return nullcontext()

    engine = Engine(Settings(), Paths.under(data_dir), save_hook=hook)
    told(engine, 2)
    run(engine, **SMALL)
    run(engine, **LARGE)
    told(engine, 1)
    run(engine, **SMALL)
    engine.close()
    assert seen == ["1 of 2", "2", "1"]


def test_a_small_picture_after_a_large_one_has_its_own_peak(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.engine.memory.allocator.KEPT_BYTES", 32 * 2**20)
    engine = make_engine(data_dir)
    small = run(engine, **SMALL).finished.peak_memory
    large = run(engine, width=320, height=320, steps=1).finished.peak_memory
    after = run(engine, **SMALL).finished.peak_memory
    engine.close()
    assert large > small + 64 * 2**20
    assert after < small + (large - small) / 3
