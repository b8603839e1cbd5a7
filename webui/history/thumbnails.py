"""Small WEBP copies for the grid, made once each, off the hot path, in a folder with a bound.

A thumbnail's key follows from the picture's pixels (see `rows.thumbnail_key`), so it outlives moves, the trash and even
the loss of the picture itself. It is made by a thread in the background right after the picture was saved, or when it
is first asked for. The cache may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import queue
import re
import threading
import time
from pathlib import Path

from PIL import Image

from webui import pictures
from webui.errors import NotFound, WebUIError
from webui.paths import write_atomic

SIDE = 320  # pixels of the longer side
QUALITY = 80
MAX_FILE = 256 * 2**20  # bytes of a picture that is read for it
MAX_CACHE = 512 * 2**20  # bytes of all thumbnails together
KEEP_SHARE = 0.8  # of the bound, after the oldest were dropped
WAITING = 4096  # pictures in line for the background thread; further ones wait until they are asked for
TOUCH_SECONDS = 24 * 3600.0
PRUNE_EVERY = 500  # new thumbnails

_KEY = re.compile(r"[0-9a-f]{32}")

_log = logging.getLogger(__name__)


class Thumbnails:
    """The cache below `folder`. Safe from any thread; at most two pictures are scaled at the same time."""

    def __init__(self, folder: Path, max_bytes: int = MAX_CACHE) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._working = threading.Semaphore(2)
        self._line: queue.Queue[tuple[str, Path] | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._made = 0

    def get(self, key: str, picture: Path | None) -> bytes:
        """The thumbnail of that key, made from `picture` if need be.

        Raises `NotFound` when there is neither, `WebUIError` when the file is no picture.
        """
        path = self._path(key)
        found = self._cached(path)
        if found is not None:
            return found
        if picture is None:
            raise NotFound("The picture's file is gone, and it has no thumbnail.", "Its parameters are still here.")
        with self._working:
            return self._cached(path) or self._make(path, picture)

    def later(self, key: str, picture: Path) -> None:
        """Make it in the background, if it does not exist."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="thumbnails", daemon=True)
                self._thread.start()
        with contextlib.suppress(queue.Full):
            self._line.put_nowait((key, picture))

    def close(self) -> None:
        """End the background thread; what it has not made is made when it is asked for."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._line.get_nowait()
            self._line.put(None)
            thread.join(5)

    def drop(self, key: str) -> None:
        """Forget a thumbnail whose picture was deleted for good."""
        with contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def prune(self) -> int:
        """Drop the longest unused ones when all together are above the bound. Gives how many went."""
        found: list[tuple[float, int, Path]] = []
        for path in self._folder.glob("??/*.webp"):
            with contextlib.suppress(OSError):
                facts = path.stat()
                found.append((facts.st_mtime, facts.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self._max_bytes:
            return 0
        dropped = 0
        for _, size, path in sorted(found):
            if total <= self._max_bytes * KEEP_SHARE:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size
                dropped += 1
        return dropped

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise NotFound("There is no such thumbnail.")
        return self._folder / key[:2] / f"{key}.webp"

    def _cached(self, path: Path) -> bytes | None:
        try:
            data = path.read_bytes()
            if time.time() - path.stat().st_mtime > TOUCH_SECONDS:
                os.utime(path)  # used: it goes later than others
        except OSError:
            return None
        return data or None

    def _make(self, path: Path, picture: Path) -> bytes:
        data = shrink(read_picture(picture))
        try:
            write_atomic(path, data)
        except OSError as error:  # the cache is a convenience: the thumbnail is shown all the same
            _log.debug("The thumbnail cache cannot be written: %s", error)
            return data
        with self._lock:
            self._made += 1
            due = self._made % PRUNE_EVERY == 0
        if due:
            self.prune()
        return data

    def _work(self) -> None:
        while True:
            wanted = self._line.get()
            if wanted is None:
                return
            try:
                self.get(*wanted)
            except WebUIError as error:
                _log.debug("No thumbnail of %s: %s", wanted[1].name, error)
            except Exception:  # one picture must not end the thread
                _log.exception("No thumbnail of %s", wanted[1].name)


def read_picture(path: Path) -> bytes:
    """A picture file's bytes. Raises `NotFound`, also for a file that is too large to be one of ours."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise NotFound(f"The file {path.name} is too large.")
        return path.read_bytes()
    except OSError as error:
        raise NotFound(f"The file {path.name} cannot be read.", "It may have been moved or deleted.") from error


def shrink(data: bytes) -> bytes:
    """A picture's bytes as a small WEBP. Raises `WebUIError` for what is no picture."""
    with pictures.opened(data) as picture:
        mode = "RGBA" if "A" in picture.getbands() else "RGB"
        picture = picture if picture.mode == mode else picture.convert(mode)
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=2)
    return buffer.getvalue()
