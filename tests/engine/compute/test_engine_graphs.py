"""Recorded UNets: the same pictures as from plain calls, and a new recording for whatever a recording cannot know.

There is no GPU here, so the recorder is a double that keeps to the terms of a CUDA graph; see `Tape`.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from block_models import SMALL, ours
from embedded import install_embedded
from engine_runs import QUICK, make_engine, run
from network_files import write_lora
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from webui.engine import Engine
from webui.engine.compute.graphs import KEPT, Graphs, Recording, layout_of, plain, recorder_for
from webui.engine.compute.reuse import ReusingUnet
from webui.engine.compute.seamless import seamless
from webui.engine.memory.residency import Residency
from webui.settings import MemoryMode

CPU = torch.device("cpu")
PLENTY = 10**12


class Tape:
    """Repeats, one after the other, the operations that it saw, on the very memory that it saw them read and write.

    So it is as blind as a graph: an argument that nobody copied into its place, or a weight that lies elsewhere by now,
    gives the answer of the time of the recording.
    """

    def __init__(self, nbytes: int = 0) -> None:
        self.recorded = self.repeated = 0
        self._nbytes = nbytes

    def record(self, work: Callable[[], Tensor]) -> Recording:
        self.recorded += 1
        with _Operations() as seen:
            answer = work()

        def repeat() -> None:
            self.repeated += 1
            for operation, args, kwargs, outputs in seen.operations:
                made = [one for one in tree_flatten(operation(*args, **kwargs))[0] if isinstance(one, Tensor)]
                for old, new in zip(outputs, made, strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)

        answer.zero_()  # the recording itself computes nothing that counts
        return Recording(answer, repeat, self._nbytes)


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        outputs = func(*args, **kwargs)
        # Aliases: a parameter that gets other weights by `.data` would take the recording with it.
        kept = [one.detach() for one in tree_flatten(outputs)[0] if isinstance(one, Tensor)]
        self.operations.append((func, tree_map(_alias, args), tree_map(_alias, kwargs), kept))
        return outputs


def _alias(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Tape]]:
    """An engine that records, with a LoRA named film."""
    root = tmp_path_factory.mktemp("graphs")
    install_embedded(root)
    engine, tape = make_engine(root), Tape()
    engine._tools.graphs = Graphs(tape, lambda: PLENTY)
    write_lora(engine)
    yield engine, tape
    engine.close()


def draw(engine: Engine, **fields: Any) -> list[str]:
    """The digests of a small job."""
    return run(engine, **{"width": 64, "height": 64, **fields}).digests


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prompt": "a blue house", "negative_prompt": "red", "seed": 8},
        {"prompt": "a [red:blue:0.5] apple AND a house", "sampler": "Heun"},
        {"prompt": "a red apple <lora:film:0.8>"},
        {"prompt": "a red apple <lora:film:0.8:start=0.5>"},
        {"guidance_end": 0.5, "width": 128, "batch_size": 2},
        {"negative_prompt": "grey " * 80},
        {"tiling_x": True},
        {"feature_reuse": 2},
    ],
    ids=str,
)
def test_a_recorded_unet_gives_the_same_picture(
    recorded: tuple[Engine, Tape], fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, tape = recorded
    before = tape.repeated
    made = draw(engine, **fields)
    repeated = tape.repeated - before
    with monkeypatch.context() as patch:
        patch.setattr(engine._tools, "graphs", Graphs(None, lambda: PLENTY))
        assert draw(engine, **fields) == made
    unsafe = "tiling_x" in fields or "feature_reuse" in fields
    assert (repeated == 0) == unsafe


def test_a_second_job_of_the_same_kind_records_nothing_new(recorded: tuple[Engine, Tape]) -> None:
    engine, tape = recorded
    draw(engine, seed=20)
    before = tape.recorded, tape.repeated
    draw(engine, seed=21, prompt="a green tree")
    assert (tape.recorded, tape.repeated) == (before[0], before[1] + QUICK["steps"])


def test_a_lora_taken_off_and_put_on_again_finds_both_recordings(recorded: tuple[Engine, Tape]) -> None:
    engine, tape = recorded
    apple, film = draw(engine), draw(engine, prompt="a red apple <lora:film:0.5>")
    before = tape.recorded
    assert draw(engine) == apple != film
    assert draw(engine, prompt="a red apple <lora:film:0.5>") == film
    assert tape.recorded == before


def test_a_network_knows_where_its_tensors_lie_and_whether_hooks_run() -> None:
    unet = ours(SMALL)
    layout = layout_of(unet, CPU)
    assert layout == layout_of(unet, CPU)
    weight = unet.conv_in.weight
    own = weight.data
    weight.data = own.clone()
    assert layout_of(unet, CPU) not in (layout, None)
    weight.data = own
    assert layout_of(unet, CPU) == layout
    assert layout_of(unet, torch.device("meta")) is None, "it is not there"
    with seamless(unet, (True, False)):
        assert layout_of(unet, CPU) is None
    assert layout_of(unet, CPU) == layout


def ask(graphs: Graphs, unet: Any, side: int = 8, seed: int = 0) -> Tensor:
    """The answer, which has to be that of a plain call."""
    generator = torch.Generator().manual_seed(seed)
    sample, context = torch.randn(2, 4, side, side, generator=generator), torch.randn(2, 77, 24, generator=generator)
    reusing = ReusingUnet(unet, Residency(CPU, MemoryMode.normal), 1, 0.0, graphs.of(lambda: None))
    named = {"encoder_hidden_states": context, "timestep_cond": None, "added_cond_kwargs": None}
    with torch.inference_mode():
        reusing.begin(0)
        answer = reusing(sample, torch.tensor([500.0, 500.0]), **named)[0]
        expected = plain(unet, sample, torch.tensor([500.0, 500.0]), **named)
    torch.testing.assert_close(answer, expected)
    return answer


def test_an_answer_stays_what_it_was_when_the_next_one_comes() -> None:
    unet, graphs = ours(SMALL), Graphs(Tape(), lambda: PLENTY)
    answers = [ask(graphs, unet, seed=seed) for seed in range(4)]
    kept = [answer.clone() for answer in answers[1:]]
    ask(graphs, unet, seed=9)
    assert all(answer.equal(copy) for answer, copy in zip(answers[1:], kept, strict=True))


def test_no_graph_is_repeated_after_another_one_has_ended() -> None:
    """The two may share a workspace of cuBLAS, which is gone with the first."""
    unet, tape = ours(SMALL), Tape()
    graphs = Graphs(tape, lambda: PLENTY, keep=2)
    for side in (8, 16):
        ask(graphs, unet, side)
        ask(graphs, unet, side)
    ask(graphs, unet, 8)
    assert (len(graphs), tape.recorded) == (2, 2)
    ask(graphs, unet, 24)
    ask(graphs, unet, 24)
    assert (len(graphs), tape.recorded) == (1, 3)
    ask(graphs, unet, 16)
    assert (len(graphs), tape.recorded) == (2, 4)


def test_graphs_go_when_the_network_of_one_goes() -> None:
    unet, other, unrecorded, graphs = ours(SMALL), ours(SMALL), ours(SMALL), Graphs(_Forgetful(), lambda: PLENTY)
    for network in (unet, other):
        ask(graphs, network)
        ask(graphs, network)
    ask(graphs, unrecorded)
    assert len(graphs) == 2
    del unrecorded
    gc.collect()
    assert len(graphs) == 2
    del network, unet
    gc.collect()
    assert len(graphs) == 0


class _Forgetful:
    """Like a graph it keeps no network alive; it repeats nothing."""

    def record(self, work: Callable[[], Tensor]) -> Recording:
        return Recording(work(), lambda: None, 5)


def test_without_room_nothing_is_recorded_and_what_is_kept_makes_room() -> None:
    unet, tape, free = ours(SMALL), Tape(nbytes=60), [40]
    graphs = Graphs(tape, lambda: free[0], room=50)
    ask(graphs, unet)
    ask(graphs, unet)
    assert tape.recorded == 0
    free[0] = 100
    ask(graphs, unet)
    assert tape.recorded == 1
    assert not graphs.make_room(40)
    assert graphs.make_room(41), "of the 100 that are free, 60 are the graphs' own"
    assert len(graphs) == 0
    assert not graphs.make_room(1000), "there is nothing to give up"
    ask(graphs, unet)
    assert tape.recorded == 2


class _Broken:
    def __init__(self, error: Exception) -> None:
        self.asked = 0
        self._error = error

    def record(self, _work: Callable[[], Tensor]) -> Recording:
        self.asked += 1
        raise self._error


def test_what_cannot_be_recorded_runs_as_before_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    unet, broken = ours(SMALL), _Broken(RuntimeError("operation not permitted\nwhen stream is capturing"))
    graphs = Graphs(broken, lambda: PLENTY)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            ask(graphs, unet)
    assert broken.asked == 1
    (record,) = caplog.records
    assert "2x4x8x8" in record.message
    assert "operation not permitted" in record.message


def test_out_of_memory_in_a_recording_gives_up_the_others(caplog: pytest.LogCaptureFixture) -> None:
    unet, graphs = ours(SMALL), Graphs(_Forgetful(), lambda: PLENTY)
    graphs.of(lambda: None)
    with torch.inference_mode():
        for _ in range(2):
            graphs.run(
                unet, 1, torch.zeros(1, 4, 8, 8), torch.zeros(1), {"encoder_hidden_states": torch.zeros(1, 2, 24)}
            )
    assert len(graphs) == 1
    graphs._recorder = _Broken(torch.OutOfMemoryError("CUDA out of memory"))
    with caplog.at_level(logging.WARNING):
        ask(graphs, unet, 16)
        ask(graphs, unet, 16)
    assert len(graphs) == 0
    assert "out of memory" in caplog.text


def test_out_of_memory_in_a_plain_call_gives_up_the_graphs_and_does_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    unet, graphs, asked = ours(SMALL), Graphs(Tape(), lambda: PLENTY), list[int]()

    def full(unet: Any, sample: Tensor, timestep: Tensor, **named: Any) -> Tensor:
        asked.append(len(graphs))
        if len(graphs) or sample.shape[-1] > 24:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(unet, sample, timestep, **named)

    ask(graphs, unet)
    ask(graphs, unet)
    monkeypatch.setattr("webui.engine.compute.graphs.plain", full)
    ask(graphs, unet, 16)
    assert asked == [1, 0]
    with pytest.raises(torch.OutOfMemoryError):  # there is nothing to give up any more
        ask(graphs, unet, 32)
    assert asked == [1, 0, 0]


def test_only_a_gpu_records_and_only_where_it_is_wanted() -> None:
    assert recorder_for(CPU, wanted=True) is None
    assert recorder_for(torch.device("cuda"), wanted=False) is None
    assert Graphs(None, lambda: PLENTY).of(lambda: None) is plain


def test_recordings_are_told_among_what_is_kept_and_can_be_cleared(data_dir: Path) -> None:
    engine, tape = make_engine(data_dir), Tape(nbytes=1000)
    engine._tools.graphs = Graphs(tape, lambda: PLENTY)

    def kept() -> tuple[int, int, int]:
        graphs = next(cache for cache in engine.caches() if cache.name == "graphs")
        return graphs.entries, graphs.bytes, graphs.most

    made = run(engine, width=64, height=64)
    assert kept() == (1, 1000, KEPT)
    engine.clear(["graphs"])
    assert kept() == (0, 0, KEPT)
    assert run(engine, width=64, height=64).digests == made.digests
    assert tape.recorded == 2
    engine.close()
