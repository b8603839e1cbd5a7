"""Real pictures, really saved, as the engine saves them: with the recorder's hook around each write."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from webui import infotext, pictures
from webui.history import History, Recorder
from webui.params import GenerationParams, make_params
from webui.paths import Paths, write_new
from webui.provenance import Environment, SavedPicture, UsedModel

CHECKPOINT = UsedModel("checkpoint", "photo/base-v15.safetensors", "6ce0161689" + "ab" * 27)
ENVIRONMENT = Environment(product="0.1.0", torch="2.13.0", device="cpu", dtype="float32", attention="sdpa")


def draw(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """A picture that depends on the seed, and on nothing else."""
    base = Image.new("RGB", (4, 3))
    base.putdata([((seed * 37 + 50 * i) % 256, (seed + 20 * i) % 256, 255 - 16 * i) for i in range(12)])
    return base.resize((width, height), Image.Resampling.BICUBIC)


@dataclass
class Studio:
    """Saves pictures as the engine does."""

    paths: Paths
    recorder: Recorder
    models: tuple[UsedModel, ...] = (CHECKPOINT,)
    environment: Environment = ENVIRONMENT
    write: Callable[[Path, bytes], None] = write_new
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def params(self, **fields: Any) -> GenerationParams:
        given = {"prompt": "a castle", "seed": 7, "width": 64, "height": 48, "checkpoint": CHECKPOINT.name}
        return make_params({**given, **fields})

    def save(
        self, params: GenerationParams | None = None, index: int = 0, path: Path | None = None, **fields: Any
    ) -> Path:
        """Draw, encode and write one picture under the next name, inside the recorder's hook."""
        params = params or self.params(**fields)
        seed = params.seeds_of(index)[0]
        picture = draw(seed, params.width or 64, params.height or 48)
        text = infotext.format(params, index=index, model_name="base-v15", model_hash=CHECKPOINT.sha256[:10])
        folder = self.paths.outputs / "txt2img-images" / "2026-11-23"
        suffix = pictures.SUFFIXES[params.image_format]
        path = path or folder / f"{next(self._numbers):05d}-{seed}{suffix}"
        digest = hashlib.sha256(picture.tobytes()).hexdigest()
        saved = SavedPicture(
            params, index, path, picture.width, picture.height, text, digest, self.environment, self.models
        )
        with self.recorder.saving(saved):
            self.write(path, pictures.encode(picture, params.image_format, params.image_quality, text))
        return path

    def save_for(self, user: str, **fields: Any) -> Path:
        """The same, by a user's job."""
        found: list[Path] = []

        def job() -> Iterator[Any]:
            found.append(self.save(**fields))
            yield from ()

        list(self.recorder.following(job(), job=f"job-{user}-{next(self._numbers)}", user=user))
        return found[0]


def ids(history: History, search: str = "", user: str | None = "") -> list[int]:
    """Everything a search finds, the newest first."""
    return [card.id for card in history.page(user, search, limit=500).cards]
