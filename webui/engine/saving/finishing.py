"""Pictures that are drawn and not finished: the GPU decodes them while it is given the next batch to draw."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from webui.engine.latents.codec import Decoding
from webui.engine.saving.keeping import Keeping

Complete = Callable[[Decoding], None]

_log = logging.getLogger(__name__)


class Finishing:
    """Completes the pictures of one job in their order, each once it is decoded; behind it stands `Keeping`."""

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._waiting: deque[tuple[Decoding, Complete]] = deque()

    @property
    def busy(self) -> bool:
        """Whether a picture has not been told yet."""
        return bool(self._waiting) or self._keeping.busy

    def add(self, decoding: Decoding, complete: Complete) -> None:
        """Have `complete` called with the picture once it is decoded: now, in `deliver`, or in `finish`."""
        self._waiting.append((decoding, complete))
        self.deliver()

    def deliver(self) -> None:
        """Complete what is decoded by now, and tell of what is kept. Raises what that raises."""
        while self._waiting and self._waiting[0][0].ready:
            self._complete_first()
        self._keeping.deliver()

    def finish(self, *, quietly: bool = False) -> None:
        """Wait for all of them. Raises what the first bad one raised, in the end; the others are kept.

        `quietly`: an error is under way already, so the log alone is told.
        """
        errors: list[Exception] = []
        while self._waiting:
            try:
                self._complete_first()
            except Exception as error:
                errors.append(error)
        try:
            self._keeping.finish()
        except Exception as error:
            errors.append(error)
        for untold in errors if quietly else errors[1:]:
            _log.error("A picture could not be finished: %s", untold)
        if errors and not quietly:
            raise errors[0]

    def _complete_first(self) -> None:
        decoding, complete = self._waiting.popleft()
        complete(decoding)
