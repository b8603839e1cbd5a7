"""The trash: files leave the grid and come back as they were. `outputs/.trash/ID/` keeps each file's relative path.

Only files in the outputs folder ever move. A picture in a folder that was imported belongs to somebody else's program:
its row goes into the trash, its file stays where it is.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from webui.errors import SaveError

TRASH = ".trash"
MAX_TRIES = 1000


def trashed_file(outputs: Path, picture_id: int, path: str) -> Path:
    """Where a picture's file is while it is in the trash."""
    return outputs / TRASH / str(picture_id) / path


def move_to_trash(outputs: Path, picture_id: int, path: str) -> bool:
    """Move the file; False when it was not there. Raises `SaveError` when the disk refuses."""
    target = trashed_file(outputs, picture_id, path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        (outputs / path).replace(target)
    except FileNotFoundError:
        _tidy(outputs, target.parent)
        return False
    except OSError as error:
        raise _refused("deleted", path, error) from error
    return True


def bring_back(outputs: Path, picture_id: int, path: str) -> str | None:
    """Move the file back; gives its relative path: another name when its own was taken since. None: no file.

    Raises `SaveError` when the disk refuses; the file is then still in the trash.
    """
    source = trashed_file(outputs, picture_id, path)
    wanted = Path(path)
    for number in range(1, MAX_TRIES):
        name = wanted if number == 1 else wanted.with_name(f"{wanted.stem[:200]} ({number}){wanted.suffix}")
        try:
            (outputs / name).parent.mkdir(parents=True, exist_ok=True)
            _move_without_overwriting(source, outputs / name)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _refused("restored", path, error) from error
        _tidy(outputs, source.parent)
        return name.as_posix()
    raise SaveError(f"No free name was found for {wanted.name}.", "Move the files of that name to another folder.")


def remove(outputs: Path, picture_id: int, path: str) -> None:
    """Delete a trashed file for good. Raises `SaveError` when the disk refuses."""
    target = trashed_file(outputs, picture_id, path)
    try:
        target.unlink(missing_ok=True)
    except OSError as error:
        raise _refused("deleted", path, error) from error
    _tidy(outputs, target.parent)


def _move_without_overwriting(source: Path, target: Path) -> None:
    """Raises FileExistsError when there is a file of that name, FileNotFoundError when there is nothing to move."""
    try:
        os.link(source, target)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # a file system without hard links
        if not source.exists():
            raise FileNotFoundError(source) from None
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        source.replace(target)
        return
    source.unlink()


def _tidy(outputs: Path, folder: Path) -> None:
    """Remove the empty folders that a file left behind in the trash."""
    trash = outputs / TRASH
    with contextlib.suppress(OSError):
        while folder != trash and folder.is_relative_to(trash):
            folder.rmdir()
            folder = folder.parent


def _refused(verb: str, path: str, error: OSError) -> SaveError:
    return SaveError(
        f"{Path(path).name} could not be {verb}: {error.strerror or error}.",
        "Give write access to the outputs folder and try again; the file is where it was.",
    )
