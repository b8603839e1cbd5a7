"""Pictures of jobs that are in memory alone, within bounds: the newest previews, and what is in no file."""

from __future__ import annotations

import threading
from collections import OrderedDict

KEPT_PREVIEWS = 8  # jobs whose last preview can still be had
KEPT_UNSAVED = 256 * 2**20  # bytes of pictures that the disk did not take, or was not asked to


class KeptPictures:
    """Bytes of files, by job. For any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._previews: OrderedDict[str, bytes] = OrderedDict()
        self._unsaved: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def keep_preview(self, job: str, jpeg: bytes) -> None:
        """In the place of the job's earlier one."""
        with self._lock:
            self._previews[job] = jpeg
            self._previews.move_to_end(job)
            while len(self._previews) > KEPT_PREVIEWS:
                self._previews.popitem(last=False)

    def preview(self, job: str) -> bytes | None:
        with self._lock:
            return self._previews.get(job)

    def keep_unsaved(self, job: str, index: int, data: bytes) -> None:
        """Picture `index` of a job. The oldest make room for it; it is kept itself, however large."""
        with self._lock:
            self._unsaved[job, index] = data
            while len(self._unsaved) > 1 and sum(map(len, self._unsaved.values())) > KEPT_UNSAVED:
                self._unsaved.popitem(last=False)

    def unsaved(self, job: str, index: int) -> bytes | None:
        with self._lock:
            return self._unsaved.get((job, index))

    def take_unsaved(self, job: str, index: int) -> bytes | None:
        """The same, for the last time: it makes room for others."""
        with self._lock:
            return self._unsaved.pop((job, index), None)
