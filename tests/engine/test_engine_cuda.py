"""What only a GPU can show: recorded UNets are equal to plain ones, nobody waits, memory modes keep to their limits."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from block_models import SMALL, ours
from embedded import EMBEDDED_CHECKPOINT, install_embedded
from engine_runs import make_engine, pixels_of, run
from family_runs import Models
from network_files import write_lora
from torch.nn import functional

from benchmarks.gpu import peak_of
from webui.engine import Engine
from webui.engine.compute.attention import Attention, preferred
from webui.engine.compute.graphs import CudaRecorder, Graphs, plain
from webui.engine.compute.kernels import kernels_for
from webui.engine.latents import codec
from webui.engine.memory.residency import Residency
from webui.engine.memory.usage import give_back
from webui.engine.networks.attachment import AttachmentSwitch, ChangedWeights
from webui.paths import Paths
from webui.settings import MemoryMode

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def gpu_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """In fp16, with a LoRA named film."""
    root = tmp_path_factory.mktemp("cuda")
    install_embedded(root)
    engine = make_engine(root, device__precision="fp16")
    write_lora(engine)
    yield engine
    engine.close()


def test_a_cuda_graph_answers_as_the_network_does_and_follows_its_arguments() -> None:
    unet = ours(SMALL, torch.float16).to(CUDA)
    sample = torch.randn(2, 4, 16, 16, device=CUDA, dtype=torch.float16).contiguous(memory_format=torch.channels_last)
    t, context = torch.full((2,), 500.0, device=CUDA), torch.randn(2, 77, 24, device=CUDA, dtype=torch.float16)
    with torch.inference_mode():
        named = {"encoder_hidden_states": context}
        plain(unet, sample, t, **named)
        recording = CudaRecorder(CUDA).record(lambda: plain(unet, sample, t, **named))
        for _ in range(3):
            sample.normal_()
            recording.repeat()
            torch.testing.assert_close(recording.answer, plain(unet, sample, t, **named), atol=2e-2, rtol=2e-2)


def test_graphs_answer_right_after_the_network_of_one_of_them_is_gone() -> None:
    """Also where its memory, cuBLAS' workspace included, has become somebody else's."""
    first, second = (ours(SMALL, torch.float16).to(CUDA) for _ in range(2))
    graphs = Graphs(CudaRecorder(CUDA), lambda: 10**12)
    sample, context = (torch.randn(*shape, device=CUDA, dtype=torch.float16) for shape in ((2, 4, 16, 16), (2, 77, 24)))
    t = torch.full((2,), 500.0, device=CUDA)
    with torch.inference_mode():
        for unet in (first, second):
            run_it = graphs.of(lambda: None)
            for _ in range(3):
                run_it(unet, sample, t, encoder_hidden_states=context)
        assert len(graphs) == 2
        del first, unet
        give_back(CUDA)
        theirs = [torch.full((2**22,), 7.0, device=CUDA) for _ in range(16)]
        for _ in range(3):
            answer = run_it(second, sample, t, encoder_hidden_states=context)
            expected = plain(second, sample, t, encoder_hidden_states=context)
            torch.testing.assert_close(answer, expected, atol=2e-2, rtol=2e-2)
    assert all(bool((block == 7).all()) for block in theirs)


def test_sdxl_is_told_its_sizes_for_every_part_of_a_prompt(tmp_path: Path) -> None:
    models = Models(tmp_path, ["sdxl"])
    try:
        assert run(models.engine, checkpoint="sdxl", prompt="a fox AND a house", steps=4).finished.pictures == 1
    finally:
        models.engine.close()


@pytest.mark.parametrize(
    "fields",
    [{}, {"batch_size": 3}, {"prompt": "a red apple <lora:film:0.8>"}, {"width": 192, "height": 64}],
    ids=str,
)
def test_pictures_with_and_without_graphs_are_the_same(
    gpu_engine: Engine, tmp_path: Path, fields: dict[str, Any]
) -> None:
    install_embedded(tmp_path)
    without = make_engine(tmp_path, device__precision="fp16", device__graphs=False)
    write_lora(without)
    try:
        made, expected = (run(engine, steps=8, **fields).images for engine in (gpu_engine, without))
        for one, other in zip(made, expected, strict=True):
            assert np.abs(pixels_of(one).astype(int) - pixels_of(other)).mean() < 1
    finally:
        without.close()
    assert len(gpu_engine._tools.graphs) > 0


def test_a_step_does_not_wait_for_the_gpu(gpu_engine: Engine) -> None:
    run(gpu_engine, steps=4)

    def waits(steps: int) -> int:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            run(gpu_engine, steps=steps)
        return sum("synchron" in str(one.message) for one in seen)

    torch.cuda.set_sync_debug_mode("warn")
    try:
        assert waits(39) == waits(7)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_pictures_that_are_decoded_while_the_next_one_is_drawn_are_the_same(
    gpu_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"steps": 8, "batch_count": 3, "batch_size": 2}
    ahead = run(gpu_engine, **asked).digests
    monkeypatch.setattr(codec, "fetch_from", lambda _device: None)
    assert run(gpu_engine, **asked).digests == ahead
    assert len(set(ahead)) == 6


@pytest.mark.parametrize("mode", ["medvram", "lowvram"])
def test_frugal_modes_draw_the_same_picture(gpu_engine: Engine, tmp_path: Path, mode: str) -> None:
    install_embedded(tmp_path)
    frugal = make_engine(tmp_path, device__precision="fp16", device__memory=mode)
    try:
        usual, lean = run(gpu_engine), run(frugal)
        assert np.abs(pixels_of(usual.images[0]).astype(int) - pixels_of(lean.images[0])).mean() < 1
        assert len(frugal._tools.graphs) == 0
    finally:
        frugal.close()


def test_frugal_modes_take_less_memory_each_than_the_one_before(tmp_path: Path) -> None:
    """Each in a process of its own, for the peak is the process's."""
    install_embedded(tmp_path)
    paths = Paths.under(tmp_path)
    peaks = []
    for mode in ("normal", "medvram", "lowvram"):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            peak, _ = pool.submit(peak_of, paths, EMBEDDED_CHECKPOINT.name, 128, mode, 4, False).result()
        peaks.append(peak)
    assert peaks[0] > peaks[1] > peaks[2]


