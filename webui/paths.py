"""Where things are, and the only two ways to write a file.

`write_atomic` replaces a file (settings, caches); `write_new` makes one that must not exist yet (pictures). Both go
through a temporary name in the same folder, fsync, and a rename or link, so a crash at any moment leaves either the
old state or the new one, never half a file. `safe_path` is the only way from a name that came from outside to a path.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from webui.errors import NotFound

REPO_ROOT = Path(__file__).resolve().parent.parent
SHIPPED_MODELS = REPO_ROOT / "models"
PACKAGE_DATA = Path(__file__).resolve().parent / "data"  # tokenizer files, configs: the project's own

CHECKPOINTS = "Stable-diffusion"  # below models/


@dataclass(frozen=True, slots=True)
class Paths:
    """Every folder the product reads or writes. Model kinds may have several folders, searched in order."""

    data_dir: Path
    outputs: Path
    checkpoints: tuple[Path, ...]
    vaes: tuple[Path, ...]
    loras: tuple[Path, ...]
    embeddings: tuple[Path, ...]
    upscalers: tuple[Path, ...]
    face_restorers: tuple[Path, ...]
    controlnets: tuple[Path, ...]
    hypernetworks: tuple[Path, ...]
    extensions: tuple[Path, ...] = ()  # folders of extensions: the user's first, then those that ship
    styles: tuple[Path, ...] = ()  # files of styles given by the user; a name may hold * and ?

    @classmethod
    def under(
        cls,
        data_dir: Path = REPO_ROOT,
        *,
        outputs: Path | None = None,
        checkpoints: tuple[Path, ...] = (),
        vaes: tuple[Path, ...] = (),
        loras: tuple[Path, ...] = (),
        embeddings: tuple[Path, ...] = (),
        styles: tuple[Path, ...] = (),
        shipped: bool = False,
    ) -> Paths:
        """The usual layout below `data_dir`; folders and files given by the user come before the usual ones.

        `shipped`: and the models that the program comes with, after all others, so that a new folder has something
        that makes pictures.
        """
        root = data_dir.expanduser().resolve()
        models = root / "models"

        def search(extra: tuple[Path, ...], *usual: str) -> tuple[Path, ...]:
            given = tuple(p.expanduser().resolve() for p in extra)
            folders = [*given, *(models / name for name in usual)]
            there = {folder.resolve() for folder in folders}  # the usual one may be a link to what ships
            own = [SHIPPED_MODELS / name for name in usual if shipped and (SHIPPED_MODELS / name).is_dir()]
            return tuple(dict.fromkeys([*folders, *(folder for folder in own if folder.resolve() not in there)]))

        return cls(
            data_dir=root,
            outputs=(outputs.expanduser().resolve() if outputs else root / "outputs"),
            checkpoints=search(checkpoints, CHECKPOINTS),
            vaes=search(vaes, "VAE"),
            loras=search(loras, "Lora"),
            embeddings=search(embeddings, "embeddings"),
            upscalers=search((), "ESRGAN", "upscalers"),
            face_restorers=search((), "GFPGAN", "Codeformer", "facerestore_models"),
            controlnets=search((), "ControlNet"),
            hypernetworks=search((), "hypernetworks"),
            styles=tuple(path.expanduser().absolute() for path in styles),
            extensions=tuple(dict.fromkeys((root / "extensions", REPO_ROOT / "extensions"))),
        )

    @property
    def models(self) -> Path:
        """The usual folder of all models; some kinds may also lie elsewhere."""
        return self.data_dir / "models"

    @property
    def new_checkpoints(self) -> Path:
        """Where checkpoints that the program makes go."""
        return self.models / CHECKPOINTS

    @property
    def config_file(self) -> Path:
        return self.data_dir / "config.yaml"

    @property
    def wildcards(self) -> Path:
        """The folder of wildcard files: `__animal__` is a line of `animal.txt`."""
        return self.data_dir / "wildcards"

    @property
    def styles_file(self) -> Path:
        """Where new styles are written: the first file that the user gave by its whole name, else `styles.csv`."""
        return next((path for path in self.styles if not _is_pattern(path)), self.data_dir / "styles.csv")

    def styles_files(self) -> tuple[Path, ...]:
        """Every file of styles in the order of reading: `styles.csv`, those of the folder `styles`, then the user's.

        A later file's style wins over an earlier one's of that name.
        """
        more = _matching(self.data_dir / "styles" / "*.csv")
        given = [found for path in self.styles for found in (_matching(path) if _is_pattern(path) else (path,))]
        return tuple(dict.fromkeys((self.data_dir / "styles.csv", *more, *given)))

    @property
    def cache_dir(self) -> Path:
        return self.data_dir / "cache"

    @property
    def log_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def users_file(self) -> Path:
        return self.data_dir / "users.json"

    @property
    def extension_data(self) -> Path:
        """What extensions keep, a folder each."""
        return self.data_dir / "data" / "extensions"

    @property
    def queue_db(self) -> Path:
        return self.cache_dir / "queue.sqlite"

    def make_folders(self) -> None:
        """Make what is missing. Raises OSError where a folder cannot be made."""
        for folder in (
            self.outputs,
            self.wildcards,
            self.cache_dir,
            self.log_dir,
            *self.checkpoints,
            *self.vaes,
            *self.loras,
            *self.embeddings,
        ):
            folder.mkdir(parents=True, exist_ok=True)


def _is_pattern(path: Path) -> bool:
    return any(sign in path.name for sign in "*?")


def _matching(pattern: Path) -> list[Path]:
    """The files that a pattern in the last part of a path stands for, by name."""
    return sorted(pattern.parent.glob(pattern.name), key=lambda path: path.name.casefold())


def safe_path(root: Path, name: str) -> Path:
    """The existing regular file `name` below `root`, symbolic links resolved.

    Raises `NotFound` for everything else (outside the root, a folder, a device, a name no file system takes), with one
    message for all of them, so that nothing can be learned about the disk.
    """
    missing = NotFound("There is no such file.", "Refresh the list; it may have been moved or deleted.")
    if not name or "\0" in name or "\\" in name or name.startswith(("/", "~")) or (len(name) > 1 and name[1] == ":"):
        raise missing
    try:
        path = (root / name).resolve(strict=True)
        if path.is_relative_to(root.resolve()) and path.is_file():
            return path
    except (OSError, ValueError, RuntimeError):
        raise missing from None
    raise missing


@contextlib.contextmanager
def _temporary(path: Path, data: bytes, mode: int = 0o600) -> Iterator[Path]:
    """A flushed temporary file beside `path` holding `data`; removed at the end if it still exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename or link in `folder` survive a power cut (POSIX; Windows has no such call).

    Raises nothing: the file has its content and its name by then. Some shared folders (vboxsf, CIFS, 9p, FUSE) refuse
    to sync a folder at all, and a picture that is there must not count as not saved for that.
    """
    if os.name == "posix":
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def write_atomic(path: Path, data: bytes, *, backup: bool = False) -> None:
    """Replace `path` by `data` in one step. With `backup` the old content stays beside it as `NAME.bak`.

    Raises OSError; the old file is then untouched.
    """
    with _temporary(path, data) as temporary:
        if backup and path.exists():
            with _temporary(path, path.read_bytes()) as copy:
                copy.replace(path.with_name(path.name + ".bak"))
        temporary.replace(path)
    _sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Add one line to a journal, flushed. Raises OSError. A crash can leave the last line half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet. Raises FileExistsError if it does, OSError if it cannot be written."""
    with _temporary(path, data, 0o666) as temporary:  # less the umask, as open() makes files; 0600 is for settings
        try:
            os.link(temporary, path)
        except (PermissionError, NotImplementedError, OSError) as error:
            if isinstance(error, FileExistsError):
                raise
            _claim_without_links(temporary, path)
    _sync_folder(path.parent)


def _claim_without_links(temporary: Path, path: Path) -> None:
    """File systems without hard links (exFAT, some network shares): claim the name, then move over the claim."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    try:
        temporary.replace(path)
    except OSError:
        path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def streamed_new(path: Path) -> Iterator[IO[bytes]]:
    """A file to write `path` through, for what does not fit into memory. It gets its name at the end of the block.

    When the block raises nothing is left. Raises FileExistsError when something has that name by then, OSError when the
    disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:
            _claim_without_links(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
