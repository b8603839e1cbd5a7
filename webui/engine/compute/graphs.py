"""The UNet's work on a GPU, recorded once and done again at the cost of one call: CUDA graphs.

A UNet is more than a thousand small operations. A fast GPU does each in less time than Python takes to ask for it, and
waits for Python. A graph holds all of them, with the addresses of everything they read and write; one call runs it.

What may change from call to call is copied into memory that belongs to the graph. What must not have changed is part of
the graph's key: shapes and number formats, and of the network where each of its tensors lies (so that a LoRA, another
precision or a move to RAM makes another graph, and taking the LoRA off finds the first one again). A network with hooks
is not recorded: they run in Python, and a graph would not ask them.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from webui.engine.memory.usage import give_back, is_out_of_memory
from webui.engine.memory.weights import layers_of

KEPT = 8  # graphs
REMEMBERED = 64  # shapes that were met once
ROOM = 2 * 2**30  # bytes that have to be free for a new graph

_Key = tuple[int, Hashable, Hashable]  # id of the network, `layout_of` it, names, shapes and formats of the arguments
Run = Callable[..., Tensor]
"""`run(unet, sample, timestep, **named) -> the UNet's answer`, arguments as of diffusers' UNet2DConditionModel."""

_log = logging.getLogger(__name__)


class Recording(NamedTuple):
    """Work that can be repeated: `answer` holds what came out of it last. `nbytes` of the device were taken for it."""

    answer: Tensor
    repeat: Callable[[], None]
    nbytes: int = 0


class Recorder(Protocol):
    """Records work of a device. What it is given reads and writes the same memory at each repetition."""

    def record(self, work: Callable[[], Tensor]) -> Recording: ...


class CudaRecorder:
    """Graphs that share one pool of memory: they never run at the same time, and each answer is copied at once.

    They are recorded on one stream: for every other one that it sees, cuBLAS takes some 32 MB, and keeps them.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream: torch.cuda.Stream | None = None  # from the first recording on

    def record(self, work: Callable[[], Tensor]) -> Recording:
        """Runs the work once beside the usual stream, as libraries set themselves up at a first call, and records it.

        Other threads may use the GPU meanwhile (`thread_local`).
        """
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream = self._stream
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            work()
        torch.cuda.synchronize(self._device)  # see `give_back`
        torch.cuda.empty_cache()
        before, graph = torch.cuda.memory_reserved(self._device), torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                answer = work()
        except Exception:  # what a broken recording took of the pool would stay taken for as long as others use it
            self._pool = torch.cuda.graph_pool_handle()
            raise
        return Recording(answer, graph.replay, torch.cuda.memory_reserved(self._device) - before)


@dataclass
class _Graph:
    given: dict[str, Tensor]  # the graph's own copies of its arguments
    recording: Recording
    sources: dict[str, Tensor] = field(default_factory=dict)  # what was copied last, where it is not copied each time

    def run(self, arguments: dict[str, Tensor]) -> Tensor:
        for name, tensor in arguments.items():
            if self.sources.get(name) is not tensor:
                self.given[name].copy_(tensor, non_blocking=True)
                if name not in _NEW_AT_EACH_CALL:
                    self.sources[name] = tensor
        self.recording.repeat()
        return self.recording.answer.clone()


_NEW_AT_EACH_CALL = ("sample", "timestep")


class Graphs:
    """The graphs of one engine. Without a `recorder` every call is a plain one.

    They are given up together, never one by one: a CUDA graph that ends takes cuBLAS' workspace of its stream along
    (from torch 2.12 on), into which all graphs that were recorded on that stream write.

    `free` tells how many bytes of the device can still be taken.
    """

    def __init__(
        self, recorder: Recorder | None, free: Callable[[], int], *, keep: int = KEPT, room: int = ROOM
    ) -> None:
        self._recorder = recorder
        self._free = free
        self.keep = keep  # graphs at most
        self._room = room
        self._graphs: dict[_Key, _Graph] = {}
        self._met: OrderedDict[_Key, bool] = OrderedDict()  # whether calls of this kind may be recorded
        self._watched: set[int] = set()  # ids of networks
        self.bytes = 0  # that the graphs keep from everybody else

    def __len__(self) -> int:
        return len(self._graphs)

    def of(self, state: Callable[[], Hashable]) -> Run:
        """How to run a network for the length of a picture. `state` is equal for as long as nobody changes it."""
        return plain if self._recorder is None else _Runs(self, state).run

    def clear(self) -> None:
        """Give up all graphs. Their memory is the device's again once torch's cache is emptied."""
        self._graphs.clear()
        self.bytes = 0

    def make_room(self, size: int) -> bool:
        """Give up all graphs if less than `size` bytes are free beside them; whether that was so."""
        if not self._graphs or self._free() - self.bytes >= size:
            return False
        self.clear()
        return True

    def run(self, unet: Any, layout: Hashable, sample: Tensor, timestep: Tensor, named: dict[str, Any]) -> Tensor:
        """The UNet's answer: plain at the first call of its kind, recorded at the second, repeated from then on."""
        arguments = _arguments(sample, timestep, named)
        shapes = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in arguments.items())
        key = (id(unet), layout, shapes)
        graph = self._graphs.get(key)
        if graph is None and self._is_due(key, unet):
            graph = self._record(key, unet, arguments)
        return self.plainly(unet, sample, timestep, **named) if graph is None else graph.run(arguments)

    def plainly(self, unet: Any, sample: Tensor, timestep: Tensor, **named: Any) -> Tensor:
        """`plain`. Where memory runs out in it, all graphs are given up for it."""
        try:
            return plain(unet, sample, timestep, **named)
        except (RuntimeError, MemoryError) as error:
            if not self._graphs or not is_out_of_memory(error):
                raise
        self.clear()  # outside of the except block, whose traceback would keep tensors alive
        give_back(sample.device)
        return plain(unet, sample, timestep, **named)

    def _is_due(self, key: _Key, unet: Any) -> bool:
        """Whether a call of this kind was met before, may be recorded, and there is room for it."""
        if key not in self._met:
            self._watch(unet)
            self._met[key] = True
            while len(self._met) > REMEMBERED:
                self._met.popitem(last=False)
            return False
        return self._met[key] and self._free() >= self._room

    def _record(self, key: _Key, unet: Any, arguments: dict[str, Tensor]) -> _Graph | None:
        """None where it failed, which the log tells once for each kind of call."""
        if self._recorder is None:
            raise ValueError("there is nothing to record with")
        if len(self._graphs) >= self.keep:
            self.clear()
        given = {name: tensor.clone() for name, tensor in arguments.items()}
        try:
            recording = self._recorder.record(lambda: _call(unet, given))
        except Exception as error:  # a library that cannot be recorded says so in any way it likes
            if is_out_of_memory(error):
                self.clear()
            self._met[key] = False
            first = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            _log.warning("The UNet could not be recorded for latents of %s (%s); it runs step by step.",
                         "x".join(map(str, arguments["sample"].shape)), first)  # fmt: skip
            return None
        self.bytes += recording.nbytes
        graph = self._graphs[key] = _Graph(given, recording)
        return graph

    def _watch(self, unet: Any) -> None:
        """Graphs go with their network: they know addresses alone, and would not keep it."""
        if id(unet) not in self._watched:
            self._watched.add(id(unet))
            weakref.finalize(unet, self._forget, id(unet)).atexit = False

    def _forget(self, number: int) -> None:
        self._watched.discard(number)
        for key in [key for key in self._met if key[0] == number]:
            del self._met[key]
        if any(key[0] == number for key in self._graphs):
            self.clear()


