"""Stand-in engines for the worker process: no torch, quick, and able to fail in every way a real one can.

What a job does is told by the words of its prompt. Each run appends a line to `cache/runs.log`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webui.caches import CacheState
from webui.errors import OutOfMemory
from webui.events import Event, Failed, Finished, Image, Loaded, Loading, Memory, Preview, Started, Step, Warning
from webui.params import GenerationParams
from webui.paths import Paths
from webui.settings import Settings


@dataclass(frozen=True)
class Report:
    device: str = "cpu"
    name: str = "stand-in"


class ScriptedEngine:
    def __init__(self, settings: Settings, paths: Paths) -> None:
        self.paths = paths

    def report(self) -> Report:
        assert "torch" not in sys.modules
        return Report()

    def memory(self) -> Memory:
        return Memory("cpu", 100, 100, 1000, 120)

    def load(self, checkpoint: str | None = None, vae: str | None = None) -> Iterator[Event]:
        yield Loading("checkpoint", str(checkpoint), f"Loading weights [abc] from /somewhere/{checkpoint}")
        if checkpoint == "poison.safetensors":
            os.kill(os.getpid(), signal.SIGKILL)
        yield Loaded("checkpoint", str(checkpoint), "abc", "", {"read": 0.1})

    def generate(
        self, params: GenerationParams, control: Any = None, *, user: str = "", made: Sequence[Image] = ()
    ) -> Iterator[Event]:
        words = set(params.prompt.split())
        with (self.paths.cache_dir / "runs.log").open("a") as log:
            log.write(params.prompt + "\n")
        yield Started(params.pictures, params.width or 64, params.height or 64, params.steps)
        if "raise" in words:
            raise RuntimeError("a fault nobody foresaw")
        if "memory" in words:
            raise OutOfMemory("The device ran out of memory.", "Make it smaller.")
        if "sticky" in words and ("always" in words or self._first_time("sticky")):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        yield from made
        if "silent" in words:
            return
        if "flood" in words:
            for number in range(5000):
                yield Preview(bytes(10_000), number)
        for index in sorted(set(range(params.pictures)) - {image.index for image in made}):
            for step in range(1, params.steps + 1):
                time.sleep(0.4 if "slow" in words else 0.01)
                yield Step(step, params.steps, index + 1, params.pictures, float("inf"), 1.0)
                yield Preview(b"jpeg %d" % step, step)
                if index == 1 or "soon" in words:
                    self._fault(words)
                if index == 1 and "midway" in words and self._first_time("midway"):
                    raise RuntimeError("CUDA error: an illegal memory access was encountered")
                if control is not None and control.interrupted:
                    yield self._image(index, params)
                    yield Finished(index + 1, {"total": 1.0}, 120, interrupted=True)
                    return
                if control is not None and control.skipped:
                    control.batch_done()
                    yield Warning("skipped", "skipped")
                    break
            yield self._image(index, params, unsaved="unsaved" in words)
        if "busy" in words:
            time.sleep(1e6)
        yield Warning("note", "a note")
        yield Warning("note", "a note")
        yield Finished(params.pictures, {"sample": 0.5, "total": 1.0}, 120)
        if "twice" in words:
            yield Failed({"error": "EngineFault", "message": "after the end", "advice": ""})

    def _fault(self, words: set[str]) -> None:
        if "kill" in words:
            os.kill(os.getpid(), signal.SIGKILL)
        if "stop" in words:
            os.kill(os.getpid(), signal.SIGSTOP)
        if "hang" in words:
            time.sleep(1e6)
        if "leave" in words:
            os._exit(3)

    def _first_time(self, name: str) -> bool:
        marker = self.paths.cache_dir / name
        if marker.exists():
            return False
        marker.touch()
        return True

    def _image(self, index: int, params: GenerationParams, *, unsaved: bool = False) -> Image:
        seed = params.seeds_of(index)[0]
        if unsaved:
            return Image(index, "", seed, 64, 64, "text", "0", error="No space left on device", png=b"png bytes")
        path = self.paths.outputs / "txt2img-images" / f"{index:05d}-{seed}.png"
        return Image(index, str(path), seed, 64, 64, params.prompt, "0")


class RecordedEngine(ScriptedEngine):
    """Wants to know whose job it does, as the engine with the history does."""

    def following(self, stream: Iterator[Event], *, job: str, user: str) -> Iterator[Event]:
        (self.paths.cache_dir / "followed").write_text(f"{job} {user}")
        yield from stream


class KeepingEngine(ScriptedEngine):
    """Keeps the prompts of its jobs, and lets them be cleared."""

    def __init__(self, settings: Settings, paths: Paths) -> None:
        super().__init__(settings, paths)
        self._prompts: list[str] = []

    def generate(
        self, params: GenerationParams, control: Any = None, *, user: str = "", made: Sequence[Image] = ()
    ) -> Iterator[Event]:
        self._prompts.append(params.prompt)
        return super().generate(params, control)

    def caches(self) -> list[CacheState]:
        return [CacheState("prompts", len(self._prompts), sum(map(len, self._prompts)), 0, 100, tuple(self._prompts))]

    def clear(self, names: Sequence[str] = ()) -> None:
        if "prompts" in names:
            self._prompts.clear()


def keeping(settings: Settings, paths: Paths) -> KeepingEngine:
    return KeepingEngine(settings, paths)


def recorded(settings: Settings, paths: Paths) -> RecordedEngine:
    return RecordedEngine(settings, paths)


def scripted(settings: Settings, paths: Paths) -> ScriptedEngine:
    return ScriptedEngine(settings, paths)


def cannot_start(settings: Settings, paths: Paths) -> ScriptedEngine:
    raise ImportError("libcuda.so is missing")


def starts_once_mended(settings: Settings, paths: Paths) -> ScriptedEngine:
    if not (paths.cache_dir / "mended").exists():
        os._exit(7)
    return ScriptedEngine(settings, paths)


class PlainCatalog:
    """What `JobService` asks of a catalog, without files."""

    def __init__(self, default: str | None = None) -> None:
        self._default = default

    def resolve(self, params: GenerationParams, settings: Settings) -> GenerationParams:
        return params.changed(
            checkpoint=params.checkpoint or "a.safetensors", width=params.width or 64, height=params.height or 64
        )

    def default_checkpoint(self, preferred: str) -> Any:
        return Path(self._default) if self._default else None  # has a name, and that is all that is asked of it
