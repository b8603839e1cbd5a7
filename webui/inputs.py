"""Pictures that jobs start from: masks and pictures that came from outside, kept under the sha256 of their bytes.

They lie below `outputs/.inputs`, a hidden folder: nothing there is listed, served as an output or indexed. Equal files
are kept once. A job names them by reference (`GenerationParams.inputs`), so a replay starts from the same bytes. A file
stays as long as a job or a picture of the history needs it; the rest is removed by `clean`, a day after its last use.

A reference is no permission, for whoever has a file can work it out: an empty file beside the picture names each user
who brought it, and `InputRights` says who may start from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from webui import pictures
from webui.errors import BadPicture, InvalidParams, NotFound, SaveError
from webui.identity import Viewer
from webui.params import GenerationParams, params_from_json
from webui.paths import write_new

FOLDER = ".inputs"
KEEP_UNUSED_SECONDS = 24 * 3600.0
MAX_BYTES = 64 * 2**20  # of one file; the largest request that the server takes
MAX_OF_ONE = 4 * 2**30  # bytes that one user keeps in use within `KEEP_UNUSED_SECONDS`
_REFERENCE = re.compile(r"[0-9a-f]{64}\Z")
_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "AVIF": ".avif"}
_BROUGHT_BY = ".user"
_ANY_REFERENCE = re.compile(r'"([0-9a-f]{64})"')


@dataclass(frozen=True, slots=True)
class InputPicture:
    """A stored picture: its reference and its size in pixels, upright. `has_alpha`: some of it can be transparent."""

    reference: str
    width: int
    height: int
    format: str  # "PNG", "JPEG", "WEBP" or "AVIF"
    has_alpha: bool


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What `clean` did: files and bytes removed, files and bytes left."""

    removed: int
    removed_bytes: int
    kept: int
    kept_bytes: int


