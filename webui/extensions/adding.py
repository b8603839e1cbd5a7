"""Taking an extension in: a folder or a wheel becomes a folder among the extensions. Nothing else is installed.

The files are only copied; whether they may be is asked by whoever calls this, in a terminal. A wheel's own
requirements are checked against what is installed, like those of every extension.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from webui.extensions.discovery import missing_requirements
from webui.extensions.manifest import FILE, BadExtension, Manifest, folder_hash, read_manifest_file

MAX_FILES, MAX_BYTES = 2000, 200 * 2**20


@dataclass(frozen=True, slots=True)
class Candidate:
    """An extension that could be added: where its files lie now, what it says of itself, what code it would run."""

    folder: Path
    manifest: Manifest
    digest: str
    code: tuple[str, ...]  # the Python files, relative
    missing: tuple[str, ...]  # a sentence for each requirement that is not met


@contextmanager
def candidate(source: Path) -> Iterator[Candidate]:
    """Look at a folder or wheel. Raises `BadExtension`. A wheel is unpacked to a temporary folder for as long."""
    if source.is_dir():
        yield _look(source)
    elif zipfile.is_zipfile(source):
        with tempfile.TemporaryDirectory(prefix="latent-extension-") as temporary:
            yield _look(_unpack(source, Path(temporary)))
    else:
        raise BadExtension(f"{source} is neither a folder nor a wheel.", f"An extension is a folder with {FILE} in it.")


def add(found: Candidate, extensions: Path) -> Path:
    """Copy the extension to its place; gives the folder. Raises `BadExtension` when there is one of that name."""
    target = extensions / found.manifest.name
    if target.exists():
        raise BadExtension(
            f"There is an extension {found.manifest.name} already, in {target}.", "Delete or move that folder first."
        )
    extensions.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=extensions) as temporary:
        copied = Path(temporary) / found.manifest.name
        shutil.copytree(found.folder, copied, ignore=shutil.ignore_patterns("__pycache__", ".git"))
        copied.rename(target)
    return target


def _look(folder: Path) -> Candidate:
    manifest = read_manifest_file(folder)
    paths = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    if len(paths) > MAX_FILES or sum(path.stat().st_size for path in paths) > MAX_BYTES:
        raise BadExtension(f"{folder} is too large for an extension.", "Is it the right folder?")
    if any(path.is_symlink() for path in folder.rglob("*")):
        raise BadExtension(f"{folder} holds links.", "Only plain files are taken in.")
    code = tuple(sorted(path.relative_to(folder).as_posix() for path in paths if path.suffix == ".py"))
    missing = tuple(missing_requirements(manifest.requires))
    return Candidate(folder, manifest, folder_hash(folder), code, missing)


def _unpack(wheel: Path, target: Path) -> Path:
    """The folder of the wheel that holds the manifest, below `target`."""
    with zipfile.ZipFile(wheel) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        manifests = [PurePosixPath(entry.filename) for entry in entries if entry.filename.endswith(f"/{FILE}")]
        if len(manifests) != 1:
            raise BadExtension(f"{wheel.name} holds {len(manifests)} files {FILE}.", "It has to hold one extension.")
        if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_BYTES:
            raise BadExtension(f"{wheel.name} is too large for an extension.")
        package = manifests[0].parent
        for entry in entries:
            name = PurePosixPath(entry.filename)
            if package in name.parents and ".." not in name.parts and not name.is_absolute():
                archive.extract(entry, target)
    return target / package
