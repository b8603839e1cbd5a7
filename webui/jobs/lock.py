"""One program at a time on one data folder.

The lock is the operating system's, on an open file: it goes away with the process, however that ends, so a stale file
is no obstacle. The file's text (the process id) is only for the message.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from pathlib import Path

from webui.errors import AlreadyRunning, WebUIError

logger = logging.getLogger(__name__)

_LOCKED_BYTE = 1 << 30  # Windows locks bytes, and a locked one cannot be read: take one that is far from the text
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, getattr(errno, "EOPNOTSUPP", errno.ENOSYS), errno.EINVAL}


class InstanceLock:
    """Held from its making until `release`. Raises `AlreadyRunning` when another instance holds it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lost = False
        self._take(path)

    def _take(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise WebUIError(
                f"The data folder cannot be used: {path.parent}: {error.strerror or error}.",
                "Give write access to it, or choose another one with --data-dir.",
            ) from error
        try:
            _lock(self._handle)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                logger.warning("this file system has no locks; make sure that only one instance uses %s", path.parent)
                return
            owner = _owner(self._handle)
            self.release()
            raise AlreadyRunning(
                f"Another instance{owner} already uses this data folder.",
                "Use that one, stop it first, or start this one with another folder: --data-dir DIR.",
            ) from None
        os.ftruncate(self._handle, 0)
        os.write(self._handle, str(os.getpid()).encode())  # the position is 0: nothing was read yet

    def look(self) -> None:
        """Take the lock anew where somebody has deleted its file, or a second instance would come in. Cheap."""
        if self._handle is None or self._lost or not _is_gone(self._path):
            return
        before = self._handle
        try:
            self._take(self._path)
        except WebUIError as error:
            self._handle, self._lost = before, True
            logger.error("the lock on %s was deleted and cannot be taken again: %s", self._path.parent, error)
            return
        with contextlib.suppress(OSError):
            os.close(before)

    def release(self) -> None:
        """Give the folder free. The file stays: deleting it would race with the next instance."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with contextlib.suppress(OSError):
                os.close(handle)


def _is_gone(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # a share that does not answer, say
        return False
    return False


def _owner(handle: int) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f" (process {int(os.read(handle, 20))})"
    return ""


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
