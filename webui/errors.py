"""The errors this product raises on purpose. Each says what happened and what the user can do about it.

Anything else that escapes is a defect. The classes cross the process border as plain data
(`to_dict` / `error_from_dict`), so the front can show what the engine worker found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
MAX_SENTENCE = 2000  # characters


def printable(text: str) -> str:
    """One line that any terminal, log and response can carry, whatever name or value from outside stands in it."""
    line = _UNPRINTABLE.sub("\ufffd", " ".join(text[: 2 * MAX_SENTENCE].splitlines()))
    return line if len(line) <= MAX_SENTENCE else line[: MAX_SENTENCE - 1] + "\N{HORIZONTAL ELLIPSIS}"


class WebUIError(Exception):
    """Base of all expected errors.

    `message` is one sentence about what happened, `advice` one about what to do next ("" when there is nothing to add).
    """

    status = 400  # the HTTP status that fits when the error reaches a route

    def __init__(self, message: str, advice: str = "") -> None:
        self.message = printable(message)
        self.advice = printable(advice)
        super().__init__(self.message, self.advice)

    def __str__(self) -> str:
        return f"{self.message} {self.advice}".strip()

    def to_dict(self) -> dict[str, str]:
        return {"error": type(self).__name__, "message": self.message, "advice": self.advice}


class InvalidParams(WebUIError):
    """A value of a request is out of bounds, of the wrong type, or names something unknown."""

    status = 422


class NotFound(WebUIError):
    """A job, picture or file that was asked for does not exist (any more)."""

    status = 404


class NotSignedIn(WebUIError):
    """The request carries no credential that is valid here."""

    status = 401


class Forbidden(WebUIError):
    """Whoever asks is known, but this is not theirs to do."""

    status = 403


class AccountError(WebUIError):
    """A user's name or password that cannot be, or a users file that cannot be read."""


class ModelNotFound(InvalidParams):
    """No model file answers to the name that was given."""


class UnsupportedModel(InvalidParams):
    """The file is what it claims to be, but this engine cannot run its family (yet)."""


class BadModelFile(WebUIError):
    """The file is damaged, truncated, of another format, or breaks a bound of the loader."""

    status = 422


class UnsafeFile(BadModelFile):
    """A pickle-based file holds something other than plain tensors: it is not opened."""


class BadPicture(WebUIError):
    """The file is no picture that is read here, is damaged or truncated, or breaks a bound of the reader."""

    status = 422


class OutOfMemory(WebUIError):
    """The device, or the machine, ran out of memory."""

    status = 503


class NanDetected(WebUIError):
    """The network produced numbers that are not numbers, and no safer precision was left to try."""

    status = 500


class SaveError(WebUIError):
    """A picture was made but could not be written."""

    status = 507


class SettingsError(WebUIError):
    """A setting has a value that cannot be used, or the settings file cannot be written."""


class WorkerDied(WebUIError):
    """The engine worker ended, or stopped answering, while it owned the job."""

    status = 503


class DeviceLost(WebUIError):
    """The device failed in a way that only a new process can get over (a sticky CUDA error, a GPU that went away)."""

    status = 503


class AlreadyRunning(WebUIError):
    """Another instance of the program uses the same data folder."""

    status = 409


class QueueFull(WebUIError):
    """The queue holds as many jobs as it may. `retry_after`: in how many seconds there is room, as far as is known."""

    status = 429
    retry_after = 5


class TooBusy(WebUIError):
    """The server does as much of something as it may at one time."""

    status = 503


class EngineFault(WebUIError):
    """The engine failed in a way that nobody foresaw; the log has the traceback."""

    status = 500


class HistoryUnavailable(WebUIError):
    """The history cannot be read or written at present. Pictures are made and saved all the same."""

    status = 503


_BY_NAME: dict[str, type[WebUIError]] = {}


def _register(cls: type[WebUIError]) -> None:
    _BY_NAME[cls.__name__] = cls
    for sub in cls.__subclasses__():
        _register(sub)


_register(WebUIError)


def error_from_dict(data: dict[str, str]) -> WebUIError:
    """The inverse of `WebUIError.to_dict`; an unknown class becomes an `EngineFault`."""
    cls = _BY_NAME.get(data.get("error", ""), EngineFault)
    return cls(data.get("message", ""), data.get("advice", ""))


def near_matches(name: str, known: Iterable[str], count: int = 3) -> str:
    """`Did you mean "a", "b"?` for an unknown name, or "" when nothing known is near."""
    by_folded = {k.casefold(): k for k in known}
    close = get_close_matches(name[:200].casefold(), list(by_folded), n=count, cutoff=0.5)
    if not close:
        return ""
    return "Did you mean " + ", ".join(f'"{by_folded[c]}"' for c in close) + "?"