class _Runs:
    """`Run` for one picture: looks where a network's tensors lie when it is told that something changed."""

    def __init__(self, graphs: Graphs, state: Callable[[], Hashable]) -> None:
        self._graphs = graphs
        self._state = state
        self._seen: Hashable = object()
        self._layout: Hashable | None = None

    def run(self, unet: Any, sample: Tensor, timestep: Tensor, **named: Any) -> Tensor:
        state = self._state()
        if state != self._seen:
            self._seen, self._layout = state, layout_of(unet, sample.device)
        if self._layout is None:
            return self._graphs.plainly(unet, sample, timestep, **named)
        return self._graphs.run(unet, self._layout, sample, timestep, named)


def plain(unet: Any, sample: Tensor, timestep: Tensor, **named: Any) -> Tensor:
    """The UNet's answer, by asking it."""
    answer: Tensor = unet(sample, timestep, **named)[0]
    return answer


def layout_of(network: Any, device: torch.device) -> Hashable | None:
    """Where the network's tensors lie, and how: equal for equal work. None where it cannot be recorded.

    That is so where a tensor is not on `device` all the time, and where a hook runs.
    """
    found: list[Hashable] = []
    for module in layers_of(network):
        if module._forward_hooks or module._forward_pre_hooks:
            return None
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is None:
                continue
            if tensor.device != device:
                return None
            found.append((tensor.data_ptr(), tensor.dtype, tensor.stride()))
    return hash(tuple(found))


def recorder_for(device: torch.device, *, wanted: bool) -> Recorder | None:
    """What records the work of `device`; None where there is nothing to be had by it, or it is not wanted."""
    if not wanted or device.type != "cuda":
        return None
    return CudaRecorder(device)


def _arguments(sample: Tensor, timestep: Tensor, named: dict[str, Any]) -> dict[str, Tensor]:
    """All tensors of a call, by name."""
    flat = {"sample": sample, "timestep": timestep, **(named.get("added_cond_kwargs") or {})}
    flat |= {name: named.get(name) for name in ("encoder_hidden_states", "timestep_cond")}
    return {name: tensor for name, tensor in flat.items() if tensor is not None}


def _call(unet: Any, given: dict[str, Tensor]) -> Tensor:
    """`_arguments` undone."""
    added = {name: given[name] for name in ("text_embeds", "time_ids") if name in given}
    return plain(
        unet,
        given["sample"],
        given["timestep"],
        encoder_hidden_states=given["encoder_hidden_states"],
        timestep_cond=given.get("timestep_cond"),
        added_cond_kwargs=added or None,
        return_dict=False,
    )
