"""From a finished picture to its file, its record and the event that tells of it."""

from __future__ import annotations

import datetime
import hashlib
import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image as PillowImage

from webui import pictures
from webui.engine.saving.save import save_picture
from webui.engine.shared import Tools
from webui.errors import SaveError
from webui.events import Image
from webui.params import GenerationParams
from webui.provenance import Environment, SavedPicture, UsedModel

MOST_PENDING = 8  # pictures
ENCODERS = 4  # threads at most

_Encoded = tuple[bytes, str]
"""A picture's file, and the SHA-256 of its pixels."""
_Written = tuple[Image, SavedPicture | None]
"""What is to be told of a picture, and its file if it has one."""


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
    image, saved = _written(tools, params, index, made, _encoded(params, made), folder)
    if saved is not None:
        tell(saved)
    return image


class Keeping:
    """Keeps the pictures of one job while the job goes on: their files are written in another thread, one by one.

    Compressing 1024x1024 pixels takes about as long as ten steps of a fast GPU. So beside a GPU, where processors are
    idle, several pictures are compressed at once. What is told of a picture is told by the job's own thread, in
    `deliver` and `finish`, and in the order of the pictures: those who hear of it (extensions, the ledger of a folder)
    need not be safe against threads.
    """

    def __init__(self, tools: Tools, tell: Callable[[SavedPicture], None], emit: Callable[[Image], None]) -> None:
        """`tell` and `emit` are called once for each picture: with its file, if it has one, and with its event."""
        self._tools = tools
        self._tell = tell
        self._emit = emit
        self._thread: ThreadPoolExecutor | None = None
        self._encoders: ThreadPoolExecutor | None = None
        self._pending: deque[Future[_Written]] = deque()

    @property
    def busy(self) -> bool:
        """Whether a picture has not been told yet."""
        return bool(self._pending)

    def keep(self, params: GenerationParams, index: int, made: MadePicture) -> None:
        """Begin with picture `index`. Waits while `MOST_PENDING` others are not done, since each holds memory."""
        while len(self._pending) >= MOST_PENDING:
            self._deliver_first()
        if self._thread is None or self._encoders is None:
            count = 1 if self._tools.device.kind == "cpu" else min(ENCODERS, os.cpu_count() or 1)
            self._thread, self._encoders = ThreadPoolExecutor(1, "keeping"), ThreadPoolExecutor(count, "encoding")
        encoding = self._encoders.submit(_encoded, params, made)

        def write() -> _Written:
            return _written(self._tools, params, index, made, encoding.result())

        self._pending.append(self._thread.submit(write))

    def deliver(self) -> None:
        """Tell of what is done by now. Raises what encoding a picture raised."""
        while self._pending and self._pending[0].done():
            self._deliver_first()

    def finish(self) -> None:
        """Wait for all of them, tell, and end the threads. Raises what the first bad one raised, in the end."""
        errors: list[Exception] = []
        while self._pending:
            try:
                self._deliver_first()
            except Exception as error:  # the others have their files and have to be told
                errors.append(error)
        for threads in (self._encoders, self._thread):
            if threads is not None:
                threads.shutdown()
        self._thread = self._encoders = None
        if errors:
            raise errors[0]

    def _deliver_first(self) -> None:
        image, saved = self._pending.popleft().result()
        if saved is not None:
            self._tell(saved)
        self._emit(image)


def _encoded(params: GenerationParams, made: MadePicture) -> _Encoded:
    digest = hashlib.sha256(made.image.convert("RGB").tobytes()).hexdigest()
    data = pictures.encode(made.image, params.image_format, params.image_quality, made.infotext, made.chunks)
    return data, digest


def _written(
    tools: Tools, params: GenerationParams, index: int, made: MadePicture, encoded: _Encoded, folder: str = ""
) -> _Written:
    """Write a picture's file, if it is to have one."""
    text, (width, height), (data, digest) = made.infotext, made.image.size, encoded
    saved: SavedPicture | None = None
    error, png = "", b""

    def saved_as(target: Path) -> SavedPicture:
        return SavedPicture(params, index, target, width, height, text, digest, made.environment, made.models)

    def record(target: Path) -> AbstractContextManager[None]:
        return tools.save_hook(saved_as(target))

    try:
        if params.save:
            written = pictures.file_format(params.image_format, width, height, text)
            today = datetime.date.today()
            kind = folder or f"{params.kind}-images"
            saved = saved_as(save_picture(tools.paths.outputs, data, made.seed, written, today, record, kind=kind))
        else:
            png = data
    except SaveError as failure:
        error = str(failure)
        png = pictures.encode(made.image, "png", params.image_quality, text, made.chunks)
    path = "" if saved is None else str(saved.path)
    return Image(index, path, made.seed, width, height, text, digest, error, png), saved