class InputStore:
    """The store below an outputs folder. Cheap to make; any thread and process may use it at the same time."""

    def __init__(self, outputs: Path) -> None:
        self._root = outputs / FOLDER

    def add(self, data: bytes, user: str = "") -> InputPicture:
        """Keep a picture file that `user` brought, "" for whoever sits at the machine.

        Raises `BadPicture` for what is no picture, `SaveError` when the disk refuses or the user brought too much.
        """
        if len(data) > MAX_BYTES:
            raise BadPicture(f"The file is larger than {MAX_BYTES // 2**20} MB.", "Use a smaller picture.")
        reference = hashlib.sha256(data).hexdigest()
        facts = _facts(reference, data)
        path = self._folder(reference) / f"{reference}{_SUFFIXES[facts.format]}"
        if user and not self.brought_by(reference, user) and self._in_use_by(user) + len(data) > MAX_OF_ONE:
            raise SaveError(
                f"You brought {MAX_OF_ONE // 2**30} GB of pictures within a day, and no more are kept for one user.",
                "Wait some hours: what no job and no picture needs is removed a day after its last use.",
            )
        try:
            with contextlib.suppress(FileExistsError):
                write_new(path, data)
            os.utime(path)  # it is in use, whoever brought it first
            if user:
                with contextlib.suppress(FileExistsError):
                    write_new(self._mark(reference, user), b"")
        except OSError as error:
            raise SaveError(
                f"The picture could not be stored: {error.strerror or error}.",
                f"Make room or give write access in {self._root}.",
            ) from error
        return facts

    def brought_by(self, reference: str, user: str) -> bool:
        """Whether this user has put the picture here."""
        return _REFERENCE.match(reference) is not None and self._mark(reference, user).is_file()

    def path(self, reference: str) -> Path:
        """The stored file. Raises `NotFound`."""
        if _REFERENCE.match(reference):
            for suffix in _SUFFIXES.values():
                path = self._folder(reference) / f"{reference}{suffix}"
                if path.is_file():
                    return path
        raise not_here(reference)

    def read(self, reference: str) -> bytes:
        """The file's bytes. Raises `NotFound`, and `BadPicture` when they are not what was stored."""
        try:
            data = self.path(reference).read_bytes()
        except OSError:
            raise NotFound("The picture to start from cannot be read.", "Choose it again.") from None
        if hashlib.sha256(data).hexdigest() != reference:
            raise BadPicture(
                f"The stored picture {reference[:12]} is damaged.", "Choose it again; its file was changed."
            )
        return data

    def size_of(self, reference: str) -> tuple[int, int] | None:
        """Width and height upright, from the file's header; None where it tells none. Raises as `read` does."""
        return pictures.upright_size(self.read(reference))

    def open(self, reference: str) -> Image.Image:
        """The picture, decoded and upright, in the mode it was stored in. Raises `NotFound` and `BadPicture`."""
        return pictures.open_image(self.read(reference), max_pixels=pictures.MAX_RESULT_PIXELS)

    def look(self, reference: str) -> InputPicture:
        """What is known of a stored picture. Raises `NotFound` and `BadPicture`."""
        return _facts(reference, self.read(reference))

    def require(self, params: GenerationParams) -> None:
        """See that everything a request starts from is here, and keep it from being cleaned. Raises `NotFound`."""
        for reference in params.inputs:
            with contextlib.suppress(OSError):
                os.utime(self.path(reference))

    def clean(self, needed: Collection[str], older_than: float = KEEP_UNUSED_SECONDS) -> Cleaned:
        """Remove the files that are not `needed` and were not touched for `older_than` seconds."""
        removed = removed_bytes = kept = kept_bytes = 0
        limit = time.time() - older_than
        for entry in self._entries():
            try:
                status = entry.stat()
                if entry.name[:64] not in needed and status.st_mtime < limit:
                    Path(entry.path).unlink()
                    for mark in Path(entry.path).parent.glob(f"{entry.name[:64]}.*{_BROUGHT_BY}"):
                        mark.unlink(missing_ok=True)
                    removed, removed_bytes = removed + 1, removed_bytes + status.st_size
                    continue
            except OSError:
                continue  # somebody else removed it, or the disk does not let us
            kept, kept_bytes = kept + 1, kept_bytes + status.st_size
        return Cleaned(removed, removed_bytes, kept, kept_bytes)

    def _in_use_by(self, user: str) -> int:
        """Bytes of what this user brought and somebody used lately. Older files are here because they are needed."""
        size, limit = 0, time.time() - KEEP_UNUSED_SECONDS
        for entry in self._entries():
            with contextlib.suppress(OSError):
                if self._mark(entry.name[:64], user).exists() and (status := entry.stat()).st_mtime > limit:
                    size += status.st_size
        return size

    def _folder(self, reference: str) -> Path:
        return self._root / reference[:2]

    def _mark(self, reference: str, user: str) -> Path:
        """The file that says that this user brought the picture. Names are hashed: they may hold what files cannot."""
        name = hashlib.sha256(user.encode()).hexdigest()[:32]
        return self._folder(reference) / f"{reference}.{name}{_BROUGHT_BY}"

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        try:
            folders = [entry.path for entry in os.scandir(self._root) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return
        for folder in folders:
            with contextlib.suppress(OSError), os.scandir(folder) as listing:
                for entry in listing:
                    if _REFERENCE.match(entry.name[:64]) and not entry.name.endswith(_BROUGHT_BY):
                        yield entry


class InputRights:
    """Who may see a stored picture and start from it: who brought it, who has made something from it, administrators.

    `used`: functions that tell whether a user's jobs, or pictures, were made from a reference.
    """

    def __init__(self, store: InputStore, *used: Callable[[str, str], bool]) -> None:
        self._store = store
        self._used = used

    def may_use(self, viewer: Viewer, reference: str) -> bool:
        return (
            viewer.admin
            or self._store.brought_by(reference, viewer.name)
            or any(used(viewer.name, reference) for used in self._used)
        )

    def require(self, viewer: Viewer, params: GenerationParams) -> None:
        """Raises `NotFound` where the request starts from somebody else's picture, in the same words as for none."""
        for reference in params.inputs:
            if not self.may_use(viewer, reference):
                raise not_here(reference)


def not_here(reference: str) -> NotFound:
    return NotFound(
        f"The picture {reference[:12]} to start from is not here (any more).",
        "Choose it again; pictures that no job and no picture needs are removed after a day.",
    )


def references_in(text: str) -> set[str]:
    """Everything in a params JSON that looks like a reference; cheaper than reading it, and it never misses one."""
    return set(_ANY_REFERENCE.findall(text))


def starts_from(params_json: str, reference: str) -> bool:
    """Whether stored params name that picture as one to start from; a prompt of the same letters is none."""
    try:
        return reference in params_from_json(params_json).inputs
    except InvalidParams:  # written by another version
        return False


def _facts(reference: str, data: bytes) -> InputPicture:
    with pictures.opened(data) as image:
        has_alpha = "A" in image.getbands() or "transparency" in image.info
        return InputPicture(reference, image.width, image.height, str(image.format), has_alpha)
