"""A stand-in engine that saves real pictures with real parameters texts, and the full app around a real JobService.

No torch: what is tested with it is everything but the mathematics. What a job does is told by words of its prompt:
"slow" takes 50 ms a step, "fail" ends with an error in words, "held" waits in its first step until the file
`cache/go` is there.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded import install_embedded
from PIL import Image as Picture

from webui import infotext, pictures
from webui.catalog import Catalog
from webui.errors import OutOfMemory
from webui.events import Event, Finished, Image, Loaded, Loading, Memory, Preview, Started, Step, Warning
from webui.inputs import InputStore
from webui.params import GenerationParams
from webui.paths import Paths, write_new
from webui.settings import Settings, SettingsStore


@dataclass(frozen=True)
class Report:
    device: str = "cpu"
    name: str = "painter"


class Painter:
    def __init__(self, settings: Settings, paths: Paths) -> None:
        self.paths = paths
        self.count = 0

    def report(self) -> Report:
        return Report()

    def memory(self) -> Memory:
        return Memory("cpu", 100, 100, 1000, 120)

    def load(self, checkpoint: str | None = None, vae: str | None = None) -> Iterator[Event]:
        yield Loading("checkpoint", str(checkpoint), f"Loading weights [abc] from /somewhere/secret/{checkpoint}")
        yield Loaded("checkpoint", str(checkpoint), "abc", "/somewhere/secret", {"read": 0.1})

    def generate(
        self, params: GenerationParams, control: Any = None, *, user: str = "", made: Sequence[Image] = ()
    ) -> Iterator[Event]:
        words = set(params.prompt.replace(",", " ").split())
        yield from self.load(params.checkpoint)
        width, height = params.width or 64, params.height or 64
        if params.extras is not None:
            yield from self._enlarge(params)
            return
        yield Started(params.pictures, width, height, params.steps)
        for index in range(params.pictures):
            seed = params.seeds_of(index)[0]
            colour = hashlib.sha256(f"{seed} {params.prompt}".encode()).digest()
            for step in range(1, params.steps + 1):
                if "slow" in words:
                    time.sleep(0.05)
                while "held" in words and not (self.paths.cache_dir / "go").exists():
                    time.sleep(0.01)
                    if control.stopping:
                        break
                yield Step(step, params.steps, index + 1, params.pictures, 5.0, 1.0)
                yield Preview(_jpeg(colour), step)
                if "fail" in words:
                    raise OutOfMemory("The device ran out of memory.", "Make it smaller.")
                if control is not None and control.interrupted:
                    yield Finished(index, {"total": 1.0}, 120, interrupted=True)
                    return
                if control is not None and control.skipped:
                    break
            if control is not None:
                control.batch_done()
            yield self._save(params, index, seed, Picture.new("RGB", (width, height), tuple(colour[:3])))
        yield Warning("note", "a note")
        yield Finished(params.pictures, {"sample": 0.5, "total": 1.0}, 120)

    def _enlarge(self, params: GenerationParams) -> Iterator[Event]:
        assert params.extras is not None
        source = InputStore(self.paths.outputs).open(params.extras.image).convert("RGB")
        size = (round(source.width * params.extras.scale), round(source.height * params.extras.scale))
        yield self._save(params, 0, 0, source.resize(size))
        yield Finished(1, {"total": 1.0}, 120)

    def _save(self, params: GenerationParams, index: int, seed: int, picture: Picture.Image) -> Image:
        name = (params.checkpoint or "").rpartition(".")[0]
        text = infotext.format(params, index=index, model_name=name, model_hash="0123456789")
        data = pictures.encode(picture, params.image_format, params.image_quality, text)
        digest = hashlib.sha256(picture.tobytes()).hexdigest()
        if not params.save:
            return Image(index, "", seed, picture.width, picture.height, text, digest, png=data)
        suffix = pictures.SUFFIXES[params.image_format]
        path = self.paths.outputs / "txt2img-images" / f"{time.time_ns()}-{seed}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, data)
        return Image(index, str(path), seed, picture.width, picture.height, text, digest)


class Sketcher(Painter):
    """Makes at most two small pictures, whatever is asked for: for tests that ask for anything."""

    def generate(
        self, params: GenerationParams, control: Any = None, *, user: str = "", made: Sequence[Image] = ()
    ) -> Iterator[Event]:
        small: dict[str, Any] = {"prompt": "", "steps": 1, "batch_size": 1, "batch_count": min(2, params.pictures)}
        if params.extras is None:
            small.update(width=16, height=16)
        else:
            small["extras"] = {**params.extras.model_dump(), "scale": 1.0}
        yield from super().generate(params.changed(**small), control)


def sketcher(settings: Settings, paths: Paths) -> Sketcher:
    return Sketcher(settings, paths)


def painter(settings: Settings, paths: Paths) -> Painter:
    return Painter(settings, paths)


def _jpeg(colour: bytes) -> bytes:
    buffer = io.BytesIO()
    Picture.new("RGB", (8, 8), tuple(colour[:3])).save(buffer, "JPEG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Atelier:
    """The app with everything behind it, the engine excepted."""

    app: Any
    client: Any
    jobs: Any
    catalog: Catalog
    store: SettingsStore
    paths: Paths

    def let_go(self) -> None:
        """Held jobs go on."""
        (self.paths.cache_dir / "go").touch()

    def hold(self) -> None:
        (self.paths.cache_dir / "go").unlink(missing_ok=True)


def with_checkpoint(root: Path) -> Path:
    """A data folder that holds the embedded checkpoint."""
    install_embedded(root)
    return root


@contextmanager
def atelier(root: Path, factory: Any = None, **more: Any) -> Iterator[Atelier]:
    """The full app, the Gradio page excepted, in this process; `more` goes to `build_app`."""
    import pytest
    from starlette.testclient import TestClient

    from webui.jobs.service import JobService
    from webui.server import app as app_module
    from webui.server.options import ServeOptions

    paths = Paths.under(root)
    paths.make_folders()
    catalog, settings = Catalog(paths), Settings()
    store = SettingsStore(settings, paths.config_file)
    jobs = JobService(settings, paths, catalog, factory=factory or painter)
    jobs.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(app_module, "mount_page", lambda app, _: app)
            app = app_module.build_app(jobs, catalog, store, paths, ServeOptions(), **more)
        with TestClient(app, base_url="http://127.0.0.1:7860", client=("127.0.0.1", 50000)) as client:
            yield Atelier(app, client, jobs, catalog, store, paths)
    finally:
        jobs.stop()
        catalog.close()
