"""Hashing in one background thread, with every result kept in the cache."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from webui.catalog.cache import Cache, Fingerprint
from webui.catalog.hashes import HashingStopped, addnet_hash, folder_sha256, sha256_of
from webui.catalog.models import ModelFile
from webui.errors import ModelNotFound, WebUIError

_log = logging.getLogger(__name__)
_Key = tuple[Path, str]


class Hasher:
    """Computes each hash once, however many threads ask. `known(model, sha256)` is called for each new sha256.

    The thread is started by the first request that does not wait, and ends when there is nothing left to do.
    """

    def __init__(self, cache: Cache, known: Callable[[ModelFile, str], None]) -> None:
        self._cache = cache
        self._known = known
        self._lock = threading.Lock()
        self._waiting: dict[_Key, ModelFile] = {}  # in the order of the requests
        self._running: dict[_Key, threading.Event] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def sha256(self, model: ModelFile, wait: bool) -> str:
        return self._hash(model, "sha256", wait)

    def addnet(self, model: ModelFile, wait: bool) -> str:
        return self._hash(model, "addnet", wait)

    def close(self) -> None:
        """Stop soon; what was not finished is computed when it is asked for again."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=5.0)

    def _hash(self, model: ModelFile, algorithm: str, wait: bool) -> str:
        if algorithm == "sha256" and model.sha256 and _fingerprint(model) == model.fingerprint:
            return model.sha256
        stored = self._cache.hash_of(model.path, algorithm, _fingerprint(model))
        if stored:
            self._tell(model, algorithm, stored)
            return stored
        if wait:
            return self._compute_once(model, algorithm, lambda: False)
        with self._lock:
            if not self._closed:
                self._waiting.setdefault((model.path, algorithm), model)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="hashes", daemon=True)
                    self._thread.start()
        return ""

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._closed or not self._waiting:
                    self._thread = None
                    return
                key = next(iter(self._waiting))
                model, algorithm = self._waiting.pop(key), key[1]
            try:
                self._compute_once(model, algorithm, lambda: self._closed)
            except HashingStopped:
                _log.debug("hashing %s was stopped", model.name)
            except (WebUIError, OSError) as error:
                _log.warning("no hash for %s: %s", model.name, error)

    def _compute_once(self, model: ModelFile, algorithm: str, stopped: Callable[[], bool]) -> str:
        """Compute it, or wait for the thread that does and take its result."""
        key = (model.path, algorithm)
        while True:
            with self._lock:
                other = self._running.get(key)
                if other is None:
                    mine = self._running[key] = threading.Event()
                    break
            other.wait()
            stored = self._cache.hash_of(model.path, algorithm, _fingerprint(model))
            if stored:
                return stored
        try:
            before = _fingerprint(model)
            digest = _compute(model, algorithm, stopped)
            self._cache.keep_hash(model.path, algorithm, before, digest)
            self._tell(model, algorithm, digest)
            return digest
        finally:
            with self._lock:
                del self._running[key]
            mine.set()

    def _tell(self, model: ModelFile, algorithm: str, digest: str) -> None:
        if algorithm == "sha256" and _fingerprint(model) == model.fingerprint:
            self._known(model, digest)


def _compute(model: ModelFile, algorithm: str, stopped: Callable[[], bool]) -> str:
    if model.is_folder:
        return folder_sha256(model.path, list(model.parts.values()), stopped=stopped)
    if algorithm == "addnet":
        return addnet_hash(model.path, stopped=stopped)
    return sha256_of(model.path, stopped=stopped)


def _fingerprint(model: ModelFile) -> Fingerprint:
    """The file's present (size, mtime_ns, inode); of a folder, what the scan saw. Raises `ModelNotFound`."""
    if model.is_folder:
        return model.fingerprint
    try:
        status = model.path.stat()
    except OSError:
        raise ModelNotFound(
            f'The file of "{model.name}" is not there any more.', "Refresh the list; it was moved or deleted."
        ) from None
    return status.st_size, status.st_mtime_ns, status.st_ino