def test_weights_that_a_lora_changes_in_a_network_on_its_visit_are_kept_at_home() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(8, 8)).requires_grad_(False)
    own, switch = network[0].weight.clone(), AttachmentSwitch(network, torch.device("cpu"))
    residency = Residency(CUDA, MemoryMode.medvram)
    with residency.using(network):
        switch.use("film", lambda: ChangedWeights({"0.weight": torch.ones(8, 8, device=CUDA)}))
        assert network[0].weight.is_cuda
        assert {tensor.device.type for tensor in switch.changed.tensors.values()} == {"cpu"}
    residency.leave()
    assert torch.equal(network[0].weight, torch.ones(8, 8))
    switch.clear()
    assert torch.equal(network[0].weight, own)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 320, 64, 64), (16, 2560, 8, 8), (1, 128, 512, 512), (3, 96, 13, 11)])
def test_the_kernels_calculate_what_torch_does(dtype: torch.dtype, shape: tuple[int, int, int, int]) -> None:
    kernels, status = kernels_for(CUDA, dtype, wanted=True)
    assert kernels is not None, status.reason
    norm = torch.nn.GroupNorm(32, shape[1], device=CUDA, dtype=dtype)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(shape, device=CUDA, dtype=dtype).contiguous(memory_format=torch.channels_last)
    exact = functional.silu(functional.group_norm(x.float(), 32, norm.weight.float(), norm.bias.float(), norm.eps))
    near = {"atol": 2e-2, "rtol": 1e-2}
    with torch.inference_mode():
        torch.testing.assert_close(kernels.group_norm(x, norm, silu=True).float(), exact, **near)
        shift, plus = torch.randn(shape[:2], device=CUDA, dtype=dtype), torch.randn_like(x)
        total = x.float() + norm.weight.float()[:, None, None] + shift.float()[:, :, None, None] + plus.float()
        got = kernels.add(x.clone(memory_format=torch.preserve_format), norm.weight, shift, plus)
        torch.testing.assert_close(got.float(), total, **near)
        torch.testing.assert_close(kernels.doubled(x), functional.interpolate(x, scale_factor=2.0))
        row_norm = torch.nn.LayerNorm(shape[1], device=CUDA, dtype=dtype)
        rows = x.permute(0, 2, 3, 1)
        expected = functional.layer_norm(rows.float(), (shape[1],), eps=row_norm.eps)
        torch.testing.assert_close(kernels.layer_norm(rows, row_norm).float(), expected, **near)
        value, gate = x.flatten(2).chunk(2, -1)
        if x.shape[2] * x.shape[3] % 2 == 0:
            expected = value.float() * functional.gelu(gate.float())
            torch.testing.assert_close(kernels.gated(x.contiguous().flatten(2)).float(), expected, **near)


def test_a_picture_with_kernels_is_the_picture_without(gpu_engine: Engine, tmp_path: Path) -> None:
    install_embedded(tmp_path)
    plainly = make_engine(tmp_path, device__precision="fp16", device__kernels=False)
    try:
        fused, plain_one = run(gpu_engine, steps=8), run(plainly, steps=8)
        assert np.abs(pixels_of(fused.images[0]).astype(int) - pixels_of(plain_one.images[0])).mean() < 1
    finally:
        plainly.close()


def test_every_attention_backend_that_is_usable_gives_the_same(gpu_engine: Engine) -> None:
    q, k, v = (torch.randn(2, 8, n, 40, device=CUDA, dtype=torch.float16) for n in (256, 77, 77))
    attention = Attention(CUDA, torch.float16)
    assert attention.name == next(
        s.name for name in preferred(CUDA) for s in attention.statuses if s.name == name and s.available
    )
    expected = (q.float() @ k.float().transpose(-1, -2) * 40**-0.5).softmax(-1) @ v.float()
    for _, backend in attention._functions:
        torch.testing.assert_close(backend(q, k, v).float(), expected, atol=2e-2, rtol=2e-2)
    assert gpu_engine.attention.name == attention.name
