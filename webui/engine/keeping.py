"""From a finished picture to its file, its record and the event that tells of it."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image as PillowImage

from webui import pictures
from webui.engine.save import save_picture
from webui.engine.shared import Tools
from webui.errors import SaveError
from webui.events import Image
from webui.params import GenerationParams
from webui.provenance import Environment, SavedPicture, UsedModel


@dataclass(frozen=True)
class MadePicture:
    """A finished picture and what is written with it; `chunks` are more texts for its file."""

    image: PillowImage.Image
    infotext: str
    seed: int
    environment: Environment
    models: tuple[UsedModel, ...]
    chunks: Mapping[str, str] = field(default_factory=dict)


def keep_picture(
    tools: Tools,
    params: GenerationParams,
    index: int,
    made: MadePicture,
    tell: Callable[[SavedPicture], None],
    folder: str = "",
) -> Image:
    """Save picture `index` of a job, unless it is not to be saved; the event that tells of it.

    `tell` is told when it has its file. `folder` of the outputs: that of the job's kind if not given.
    """
    text, (width, height) = made.infotext, made.image.size
    digest = hashlib.sha256(made.image.convert("RGB").tobytes()).hexdigest()
    path, error, png = "", "", b""

    def saved_as(target: Path) -> SavedPicture:
        return SavedPicture(params, index, target, width, height, text, digest, made.environment, made.models)

    def record(target: Path) -> AbstractContextManager[None]:
        return tools.save_hook(saved_as(target))

    data = pictures.encode(made.image, params.image_format, params.image_quality, text, made.chunks)
    try:
        if params.save:
            written = pictures.file_format(params.image_format, width, height, text)
            today = datetime.date.today()
            kind = folder or f"{params.kind}-images"
            path = str(save_picture(tools.paths.outputs, data, made.seed, written, today, record, kind=kind))
            tell(saved_as(Path(path)))
        else:
            png = data
    except SaveError as failure:
        error = str(failure)
        png = pictures.encode(made.image, "png", params.image_quality, text, made.chunks)
    return Image(index, path, made.seed, width, height, text, digest, error, png)
